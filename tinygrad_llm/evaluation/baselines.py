"""What a classifier has to beat: four models that need no attention, in NumPy and a second or two.

    for name, scores in baselines(train, test).items():
        print(f"{name:12} {scores.accuracy:.3f}")

majority      the largest class of the training texts, whatever the text says
features      what a person would count: length, capitals, digits, links and other marks, and for each class the ten words that
              tell most of it; logistic regression on them
naive_bayes   multinomial naive Bayes on words in small letters, with Laplace's one added (Manning et al. 2008, ch. 13)
bag_of_words  logistic regression on which words occur

Which words tell most of a class is taken from the training texts, by one plain rule, so that it works for moods and languages as
for spam; a fixed list of spam words would be a person's knowledge of spam. All is of more classes than two as well. Nothing is
drawn: there is no seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy

import numpy as np

from ..errors import DataError
from ..text.labelled import Labelled
from .scores import Scores, classification_scores

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_MARKS = {
    "exclamation marks": re.compile("!"),
    "question marks": re.compile(r"\?"),
    "digits": re.compile(r"\d"),
    "long numbers": re.compile(r"\d{5,}"),
    "currency signs": re.compile(r"[$£€¥₹]"),
    "links": re.compile(r"(?:https?://|www\.)\S+|\b[\w-]+\.(?:com|net|org|co)\b", re.I),
    "words in capitals": re.compile(r"\b[A-Z]{2,}\b"),
    "capitals": re.compile(r"[A-Z]"),
}
_TELLING = 10  # words a class
_STEPS, _ENOUGH = 500, 1e-5  # of the descent: at most so many, and until the gradient's largest entry is so small


def baselines(train: Labelled, test: Labelled) -> dict[str, Scores]:
    """The scores of each on `test` after it has learned from `train`: majority, features, naive_bayes, bag_of_words.

    DataError where the classes of the two differ, or a class has no text to learn from.
    """
    if train.classes != test.classes:
        raise DataError(
            f"baselines: the classes to train on are {train.classes!r:.80}, to test on {test.classes!r:.80}"
        )
    for name, n in train.counts().items():
        if n == 0:
            raise DataError(f"baselines: no training text is {name!r:.80}: take more texts, or leave the class out")
    if not len(test):
        raise DataError("baselines: there are no texts to test on")
    frequency = np.bincount(train.labels) / len(train)  # (K,)
    vocabulary = {word: i for i, word in enumerate(sorted({word for text in train.texts for word in words_of(text)}))}
    counted = _Words(train.texts, vocabulary), _Words(test.texts, vocabulary)
    guesses = {
        "majority": np.tile(frequency, (len(test), 1)),
        "features": _by_features(train, test, counted[0], vocabulary),
        "naive_bayes": _naive_bayes(counted[0], train.labels, counted[1]),
        "bag_of_words": _bag_of_words(counted[0], train.labels, counted[1]),
    }  # (N, K) each
    return {name: classification_scores(test.labels, p, test.classes) for name, p in guesses.items()}


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, numbers among them: "Don't ask, 4U!" -> ["don't", "ask", "4u"]."""
    return _WORD.findall(text.lower())


class _Words:
    """How often each word of a vocabulary occurs in each text: an (N, V) matrix, of which only what is not 0 is kept."""

    def __init__(self, texts: Sequence[str], vocabulary: dict[str, int]) -> None:
        found = [[vocabulary[word] for word in words_of(text) if word in vocabulary] for text in texts]
        self.shape = len(texts), len(vocabulary)
        text = np.repeat(np.arange(len(texts)), [len(words) for words in found])  # (W,)
        word = np.array([i for words in found for i in words], np.int64)  # (W,)
        at, n = np.unique(text * max(1, self.shape[1]) + word, return_counts=True)
        self.text, self.word = np.divmod(at, max(1, self.shape[1]))  # (Z,) each
        self.n = n.astype(np.float64)

    def once(self) -> _Words:
        """With 1 for each word that occurs."""
        same = copy(self)
        same.n = np.ones_like(self.n)
        return same

    def by_class(self, labels: np.ndarray, n_classes: int) -> np.ndarray:
        """How often each word occurs in the texts of each class, (K, V)."""
        at = labels[self.text] * self.shape[1] + self.word
        return np.bincount(at, self.n, n_classes * self.shape[1]).reshape(n_classes, -1)

    def __matmul__(self, w: np.ndarray) -> np.ndarray:
        """(N, V) @ (V, K) -> (N, K)"""
        return np.stack([np.bincount(self.text, self.n * column[self.word], self.shape[0]) for column in w.T], 1)

    def transposed(self, g: np.ndarray) -> np.ndarray:
        """(V, N) @ (N, K) -> (V, K)"""
        return np.stack([np.bincount(self.word, self.n * column[self.text], self.shape[1]) for column in g.T], 1)


