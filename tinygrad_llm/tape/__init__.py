"""What the engine is made of besides Tensor and Op: nodes, steps, who watches them, and how they show themselves."""
