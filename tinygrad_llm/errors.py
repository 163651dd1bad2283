"""Every error of the package: one tree, and each class also derives from the built-in that a caller would catch.

A message says what was passed, where, and what to do, on one line:
`linear: x is (4, 7), weight is (16, 8): the last axis of x must be 8`.
"""


class TinygradLLMError(Exception):
    """The root: `except TinygradLLMError` catches everything this package raises on purpose."""


class ShapeError(TinygradLLMError, ValueError):
    """Arrays whose shapes do not fit together."""


class DTypeError(TinygradLLMError, TypeError):
    """An array of a kind that cannot be used here: integers where a gradient is wanted, two float widths in one graph."""


class GraphError(TinygradLLMError, RuntimeError):
    """The tape cannot do what was asked: backward twice, from a non-scalar, after a write into a saved array."""


class NonFiniteError(TinygradLLMError, FloatingPointError):
    """A NaN or an infinity where a finite number is needed."""


class LossSpike(NonFiniteError):
    """A loss far above those before it: what comes before a NaN."""


class ConfigError(TinygradLLMError, ValueError):
    """A configuration or option that cannot work."""


class DataError(TinygradLLMError, ValueError):
    """Text, token ids or files that cannot be used as data."""


class ContextLengthError(DataError):
    """A sequence longer than the model's context."""


class TokenizerError(TinygradLLMError, ValueError):
    """Text that cannot be encoded, ids that cannot be decoded, or a tokenizer that cannot be had."""


class StateDictError(TinygradLLMError, KeyError):
    """Names or shapes in a state dict that do not fit the module."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class CheckpointError(TinygradLLMError, ValueError):
    """A run folder or weights file that cannot be read or written."""


class CorruptCheckpoint(CheckpointError):
    """A weights file that is damaged, cut off, or contradicts itself."""


class UnsafeFile(CheckpointError):
    """A file that could run code, or that leads to files outside its own folder."""


class ConfigMismatch(CheckpointError):
    """A checkpoint of another architecture, tokenizer or data than the run that is to go on from it.

    `differences`: name -> (what the run has, what it was to be).
    """

    def __init__(self, message: str, differences: dict[str, tuple]) -> None:
        super().__init__(message)
        self.differences = differences


class StorageError(CheckpointError, OSError):
    """A file or folder that cannot be written: the disk is full or read-only, the name is too long, someone is in it."""


class OutOfMemory(TinygradLLMError, MemoryError):
    """More memory is needed than there is."""


class MissingPackage(TinygradLLMError, ImportError):
    """A package that is needed only here, and that an extra brings, is not installed."""
