"""Public weights in, our weights out: GPT-2, Llama, BERT, RWKV-4 and ViT as published, and folders that transformers opens."""

from .convert import convert
from .load import load_pretrained
from .report import LoadReport
from .save import save_pretrained

__all__ = ["LoadReport", "convert", "load_pretrained", "save_pretrained"]
