"""What a classifier has to beat: beside the definitions one text at a time, and SciPy's minimum of the same loss."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy.optimize

from tinygrad_llm.errors import DataError
from tinygrad_llm.evaluation.baselines import (
    _bag_of_words,
    _features,
    _fit,
    _naive_bayes,
    _telling_words,
    _Words,
    baselines,
    words_of,
)
from tinygrad_llm.text import Labelled


def made(seed, n, classes=("fair", "rain", "snow")):
    """Texts whose words tell their class, most of the time."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(
        len(classes), n, p=np.array([0.5, 0.3, 0.2])[: len(classes)] / sum([0.5, 0.3, 0.2][: len(classes)])
    )
    own = [["sun", "warm", "Hat!"], ["wet", "boots", "5"], ["cold", "WHITE", "sledge?"]]
    texts = []
    for k in labels:
        words = rng.choice(["the", "a", "on", "day", "it's"], rng.integers(1, 9)).tolist()
        words += rng.choice(own[k] if rng.random() < 0.8 else own[rng.integers(3)], rng.integers(1, 4)).tolist()
        texts.append(" ".join(words))
    return Labelled(texts, labels, classes)


TRAIN, TEST = made(1, 300), made(2, 100)


def counted(train, test):
    vocabulary = {word: i for i, word in enumerate(sorted({word for text in train.texts for word in words_of(text)}))}
    return _Words(train.texts, vocabulary), _Words(test.texts, vocabulary), vocabulary


def dense(words):
    x = np.zeros(words.shape)
    x[words.text, words.word] = words.n
    return x


def test_all_four_with_their_order():
    found = baselines(TRAIN, TEST)
    assert [*found] == ["majority", "features", "naive_bayes", "bag_of_words"]
    assert found["majority"].accuracy == TEST.counts()["fair"] / 100
    assert found["majority"].calibration_error < 0.1  # the likeliest class, as likely as it is
    assert all(found[name].accuracy > 0.75 for name in ("features", "naive_bayes", "bag_of_words"))
    again = baselines(TRAIN, TEST)
    assert again == found


def test_words():
    assert words_of("Don't ask, 4U! it’s 'quoted' Ähm_x") == ["don't", "ask", "4u", "it’s", "quoted", "ähm_x"]


def test_counts_of_words():
    words, _, vocabulary = counted(TRAIN, TEST)
    x = dense(words)
    for i, text in enumerate(TRAIN.texts[:20]):
        assert {word: x[i, j] for word, j in vocabulary.items() if x[i, j]} == Counter(words_of(text))
    w, g = np.random.default_rng(0).normal(size=(2, max(x.shape), 3))
    np.testing.assert_allclose(words @ w[: x.shape[1]], x @ w[: x.shape[1]], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(words.transposed(g[: x.shape[0]]), x.T @ g[: x.shape[0]], rtol=1e-12, atol=1e-12)


def test_naive_bayes_one_text_at_a_time():
    train = Labelled(["a a b", "b c", "c c", "a d"], np.array([0, 0, 1, 1]), ("x", "y"))
    test = Labelled(["a b b new", "", "c d"], np.array([0, 0, 1]), ("x", "y"))
    one, other, _ = counted(train, test)
    p = _naive_bayes(one, train.labels, other)
    for i, text in enumerate(test.texts):
        joint = []
        for k in (0, 1):
            words = [
                word for t, label in zip(train.texts, train.labels, strict=True) if label == k for word in t.split()
            ]
            likelihood = math.prod((words.count(w) + 1) / (len(words) + 4) for w in text.split() if w != "new")
            joint.append(0.5 * likelihood)
        np.testing.assert_allclose(p[i], np.array(joint) / sum(joint), rtol=1e-12)


@pytest.mark.parametrize("classes", [("fair", "rain"), ("fair", "rain", "snow")])
def test_logistic_regression_reaches_the_minimum(classes):
    train = made(3, 200, classes)
    words, _, _ = counted(train, train)
    words = words.once()
    x, n_classes = dense(words), len(classes)

    def loss(flat):
        w = flat.reshape(-1, n_classes)
        logits = x @ w[:-1] + w[-1]
        nll = scipy.special.logsumexp(logits, 1) - logits[np.arange(len(x)), train.labels]
        return nll.mean() + (w[:-1] ** 2).sum() / (2 * len(x))

    w, b = _fit(words, train.labels)
    best = scipy.optimize.minimize(loss, np.zeros((x.shape[1] + 1) * n_classes), tol=1e-9)
    assert loss(np.vstack([w, b]).ravel()) == pytest.approx(best.fun, rel=1e-6)


def test_a_bag_of_words_counts_no_word_twice():
    one, other, vocabulary = counted(TRAIN, TEST)
    doubled = Labelled([f"{text} {text}" for text in TEST.texts], TEST.labels, TEST.classes)
    p = _bag_of_words(one, TRAIN.labels, other)
    np.testing.assert_array_equal(p, _bag_of_words(one, TRAIN.labels, _Words(doubled.texts, vocabulary)))


def test_telling_words_are_those_of_the_training_texts():
    words, _, vocabulary = counted(TRAIN, TEST)
    telling = _telling_words(words, TRAIN.labels, 3, [*vocabulary])
    for k, some in enumerate(telling):
        share = {}
        for word in vocabulary:
            having = [word in words_of(text) for text in TRAIN.texts]
            own = [has for has, label in zip(having, TRAIN.labels, strict=True) if label == k]
            others = [has for has, label in zip(having, TRAIN.labels, strict=True) if label != k]
            share[word] = np.mean(own) - np.mean(others)
        assert len(some) == 10
        assert min(share[word] for word in some) >= max(share[word] for word in vocabulary if word not in some) - 1e-12
    assert "sun" in telling[0]


def test_features_are_what_a_person_counts():
    text = "WIN £100 now!! Call 0800123456 or www.win.com, ok?"
    found = np.expm1(_features(text, [{"call", "now"}, {"sorry"}])).round().tolist()
    names = [
        "length",
        "words",
        "!",
        "?",
        "digits",
        "long",
        "currency",
        "links",
        "capital_words",
        "capitals",
        "first",
        "second",
    ]
    wanted = [len(text), 10, 2, 1, 13, 1, 1, 1, 1, 4, 2, 0]
    got = dict(zip(names, found, strict=True))
    wanted = dict(zip(names, wanted, strict=True))
    assert got == wanted


def test_what_training_never_saw():
    odd = Labelled(["", "entirely unheard-of", "日本"], np.array([0, 1, 2]), TRAIN.classes)
    assert all(math.isfinite(scores.accuracy) for scores in baselines(TRAIN, odd).values())
    wordless = Labelled(["!", "?"], np.array([0, 1]), ("x", "y"))
    assert baselines(wordless, wordless)["features"].accuracy == 1


def test_what_does_not_fit():
    with pytest.raises(DataError, match="the classes to train on are"):
        baselines(TRAIN, made(1, 9, ("fair", "rain")))
    with pytest.raises(DataError, match="no training text is 'snow'"):
        baselines(Labelled(["a", "b"], np.array([0, 1]), TRAIN.classes), TEST)
    with pytest.raises(DataError, match="no texts to test on"):
        baselines(TRAIN, TEST.select([]))
