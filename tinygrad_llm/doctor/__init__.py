"""Is all well? The installation, a model, a run (`tinygrad-llm doctor`), and how fast a training step is (`bench`)."""