class _Dense:
    """An (N, D) matrix, to be multiplied as _Words are."""

    def __init__(self, x: np.ndarray) -> None:
        self._x, self.shape = x, x.shape

    def __matmul__(self, w: np.ndarray) -> np.ndarray:
        return self._x @ w

    def transposed(self, g: np.ndarray) -> np.ndarray:
        return self._x.T @ g


def _naive_bayes(train: _Words, labels: np.ndarray, test: _Words) -> np.ndarray:
    """p(class | text) ~ p(class) * product over its words of p(word | class); words that training has not are left out."""
    frequency = np.bincount(labels) / len(labels)  # (K,)
    counts = train.by_class(labels, len(frequency)) + 1  # (K, V)
    logits = np.log(frequency) + test @ np.log(counts / counts.sum(1, keepdims=True)).T
    return _softmax(logits)  # (N, K)


def _bag_of_words(train: _Words, labels: np.ndarray, test: _Words) -> np.ndarray:
    return _softmax(_predict(test.once(), *_fit(train.once(), labels)))


def _by_features(train: Labelled, test: Labelled, counted: _Words, vocabulary: dict[str, int]) -> np.ndarray:
    telling = _telling_words(counted, train.labels, len(train.classes), [*vocabulary])
    x, x_test = (np.array([_features(text, telling) for text in part.texts]) for part in (train, test))
    mean, spread = x.mean(0), x.std(0)
    spread[spread == 0] = 1
    return _softmax(_predict(_Dense((x_test - mean) / spread), *_fit(_Dense((x - mean) / spread), train.labels)))


def _telling_words(counted: _Words, labels: np.ndarray, n_classes: int, words: list[str]) -> list[set[str]]:
    """For each class the words by which its texts can be told best.

    By how many more of its texts than of the others have the word, as a share of either: 1 for a word that is in all of them
    and in no other.
    """
    size = np.bincount(labels, minlength=n_classes)  # (K,)
    texts = np.bincount(labels[counted.text] * len(words) + counted.word, minlength=n_classes * len(words))
    texts = texts.reshape(n_classes, -1)  # (K, V): how many texts of the class have the word
    others = (texts.sum(0) - texts) / np.maximum(1, size.sum() - size)[:, None]
    tells = texts / size[:, None] - others  # (K, V)
    best = np.argsort(-tells, axis=1, kind="stable")[:, :_TELLING]
    return [{words[i] for i in row} for row in best.tolist()]


def _features(text: str, telling: list[set[str]]) -> list[float]:
    """Numbers that a person would think of; counts as ln(1 + n), since the tenth says less than the first."""
    words = words_of(text)
    counts = [len(text), len(words), *(len(mark.findall(text)) for mark in _MARKS.values())]
    counts += [sum(word in some for word in words) for some in telling]
    return np.log1p(counts).tolist()


def _predict(x: _Words | _Dense, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return x @ w + b


def _fit(x: _Words | _Dense, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, K) and biases (K,) of logistic regression: the mean of -ln p(label) + |w|^2 / (2 N) is least.

    By Nesterov's accelerated descent, with steps of 1 / L, L the most that the gradient can change (Böhning 1992), begun anew
    whenever it has gone past the goal (O'Donoghue and Candès 2015).
    """
    n, n_features = x.shape
    n_classes = int(labels.max()) + 1
    target = np.eye(n_classes)[labels]  # (N, K)
    w = np.zeros((n_features + 1, n_classes))  # the last row is the biases
    penalty = np.full((n_features + 1, 1), 1 / n)
    penalty[-1] = 0
    step = 1 / (0.5 * _largest_eigenvalue(x) / n + 1 / n)
    ahead, momentum = w, 1.0
    for _ in range(_STEPS):
        g = (_softmax(_predict(x, ahead[:-1], ahead[-1])) - target) / n  # (N, K)
        slope = np.vstack([x.transposed(g), g.sum(0)]) + penalty * ahead  # (D + 1, K)
        if np.abs(slope).max() < _ENOUGH:
            break
        new = ahead - step * slope
        if (slope * (new - w)).sum() > 0:
            momentum = 1.0
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / faster * (new - w)
        w, momentum = new, faster
    return w[:-1], w[-1]


def _largest_eigenvalue(x: _Words | _Dense) -> float:
    """Of [x 1]^T [x 1], by the power method, a little above it."""
    v = np.ones((x.shape[1] + 1, 1))
    size = 1.0
    for _ in range(30):
        v /= np.linalg.norm(v)
        y = x @ v[:-1] + v[-1]  # (N, 1)
        v = np.vstack([x.transposed(y), y.sum(0)])
        size = float(np.linalg.norm(v))
    return 1.1 * size


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)
