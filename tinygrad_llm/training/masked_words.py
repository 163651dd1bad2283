"""Masked words (Devlin et al. 2018, §3.1): guess words that were hidden, and, with `next_sentence`, whether the second part of a
text is what follows the first.

run = pretrain(preset="tales-bert")                            # tales told for the run, into runs/tales-bert
run = pretrain("a.txt", architecture="bert", emb_dim=64)       # your own file, into runs/a
run.scores.word_accuracy, run.baselines["unigram"].word_accuracy

Letters in shape comments: b rows of a shard, B batch, T tokens, C features, V vocabulary, M hidden words.
"""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Tensor, no_grad
from ..errors import ConfigError
from ..evaluation.masked import MaskedScores, counting_baselines, masked_scores
from ..nn.module import evaluating
from ..ops import cross_entropy, softmax
from ..rng import Generator, get_generator
from ..runs.curve import judge_plateau, judge_validation
from ..text import Tokenizer
from ..text.corpus import Corpus
from ..text.masked import SHARE, Pair, SplitDocuments, frame_rows, hide_words, sentence_ends
from ..text.wordpiece import WordPieceTokenizer
from .pretrain_options import PretrainOptions
from .result import Continued
from .step import Batch, Objective
from .task import Finished, Task, some_of

_POOL = 8  # batches among which texts of like length go together
_SHOWN = 60  # tokens of a sample


def masked_loss(
    model: Any,
    ids: np.ndarray,
    segments: np.ndarray,
    lengths: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray | None = None,
    label_weights: np.ndarray | None = None,
) -> Tensor:
    """The sum of the losses of a shard, each by its weight; of words only where one was hidden (targets other than -100)."""
    at = np.nonzero(targets != -100)  # (M,) rows and (M,) places
    logits, scores = model(ids, segments, np.arange(ids.shape[1]) < lengths[:, None], at=at)  # (M, V), (b, 2)
    loss = (cross_entropy(logits, targets=targets[at], reduction="none") * weights[at[0]]).sum()
    if labels is None:
        return loss
    return loss + (cross_entropy(scores, targets=labels, reduction="none") * label_weights).sum()


# The weights in a batch make two means of the losses: over the hidden words of all its rows, and over its rows.
OBJECTIVE = Objective(lambda *batch: 1, masked_loss)


