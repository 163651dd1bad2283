"""A run on disk: its folder, checkpoints, records and pictures. Read folder, then checkpoint."""

from .folder import load_run

__all__ = ["load_run"]
