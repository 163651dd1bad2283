"""A trained translator at work: what it writes to a source, how sure it is, and where it looks while it writes.

    translator = Translator.load("runs/translate")
    translator.translate(["This is an example"])[0].text            # "Das ist ein Beispiel"
    translator.translate(texts, beams=4, length_penalty=0.6)        # the likeliest of those that are followed
    translator.align("This is an example").weights                  # (layers, heads, T, S)

A source ends with the mark that ends a text. A target begins with the mark that begins one; what is to be foretold is the target
and the mark that ends it, a place further on.

Letters in shape comments: B batch, S tokens of the source, T of the target, H heads, V tokens of the vocabulary, N pairs.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_number, check_size
from ..engine import no_grad
from ..errors import CheckpointError, ConfigError, ContextLengthError, DataError
from ..generation import beam_search, generate
from ..nn.module import evaluating
from ..ops import cross_entropy
from ..parallel import spread, threads
from ..text import Tokenizer
from ..text.view import visible
from ..training.step import Batch
from ..weights.load import load_pretrained
from ..weights.tokenizer_files import BESIDE
from .splits import pad

_BATCH = 64
_LONGER = 50  # tokens that a target may have more than its source (Vaswani et al. 2017 §6.1)
_IGNORED = -100  # a target that does not count


class Row(NamedTuple):
    """A pair as ids, without marks."""

    source: list[int]
    target: list[int]


def frame(sources: Sequence[Sequence[int]], config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sources with the mark that ends them, filled up to the longest: ids (B, S), and a mask (B, S), True for a token."""
    ids, lengths = pad([[*source, config.end_id] for source in sources], config.pad_id)  # (B, S), (B,)
    return ids, np.arange(ids.shape[1]) < lengths[:, None]


def collate(rows: Sequence[Row], config: Any) -> Batch:
    """What a step learns from: source (B, S), its mask (B, S), target (B, T) from its beginning, and labels (B, T), which are the
    next token of each, the mark that ends a text the last of them, and -100 for what fills a row up.
    """
    source, mask = frame([row.source for row in rows], config)
    target, lengths = pad([[config.start_id, *row.target] for row in rows], config.pad_id)  # (B, T), (B,)
    labels = np.full(target.shape, _IGNORED)  # (B, T)
    for i, row in enumerate(rows):
        labels[i, : lengths[i]] = [*row.target, config.end_id]
    return source, mask, target, labels


def write_targets(
    model: Any, sources: Sequence[Sequence[int]], max_new_tokens: int | None = None, unused: Sequence[int] = ()
) -> list[tuple[list[int], bool]]:
    """The likeliest token each time, for sources of ids: what is written to each, and whether it came to its end.

    Up to `max_new_tokens`, by default 50 more than the source has, and no more than there are positions. Ids that are `unused`
    are never written.
    """
    config, found = model.config, dict[int, tuple[list[int], bool]]()
    order = np.argsort([len(source) for source in sources], kind="stable").tolist()
    bias = dict.fromkeys(unused, -math.inf)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        n_new = _room(config, len(sources[chosen[-1]]), max_new_tokens)
        reading = model.reading(*frame([sources[i] for i in chosen], config))
        begun = [[config.start_id]] * len(chosen)
        written = generate(reading, begun, n_new, stop_ids=[config.end_id], logit_bias=bias)  # (B, 1 + T)
        for i, row in zip(chosen, written[:, 1:].tolist(), strict=True):
            ids = [j for j in row if j >= 0]
            found[i] = ids, len(ids) < n_new
    return [found[i] for i in range(len(sources))]


def _room(config: Any, n_source: int, max_new_tokens: int | None) -> int:
    most = n_source + _LONGER if max_new_tokens is None else max_new_tokens
    return min(most, config.context_length - 1)