class MaskedWords(Task):
    """Guess hidden words; judged on texts that were kept from training, in which always the same words are hidden: 15 %,
    whatever share is hidden while it learns.
    """

    name, objective = "masked_words", OBJECTIVE

    def __init__(self, corpus: Corpus, options: PretrainOptions) -> None:
        self.corpus, self.options = corpus, options
        self.tokenizer, self.sep_id, self.mask_id = _check_tokenizer(corpus.tokenizer)
        tokenizer, self.pairs, self.ends = self.tokenizer, options.next_sentence, sentence_ends(self.tokenizer)
        self.chance = math.log(tokenizer.vocab_size) + (math.log(2) if options.next_sentence else 0.0)
        self.documents = self._documents(corpus.train_ids)
        kept, alike = (self._documents(ids) for ids in (corpus.val_ids, corpus.train_ids[corpus.alike_from :]))
        rng = Generator(options.seed)
        self.val_batches = list(self._batches(kept.epoch(rng), rng, SHARE))
        some = islice(alike.epoch(rng), options.eval_batches * options.batch_size)
        self.train_batches = list(self._batches(some, rng, SHARE))

    @classmethod
    def settle(cls, options: PretrainOptions, corpus: Corpus) -> PretrainOptions:
        """What the text decides of the options: nothing."""
        return options

    @classmethod
    def measure(cls, model: Any, options: PretrainOptions, ids: Sequence[int], tokenizer: Tokenizer) -> float:
        """The loss of hidden words of a text, always of the same ones."""
        text = Corpus([], [], tokenizer, list(ids), list(ids))
        return masked_scores(model, cls(text, replace(options, next_sentence=False)).val_batches).word_loss

    def _documents(self, ids: Sequence[int]) -> SplitDocuments:
        marks = 3 if self.pairs else 2  # [CLS] and [SEP], and one more
        longest = self.options.context_length - marks
        return SplitDocuments(ids, self.sep_id, longest, self.ends, self.pairs, self.options.windows == "shuffled")

    def __len__(self) -> int:
        return math.ceil(len(self.documents) / self.options.batch_size)

    def epoch(self, model: Any) -> Iterator[Batch]:
        rng = Generator(
            get_generator().random64()
        )  # of its own: dropout draws between the batches, but not when they are skipped
        return self._batches(self.documents.epoch(rng), rng, self.options.mask_share)

    def _batches(self, pairs: Iterator[Pair], rng: Generator, share: float) -> Iterator[Batch]:
        """Of texts as they come, among some of which those of like length go together."""
        size = self.options.batch_size
        while pool := list(islice(pairs, _POOL * size)):
            pool.sort(key=_n_tokens)
            batches = [pool[i : i + size] for i in range(0, len(pool), size)]
            for i in rng.randperm(len(batches)).tolist():
                yield self._batch(batches[i], rng, share)

    def _batch(self, pairs: Sequence[Pair], rng: Generator, share: float) -> Batch:
        rows = frame_rows(self.tokenizer, [(pair.first, pair.second) for pair in pairs])
        shown, hidden = hide_words(rows, self.mask_id, self.tokenizer.vocab_size, share, rng=rng)
        targets, b = np.where(hidden, rows.ids, -100), len(pairs)  # (B, T)
        weights = np.full(b, 1 / max(1, hidden.sum()), np.float32)
        batch = (shown, rows.segments, rows.lengths, targets, weights)
        if not self.pairs:
            return batch
        labels = np.array([0 if pair.follows else 1 for pair in pairs])  # (B,)
        return (*batch, labels, np.full(b, 1 / b, np.float32))

    def evaluate(self, model: Any, final: bool) -> dict[str, float]:
        """The losses of hidden words on some batches of each text, in the end on all of validation; and shares that are right."""
        n = self.options.eval_batches
        train = masked_scores(model, self.train_batches)
        val = masked_scores(model, self.val_batches if final else some_of(self.val_batches, n))
        row = {
            "train_loss": train.word_loss,
            "val_loss": val.word_loss,
            "train_word_accuracy": train.word_accuracy,
            "val_word_accuracy": val.word_accuracy,
        }
        if val.next_loss is None or val.next_accuracy is None:
            return row
        return row | {"val_next_loss": val.next_loss, "val_next_accuracy": val.next_accuracy}

    def headline(self, row: Mapping[str, float]) -> dict[str, float]:
        shown = {"words right": "val_word_accuracy", "next sentences right": "val_next_accuracy"}
        return {name: row[key] for name, key in shown.items() if key in row}

    def about(self) -> dict[str, Any]:
        data, options = self.corpus.fingerprint(), self.options
        how = [options.batch_size, options.windows, options.mask_share, options.next_sentence]
        return {"data": data, "batches": [data["ids"], *how]}

    def introduce(self) -> list[str]:
        corpus, options, n_texts = self.corpus, self.options, len(self.documents)
        two = " in two parts, of which half the second ones are of another document" if self.pairs else ""
        return [
            f"Text: {sum(map(len, corpus.train_texts)):,} characters to learn from, {sum(map(len, corpus.val_texts)):,} "
            f"kept for validation; {self.tokenizer.name} tokens: {len(corpus.train_ids):,} and {len(corpus.val_ids):,}, "
            f"{self.tokenizer.vocab_size:,} different ones.",
            f"{n_texts:,} texts of up to {options.context_length} tokens{two}; {options.mask_share:.0%} of the words are hidden, "
            "others in each epoch.",
            *corpus.introduce_marks(),
        ]

    def sample(self, model: Any, step: int, final: bool) -> str:
        """The beginning of a text of validation, with the model's word beside each that is hidden."""
        ids, segments, lengths, targets, *_ = self.val_batches[step % len(self.val_batches)]
        n = int(lengths[0])
        row = slice(0, 1), slice(0, n)
        with evaluating(model), no_grad():
            p = softmax(model.words(model.features(ids[row], segments[row])), axis=-1).data[0]  # (n, V)
        return show_guesses(self.tokenizer, ids[0, :n], targets[0, :n], p)

    def guesses(self) -> dict[str, float]:
        found = self._baselines()
        named = {"word counts": "unigram", "counts of neighbours": "neighbours"}
        chance = {"chance": math.log(self.tokenizer.vocab_size)}
        return chance | {f"{words}, on validation": found[name].word_loss for words, name in named.items()}

    def _baselines(self) -> dict[str, MaskedScores]:
        marks = list(self.tokenizer.special.values())
        return counting_baselines(self.corpus.train_ids, self.val_batches, self.tokenizer.vocab_size, marks)

    def conclude(self, finished: Finished) -> MaskedResult:
        last, best = finished.metrics[-1], min(finished.metrics, key=lambda row: row["val_loss"])
        scores = MaskedScores(
            last["val_loss"], last["val_word_accuracy"], last.get("val_next_loss"), last.get("val_next_accuracy")
        )
        return MaskedResult(
            folder=finished.folder,
            model=finished.model,
            tokenizer=self.tokenizer,
            metrics=finished.metrics,
            train_loss=last["train_loss"],
            val_loss=last["val_loss"],
            best_val_loss=best["val_loss"],
            best_step=int(best["step"]),
            scores=scores,
            baselines=self._baselines(),
            sample=finished.sample,
            seconds=finished.seconds,
            tokens_per_second=finished.tokens_per_second,
        )


