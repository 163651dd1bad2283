"""Words hidden as BERT's are, and texts in two parts: counted over many draws, and against plain loops."""

from collections import Counter

import numpy as np
import pytest

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.text import WordPieceTokenizer
from tinygrad_llm.text.masked import SplitDocuments, frame_rows, hide_words, sentence_ends
from tinygrad_llm.text.wordpiece import MARKS

TOKENIZER = WordPieceTokenizer([*MARKS, *(f"w{i}" for i in range(95))])  # ids 5 to 99 are words
V, MASK = TOKENIZER.vocab_size, TOKENIZER.mask_id


def rows_of(*lengths):
    return frame_rows(TOKENIZER, [([5 + i % 95 for i in range(n)], None) for n in lengths])


# ---- hidden words


def test_rows_are_framed_and_filled_up():
    rows = frame_rows(TOKENIZER, [([7, 8], [9]), ([1, 6], None)])
    cls, sep, pad = TOKENIZER.cls_id, TOKENIZER.sep_id, TOKENIZER.pad_id
    assert rows.ids.tolist() == [[cls, 7, 8, sep, 9, sep], [cls, 1, 6, sep, pad, pad]]
    assert rows.segments.tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]
    assert rows.lengths.tolist() == [6, 4]
    assert rows.words.astype(int).tolist() == [[0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]]  # id 1 is [UNK]


@pytest.mark.parametrize("share", [0.15, 0.4, 0.01])
@pytest.mark.parametrize("most", [None, 3])
def test_as_many_are_chosen_as_googles_code_chooses(share, most):
    lengths = [1, 2, 5, 8, 21, 35, 60]
    rows = rows_of(*lengths)
    _, chosen = hide_words(rows, MASK, V, share, most, Generator(1))
    # create_masked_lm_predictions: min(max_predictions_per_seq, max(1, int(round(len(tokens) * masked_lm_prob)))), marks counted
    wanted = [min(99 if most is None else most, n, max(1, round((n + 2) * share))) for n in lengths]
    assert chosen.sum(1).tolist() == wanted
    assert not (chosen & ~rows.words).any()


def test_of_the_chosen_eight_in_ten_are_masked_one_stays_and_one_is_anything():
    rows, rng = rows_of(*[60] * 64), Generator(2)
    kinds, anything, places = Counter(), Counter(), np.zeros(62)
    for _ in range(60):
        shown, chosen = hide_words(rows, MASK, V, rng=rng)
        assert (shown[~chosen] == rows.ids[~chosen]).all()
        places += chosen.sum(0)
        masked, kept = shown[chosen] == MASK, shown[chosen] == rows.ids[chosen]
        kinds.update(masked=masked.sum(), kept=kept.sum(), other=(~masked & ~kept).sum())
        anything.update(shown[chosen][~masked & ~kept].tolist())
    n = sum(kinds.values())
    assert n == 60 * 64 * 9
    # of the tenth that may become anything, one in V becomes what it was, and another [MASK]
    expected = {"masked": 0.8 + 0.1 / V, "kept": 0.1 + 0.1 / V, "other": 0.1 - 0.2 / V}
    for kind, p in expected.items():
        assert abs(kinds[kind] / n - p) < 4 * (p * (1 - p) / n) ** 0.5, kind
    assert set(anything) == set(range(V)) - {MASK}  # the other marks among them, as in Google's code
    assert places[[0, 61]].tolist() == [0, 0]  # [CLS] and [SEP]
    assert abs(places[1:61] - n / 60).max() < 5 * (n / 60) ** 0.5  # every place as often


def test_words_are_drawn_anew_from_the_current_generator():
    rows = rows_of(40, 30)
    with use_generator(Generator(3)):
        first, second = hide_words(rows, MASK, V), hide_words(rows, MASK, V)
    again = hide_words(rows, MASK, V, rng=Generator(3))
    np.testing.assert_array_equal(first, again)
    assert (first[1] != second[1]).any()


def test_a_row_without_words_hides_none():
    _, chosen = hide_words(frame_rows(TOKENIZER, [([1, 1, 1], None), ([9], None)]), MASK, V)
    assert chosen.sum(1).tolist() == [0, 1]


# ---- two parts

END = 5


