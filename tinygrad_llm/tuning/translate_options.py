"""Everything that can be chosen about a translation run, with its help text: the one source of the flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from ..models import make_config
from ..training.options import option
from .options import TuningOptions

TOKENIZERS = ("word", "bpe", "char")


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(TuningOptions):
    """The options of `translate`, complete and checked; ConfigError for bad values."""

    task: ClassVar[str] = "translate"
    most_files: ClassVar[int] = 2
    hidden: ClassVar[tuple[str, ...]] = ("train", "lora", "max_length")  # all learns, and pairs are never cut off
    fixed: ClassVar[tuple[str, ...]] = (  # what decides the model, the pairs and their parts
        *TuningOptions.fixed,
        *("hidden_dim", "norm_first", "positions", "share", "tokenizer", "vocab_size", "encoding"),
    )
    fresh: ClassVar[dict[str, Any]] = {
        **{"context_length": 64, "emb_dim": 128, "n_heads": 4, "n_layers": 2, "train": "all"},
        **{"epochs": 6, "batch_size": 128, "lr": 2e-3, "warmup": 0.1, "beta2": 0.98, "eps": 1e-9},
        **{"weight_decay": 0.0, "spike": 0.0},
    }

    hidden_dim: int = option("features between the feed-forward layers; 0: four times emb_dim", 0, least=0)
    norm_first: bool = option(
        "the norm comes before attention and feed-forward, as in GPT-2, not after the shortcut", False
    )
    positions: str = option(
        "sines and cosines, interleaved as in the paper or in halves as in Marian, or none",
        "interleaved",
        choices=("interleaved", "halves", "none"),
    )
    share: str = option(
        "one table of tokens for source, target and head (all), for target and head (target), or three (none)",
        "all",
        choices=("all", "target", "none"),
    )
    label_smoothing: float = option(
        "share of a target's probability that is spread over all tokens alike, as torch has it: the loss that is shown has it "
        "too, so the negative log-likelihood (nll) stands beside it",
        0.1,
        below=1,
    )
    tokenizer: str = option(
        "of both sides, learned from the pairs to train on: words (word), bytes and their merges (bpe), or characters (char)",
        "word",
        choices=TOKENIZERS,
    )
    vocab_size: int = option("of bpe: 256 bytes, a mark, and merges", 4000, least=257)
    bucket: int = option("of so many batches in a row, pairs of like length go together; 1: as they come", 8)
    judged: int = option("pairs kept for testing that are translated in the end, at most", 2000)
    encoding: str = option("of the files; without it, found: utf-8, utf-16 or cp1252", "")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train != "all" or self.max_length:
            raise ConfigError(
                "translate: train must be 'all' and max_length 0: all of a fresh model learns, on whole pairs"
            )

    def model_config(self, model: Any, vocab_size: int) -> Any:
        """The configuration of a fresh model for a vocabulary, of which the last id is the mark that begins and ends a text."""
        names = ("context_length", "emb_dim", "n_heads", "n_layers", "drop_rate", "norm_first", "positions", "share")
        sizes: dict[str, Any] = {name: getattr(self, name) for name in names}
        marks = dict.fromkeys(("start_id", "end_id", "pad_id"), vocab_size - 1)
        config = make_config(
            "seq2seq", {"vocab_size": vocab_size, "hidden_dim": self.hidden_dim or None, **sizes, **marks}
        )
        config.check_bytes()
        return config
