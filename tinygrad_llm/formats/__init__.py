"""Bytes to named arrays and back: safetensors, PyTorch's zip, TensorFlow's index. Nothing here knows a model."""
