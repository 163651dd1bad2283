"""How good translations are, and what any model has to beat: three translators that know nothing of grammar.

scores = translation_scores([pair.targets for pair in test], found)
print("\\n".join(scores.lines()))
for name, found in translation_baselines(train, [pair.source for pair in test]).items():
    ...

most_frequent  the target that is most frequent in training, whatever the source
copy           the source itself: what names, numbers and equal words are worth
word_by_word   each word of the source by its likeliest translation, in the order of the source
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..text.pairs import Pair
from .answers import wilson_interval

NO_SACREBLEU = "BLEU: sacrebleu is not installed: pip install sacrebleu, or the extra [translate]"

_SHOWN = 14  # characters of the name of a kind
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_ROUNDS = 10  # of expectation and maximization


@dataclass(frozen=True)
class TranslationScores:
    """`exact_match` is a fraction of 1, `bleu` goes from 0 to 100 as everywhere.

    exact_match     the share that is one of the right translations, white space at the ends aside
    interval        95 % interval of that share (Wilson 1927)
    bleu            of all sentences together (Papineni et al. 2002), by sacrebleu; None without it
    signature       how sacrebleu counted: two values can be compared if their signatures are the same (Post 2018)
    """

    n: int
    exact_match: float
    interval: tuple[float, float]
    bleu: float | None = None
    signature: str | None = None
    by_kind: dict[str, TranslationScores] = field(default_factory=dict)  # in the order in which kinds come first

    def lines(self) -> list[str]:
        """A table with a row a kind, and under it BLEU's signature, or how to get it; for a terminal."""
        lines = [f"{'':{_SHOWN}}      n  exact  95 % interval   BLEU"]
        for name, scores in [("all", self), *self.by_kind.items()]:
            low, high = scores.interval
            bleu = "-" if scores.bleu is None else f"{scores.bleu:.1f}"
            lines.append(
                f"{name[:_SHOWN]:{_SHOWN}} {scores.n:6}  {scores.exact_match:5.3f}    {low:.3f}-{high:.3f}  {bleu:>5}"
            )
        lines.append(NO_SACREBLEU if self.signature is None else f"BLEU {self.signature}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the scores of a kind stand under its name in "by_kind"."""
        values = {name: getattr(self, name) for name in ("n", "exact_match", "bleu", "signature")}
        values["interval"] = list(self.interval)
        return values | {"by_kind": {kind: scores.to_dict() for kind, scores in self.by_kind.items()}}


def translation_scores(
    right: Sequence[Sequence[str]], found: Sequence[str], kinds: Sequence[str] | None = None
) -> TranslationScores:
    """Scores of the translations `found` beside those that are `right`, one or more of each; `kinds` to have them for each too.

    DataError for no sentences, unequal numbers, a sentence without a right translation, and translations that are no str.
    """
    n = len(right)
    if n == 0:
        raise DataError("translation_scores: there are no sentences")
    for name, given in {"found": found, "kinds": kinds}.items():
        if given is not None and len(given) != n:
            raise DataError(f"translation_scores: {n} sentences have translations, {name} has {len(given)}")
    for i, (targets, one) in enumerate(zip(right, found, strict=True)):
        if isinstance(targets, str) or not targets:
            raise DataError(f"translation_scores: right[{i}] is {targets!r:.80}: it must be a list of translations")
        for text in (*targets, one):
            if not isinstance(text, str):
                raise DataError(f"translation_scores: of sentence {i}, {text!r:.80} is a {type(text).__name__}, no str")
    places: dict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate([] if kinds is None else kinds):
        places[kind].append(i)
    by_kind = {kind: _together(right, found, at, {}) for kind, at in places.items()}
    return _together(right, found, range(n), by_kind)


def _together(
    right: Sequence[Sequence[str]], found: Sequence[str], at: Sequence[int], by_kind: dict[str, TranslationScores]
) -> TranslationScores:
    exact = sum(found[i].strip() in {one.strip() for one in right[i]} for i in at)
    score, signature = bleu([right[i] for i in at], [found[i] for i in at])
    return TranslationScores(len(at), exact / len(at), wilson_interval(exact, len(at)), score, signature, by_kind)


def bleu(right: Sequence[Sequence[str]], found: Sequence[str]) -> tuple[float, str] | tuple[None, None]:
    """BLEU of all sentences together, 0 to 100, and its signature; None for both without sacrebleu."""
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        return None, None
    metric = BLEU(force=True)  # which means: no warning about periods that stand alone
    most = max(map(len, right))
    streams: list[list[Any]] = [[targets[k] if k < len(targets) else None for targets in right] for k in range(most)]
    return float(metric.corpus_score(list(found), streams).score), str(metric.get_signature())


def translation_baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """What each of the three makes of `sources`: most_frequent, copy, word_by_word. DataError without pairs to train on."""
    if not train:
        raise DataError("translation_baselines: there are no pairs to train on")
    frequent = Counter(pair.target for pair in train).most_common(1)[0][0]
    table = word_table(train)
    return {
        "most_frequent": [frequent] * len(sources),
        "copy": list(sources),
        "word_by_word": [translate_words(source, table) for source in sources],
    }


def word_table(pairs: Sequence[Pair]) -> dict[str, str]:
    """For each word or mark of the sources the likeliest one of the targets, by IBM's model 1 (Brown et al. 1993).

    Each target word is from one word of its source; t(f|e), how likely e becomes f, is found by expectation and maximization from
    the counts of which words stand in pairs together. There is no empty word. Capitals of a source do not count, nor does that
    of a target's first word.
    """
    ids: tuple[dict[str, int], dict[str, int]] = {}, {}
    e_of, f_of, token_of = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    n_tokens = 0
    for pair in pairs:
        sides = [word.lower() for word in _TOKEN.findall(pair.source)], _TOKEN.findall(_uncapitalized(pair.target))
        e, f = (
            np.array([of.setdefault(word, len(of)) for word in words], np.int64)
            for of, words in zip(ids, sides, strict=True)
        )
        e_of.append(np.tile(e, len(f)))  # (F E,)
        f_of.append(np.repeat(f, len(e)))  # (F E,)
        token_of.append(np.repeat(np.arange(n_tokens, n_tokens + len(f)), len(e)))  # (F E,)
        n_tokens += len(f)
    (n_e, n_f), token = map(len, ids), np.concatenate(token_of)
    together, link = np.unique(np.concatenate(e_of) * max(1, n_f) + np.concatenate(f_of), return_inverse=True)
    e, f = np.divmod(together, max(1, n_f))  # (P,) each: pairs of words that stand together
    t = np.ones(len(together))
    for _ in range(_ROUNDS):
        likely = t[link]
        counts = np.bincount(link, likely / np.bincount(token, likely, n_tokens)[token], len(t))  # (P,)
        t = counts / np.bincount(e, counts, n_e)[e]
    order = np.lexsort((f, -t, e))  # by source word, then the likeliest, then the one that came first
    _, first = np.unique(e[order], return_index=True)
    e_words, f_words = ([*of] for of in ids)
    return {e_words[e[i]]: f_words[f[i]] for i in order[first].tolist()}


def translate_words(source: str, table: dict[str, str]) -> str:
    """Word by word; what is not in the table stays, and the first letter is a capital if the source's is."""
    text = " ".join(table.get(word.lower(), word) for word in _TOKEN.findall(source))
    text = re.sub(r" ([.,;:!?])", r"\1", text)
    return text[:1].upper() + text[1:] if source[:1].isupper() else text


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]
