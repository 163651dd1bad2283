"""One file per architecture."""

from .gpt import PRESETS, GPTConfig, GPTModel, preset

__all__ = ["PRESETS", "GPTConfig", "GPTModel", "preset"]