def token_losses(model: Any, rows: Sequence[Row], batch_size: int, label_smoothing: float = 0.0) -> tuple[float, float]:
    """Mean loss per token of targets, the mark at their end included: with `label_smoothing`, and without, which is -log p."""
    order = np.argsort([len(row.source) + len(row.target) for row in rows], kind="stable").tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def judge(chosen: Sequence[int]) -> tuple[float, float, int]:
        source, mask, target, labels = collate([rows[i] for i in chosen], model.config)
        logits = model(source, target, mask)  # (B, T, V)
        sums = [
            cross_entropy(logits, targets=labels, reduction="sum", label_smoothing=share).item()
            for share in (label_smoothing, 0.0)
        ]
        return sums[0], sums[1], int((labels != _IGNORED).sum())

    with evaluating(model), no_grad(), threads(None):
        smoothed, plain, counts = zip(*spread(judge, batches), strict=True)
    return sum(smoothed) / sum(counts), sum(plain) / sum(counts)


@dataclass(frozen=True)
class Translation:
    """What was written to a source; its score is the log-probability in nats, over the length penalty."""

    text: str
    score: float
    ids: list[int]
    ended: bool  # else it was cut off where there was no more room


@dataclass(frozen=True)
class Alignment:
    """Where each token that is written has looked: probabilities over the tokens of the source, of which the rows come to 1."""

    source: list[bytes]  # S tokens, the mark that ends the source the last of them
    target: list[bytes]  # T tokens, the mark that ends the target the last of them
    weights: np.ndarray  # (layers, H, T, S)

    def of(self, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """(T, S): of the last layer, or of this one from 1 on; the mean of its heads, or this one. ConfigError for none such."""
        for name, number, n in (("layer", layer, self.weights.shape[0]), ("head", head, self.weights.shape[1])):
            if number is not None and not 1 <= number <= n:
                raise ConfigError(f"{name} is {number}: the decoder has {n}: use 1 to {n}")
        heads = self.weights[-1 if layer is None else layer - 1]  # (H, T, S)
        return heads.mean(0) if head is None else heads[head - 1]

    def shown(self, layer: int | None = None, head: int | None = None) -> tuple[list[str], list[str], np.ndarray]:
        """Tokens of the source and of the target in letters that print, and the weights (T, S) that `of` gives."""
        return [*map(visible, self.source)], [*map(visible, self.target)], self.of(layer, head)


@dataclass(frozen=True)
class Translator:
    """A model that writes a target to a source, and its tokenizer."""

    model: Any
    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: str | os.PathLike[str], checkpoint: str | int | None = None) -> Translator:
        """From a run of `translate`, or a folder of transformers with a tokenizer. CheckpointError for a model that reads no
        source, or has no tokenizer.
        """
        return cls.of(*load_pretrained(path, checkpoint=checkpoint), path)

    @classmethod
    def of(cls, model: Any, tokenizer: Tokenizer | None, path: str | os.PathLike[str]) -> Translator:
        """Of what was loaded from a path."""
        if model.predicts != "translations":
            raise CheckpointError(
                f"{path}: a model ({model.architecture}) that does not translate: tinygrad-llm translate makes one that does"
            )
        if tokenizer is None:
            raise CheckpointError(f"{path}: no tokenizer there: {BESIDE}")
        return cls(model, tokenizer)

    def translate(
        self, texts: Sequence[str], beams: int = 1, length_penalty: float = 0.6, max_new_tokens: int | None = None
    ) -> list[Translation]:
        """The translation of each text: the likeliest token each time, or the best text that a search with `beams` finds.

        The score of a text Y of |Y| tokens, the mark at its end counted, is log P(Y) / ((5 + |Y|) / 6)^length_penalty (Wu et al.
        2016 §7). DataError for an empty text, ContextLengthError for one that is longer than the model reads; a word that the
        tokenizer does not know gives a warning.
        """
        check_size("translate", beams=beams)
        check_number("translate: length_penalty", length_penalty)
        sources = self.encode(texts)
        for unknown in filter(None, (unknown_words(self.tokenizer, text) for text in texts)):
            warnings.warn(f"{', '.join(unknown)}: not among the words that were learned", RuntimeWarning, stacklevel=2)
        if beams == 1:
            unused = self.tokenizer.unused_ids(self.model.config.vocab_size)
            written = write_targets(self.model, sources, max_new_tokens, unused)
            scores = self._scores(sources, written, length_penalty)
            return [
                Translation(self._decode(ids), score, ids, ended)
                for (ids, ended), score in zip(written, scores, strict=True)
            ]
        found, config = [], self.model.config
        for source in sources:
            best, *_ = beam_search(
                self.model.reading(*frame([source], config)),
                [config.start_id],
                _room(config, len(source), max_new_tokens),
                beams,
                length_penalty=length_penalty,
                stop_ids=[config.end_id],
            )
            found.append(Translation(self._decode(best.ids), best.score, best.ids, best.ended))
        return found

    def align(self, text: str, translation: Translation | str | None = None) -> Alignment:
        """The weights of attention on the source when each token of a translation was written, by default of the likeliest."""
        (source,) = self.encode([text])
        if translation is None:
            ((target, _),) = write_targets(self.model, [source])
        else:
            target = translation.ids if isinstance(translation, Translation) else self.tokenizer.encode(translation)
        config, tokens = self.model.config, self.tokenizer.tokens
        _check_length("the translation", target, config.context_length)
        return Alignment(
            [tokens[i] for i in (*source, config.end_id)],
            [tokens[i] for i in (*target, config.end_id)],
            attention_weights(self.model, Row(source, target)),
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without marks. Errors as for `translate`."""
        if isinstance(texts, str):
            raise DataError(f"translate: {texts!r:.60} is one text: pass a list of texts")
        rows = []
        for i, text in enumerate(texts):
            ids = self.tokenizer.encode(text)
            if not ids or not text.strip():
                raise DataError(f"text {i + 1} is empty: there is nothing to translate")
            _check_length(f"{text!r:.60}", ids, self.model.config.context_length)
            rows.append(ids)
        return rows

    def _decode(self, ids: Sequence[int]) -> str:
        return "".join(self.tokenizer.decode_stream(ids)).strip()

    def _scores(
        self, sources: Sequence[list[int]], written: Sequence[tuple[list[int], bool]], length_penalty: float
    ) -> list[float]:
        """By a pass over all that was written: greedy writing keeps no account of the tokens that end rows."""
        rows = [Row(source, ids) for source, (ids, _) in zip(sources, written, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].source))
        scores = [0.0] * len(rows)
        with evaluating(self.model), no_grad():
            for start in range(0, len(order), _BATCH):
                chosen = order[start : start + _BATCH]
                source, mask, target, labels = collate([rows[i] for i in chosen], self.model.config)
                for place, i in enumerate(chosen):
                    if not written[i][1]:  # no mark was written at its end
                        labels[place, len(rows[i].target)] = _IGNORED
                losses = cross_entropy(
                    self.model(source, target, mask), targets=labels, reduction="none"
                ).data  # (B, T)
                for i, loss, n in zip(
                    chosen, losses.sum(1).tolist(), (labels != _IGNORED).sum(1).tolist(), strict=True
                ):
                    scores[i] = -loss / ((5 + n) / 6) ** length_penalty
        return scores


def attention_weights(model: Any, row: Row) -> np.ndarray:
    """(layers, H, T, S): those of a pair, by which each token of the target, its end included, is foretold from the source."""
    source, mask, target, _ = collate([row], model.config)
    with evaluating(model), no_grad():
        _, cache = model.run_with_cache(source, target, mask, names="*.cross_att.weights")
    return np.concatenate(list(cache.values()))


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text that a tokenizer of words reads as unknown, each once."""
    unknown = tokenizer.special.get(getattr(tokenizer, "unknown", None) or "")
    if unknown is None or unknown not in tokenizer.encode(text):
        return []
    return list(dict.fromkeys(word for word in text.split() if unknown in tokenizer.encode(" " + word)))


def _check_length(name: str, ids: Sequence[int], context_length: int) -> None:
    if len(ids) + 1 > context_length:
        raise ContextLengthError(
            f"{name} has {len(ids) + 1} tokens with the mark at its end, the positions are {context_length}: "
            "translate it in parts"
        )
