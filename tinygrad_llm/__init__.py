"""A large language model from scratch in NumPy, with every derivative in plain sight."""