def _n_tokens(pair: Pair) -> int:
    return len(pair.first) + (0 if pair.second is None else len(pair.second))


def _check_tokenizer(tokenizer: Tokenizer) -> tuple[WordPieceTokenizer, int, int]:
    """With the ids of [SEP] and [MASK]. ConfigError for a tokenizer without the marks that frame a text and hide a word."""
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise ConfigError(
            f"tokenizer is {tokenizer.name!r}: words are hidden by a [MASK], which wordpiece has: leave it out"
        )
    sep_id, mask_id = tokenizer.sep_id, tokenizer.mask_id
    if tokenizer.cls_id is None or sep_id is None or mask_id is None:
        raise ConfigError(
            f"this tokenizer of {tokenizer.vocab_size:,} pieces has not all of [CLS], [SEP] and [MASK]: use another"
        )
    return tokenizer, sep_id, mask_id


def show_guesses(tokenizer: WordPieceTokenizer, ids: np.ndarray, targets: np.ndarray, p: np.ndarray) -> str:
    """A text of ids (T,) in which each hidden word is followed by the likeliest one of p (T, V): `the [lamp: lantern .62]`."""
    parts: list[str] = []
    shown: list[int] = []
    marks = set(tokenizer.special.values())
    for i, (each, target) in enumerate(zip(ids.tolist()[:_SHOWN], targets.tolist(), strict=False)):
        if target == -100:
            shown += [] if each in marks else [each]
            continue
        best = int(p[i].argmax())
        word, guess = tokenizer.pieces[target], tokenizer.pieces[best]
        told = f"[{word}]" if best == target else f"[{word}: {guess} {p[i, best]:.2f}]"
        parts += [tokenizer.decode(shown), told]
        shown = []
    return " ".join(part for part in [*parts, tokenizer.decode(shown)] if part)


@dataclass(frozen=True)
class MaskedResult:
    """What a run leaves besides its folder. Losses are nats per hidden word, after the last step unless named `best_`."""

    folder: Path
    model: Any
    tokenizer: Tokenizer
    metrics: list[dict[str, float]]  # the rows of metrics.jsonl
    train_loss: float
    val_loss: float
    best_val_loss: float
    best_step: int
    scores: MaskedScores  # on validation
    baselines: dict[str, MaskedScores]  # of who only counts, on the same hidden words
    sample: str
    seconds: float
    tokens_per_second: float
    continued: Continued | None = None  # for a run that began from the weights of others

    def summary(self) -> dict[str, Any]:
        """All but the model, the tokenizer and the rows, as plain data; accuracies are fractions of 1."""
        values = {name: value for name, value in vars(self).items() if name not in ("model", "tokenizer", "metrics")}
        baselines = {
            name: {"word_loss": each.word_loss, "word_accuracy": each.word_accuracy}
            for name, each in self.baselines.items()
        }
        plain = {"folder": str(self.folder), "steps": self.metrics[-1]["step"], "baselines": baselines}
        scores = asdict(self.scores)
        return values | scores | plain | {"scores": scores, "continued": self.continued and asdict(self.continued)}

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        named = {
            "which words come often": "unigram",
            "and the word to the left": "bigram",
            "and the words on both sides": "neighbours",
        }
        rows = [(words, self.baselines[name]) for words, name in named.items()] + [("the model", self.scores)]
        next_ = self.scores.next_accuracy
        return [
            "",
            *(f"  {line}" for line in textwrap.wrap(self.sample, 98)),
            "",
            f"Trained in {self.seconds:.0f} s, {self.tokens_per_second:,.0f} tokens a second.",
            f"Hidden words of validation, known:  {'nats':>8} {'right':>8}",
            *(f"  {words:32}  {each.word_loss:8.3f} {each.word_accuracy:8.1%}" for words, each in rows),
            *([] if next_ is None else [f"  does the second part follow?      {next_:17.1%}   (guessing: half)"]),
            f"Training loss {self.train_loss:.3f}; lowest validation loss {self.best_val_loss:.3f}, after step {self.best_step}.",
            *textwrap.wrap(self.verdict(), 100),
            f"In {self.folder}: {', '.join(sorted(file.name for file in self.folder.iterdir()))}",
            f"To let it guess: tinygrad-llm predict {shlex.quote(str(self.folder))} 'TEXT with a [MASK]'",
        ]

    def verdict(self) -> str:
        """How the losses relate, in words."""
        unigram = self.baselines["unigram"].word_loss
        plateau = judge_plateau(self.metrics, unigram)
        found = judge_validation(self.metrics, unigram) if plateau.verdict == "ok" else plateau
        text = f"{found.text}: {found.advice}." if found.advice else f"{found.text}."
        return text[0].upper() + text[1:]