def documents(rng, n=12, longest=40):
    """Each with numbers of its own, from 1000 d on, and an END now and then."""
    found = []
    for d in range(n):
        length = int(rng.integers(2, longest))
        row = 1000 * (d + 1) + np.arange(length)
        row[rng.random(length) < 0.2] = END
        found.append(row)
    return found


def joined(rows, eot=0):
    return np.concatenate([[eot], *(np.append(row, eot) for row in rows)])


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("longest", [2, 7, 16, 100])
def test_pairs_are_cut_from_documents_and_false_ones_from_others(longest, shuffled):
    rows = documents(np.random.default_rng(longest))
    split = SplitDocuments(joined(rows), 0, longest, [END], True, shuffled)
    texts = [f" {' '.join(map(str, row))} " for row in rows]

    def owners(part):
        return {number // 1000 for number in part.tolist() if number != END}

    follows, n, rng = 0, 0, Generator(4)
    for _ in range(40):
        pairs = list(split.epoch(rng))
        assert len(pairs) == len(split)
        for first, second, true in pairs:
            n, follows = n + 1, follows + true
            assert len(first) >= 1
            assert len(second) >= 1
            assert len(first) + len(second) <= longest
            one, other = owners(first), owners(second)
            assert len(one) <= 1
            assert len(other) <= 1
            if true:
                whole = f" {' '.join(map(str, [*first, *second]))} "
                assert any(whole in text for text in texts)
            elif one and other:
                assert one != other
    assert abs(follows / n - 0.5) < 4 * 0.5 / n**0.5


def test_a_window_is_cut_behind_each_of_its_ends_alike_or_anywhere_without_one():
    rows = [np.array([1, 2, END, 3, END, 4, 5]), np.array([6, 7, 8, 9])]
    split, cuts = SplitDocuments(joined(rows), 0, 20, [END], True, False), [Counter(), Counter()]
    rng = Generator(5)
    for _ in range(600):
        for i, pair in enumerate(split.epoch(rng)):
            cuts[i][len(pair.first)] += 1
    assert set(cuts[0]) == {3, 5}
    assert set(cuts[1]) == {1, 2, 3}
    for counts in cuts:
        p = 1 / len(counts)
        assert all(abs(n / 600 - p) < 4 * (p * (1 - p) / 600) ** 0.5 for n in counts.values())


@pytest.mark.parametrize("longest", [1, 3, 8, 50])
def test_windows_are_as_many_whole_sentences_as_fit(longest):
    rows = documents(np.random.default_rng(longest))
    found = [pair.first.tolist() for pair in SplitDocuments(joined(rows), 0, longest, [END], shuffled=False).epoch()]
    expected = []
    for row in rows:
        window, sentence = [], []
        for i, token in enumerate(row.tolist()):
            sentence.append(token)
            if token == END or i == len(row) - 1:
                if len(window) + len(sentence) > longest:
                    expected.append(window)
                    window = []
                while len(sentence) > longest:
                    expected.append(sentence[:longest])
                    sentence = sentence[longest:]
                window, sentence = window + sentence, []
        expected.append(window)
    assert found == [window for window in expected if window]


def test_the_order_is_that_of_the_text_unless_shuffled():
    rows = documents(np.random.default_rng(7), 30)
    for shuffled in (False, True):
        split = SplitDocuments(joined(rows), 0, 100, shuffled=shuffled)
        firsts = [pair.first.tolist() for pair in split.epoch(Generator(8))]
        assert sorted(firsts) == sorted(row.tolist() for row in rows)
        assert (firsts == [row.tolist() for row in rows]) == (not shuffled)
        assert all(pair.second is None for pair in split.epoch(Generator(8)))


def test_a_single_document_has_no_other_beside_it():
    with pytest.raises(ConfigError, match=r"next_sentence needs a second document.*--no-next-sentence"):
        SplitDocuments(np.arange(1, 30), 0, 10, [END], True)
    with pytest.raises(DataError, match="no document"):
        SplitDocuments([0, 0, 0], 0, 10)


def test_sentences_end_with_signs():
    tokenizer = WordPieceTokenizer([*MARKS, "a", ".", "!", "##?", ",", "?"])
    assert [tokenizer.pieces[i] for i in sentence_ends(tokenizer)] == [".", "!", "##?", "?"]
