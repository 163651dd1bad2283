"""Preferences: every form of file that people have, what is left out and counted, every fault with its record and field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.tuning.preferences import _common_words, read_preferences, read_prompts

ASK = {"role": "user", "content": "Two and two?"}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def read(tmp_path):
    """A function that reads the records it is given."""

    def read(*records, reader=read_preferences):
        (tmp_path / "a").write_text("".join(json.dumps(record) + "\n" for record in records))
        return reader(tmp_path / "a")

    return read


def only(preferences):
    (row,) = preferences.rows
    return row


# ---- the forms of files


FOUR = {"prompt": "Two and two?", "chosen": "Four.", "rejected": " Five."}


def test_pairs(read):
    found = read(FOUR, FOUR | {"margin": 2})
    assert [row.prompt for row in found.rows] == [[ASK], [ASK]]
    assert found.rows[0].answers == ["Four.", " Five."]
    assert found.rows[0].pairs == [(0, 1)]
    assert [row.margins for row in found.rows] == [[0.0], [2.0]]
    assert found.where == ["row 1", "row 2"]
    assert len(found) == 2
    assert found.said == [
        "JSON lines",
        "encoding utf-8",
        "pairs: prompt, chosen, rejected, margin",
        "2 prompts, 2 pairs of a better and a worse answer",
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [ASK], "chosen": [said("Four.")], "rejected": [said("Five.")]},
        {"prompt": [ASK], "chosen": "Four.", "rejected": "Five."},
        {"prompt": "Two and two?", "chosen": [said("Four.")], "rejected": [said("Five.")]},
        # as UltraFeedback has them: the conversations hold the prompt once more
        {"prompt": "Two and two?", "chosen": [ASK, said("Four.")], "rejected": [ASK, said("Five.")]},
        {"chosen": [ASK, said("Four.")], "rejected": [ASK, said("Five.")]},
        {"chosen": "\n\nHuman: Two and two?\n\nAssistant: Four.", "rejected": "\n\nHuman: Two and two?\n\nAssistant: Five."},
        {"prompt": "\n\nHuman: Two and two?\n\nAssistant:", "chosen": " Four.", "rejected": " Five."},
        {"instruction": "Two and two?", "input": "", "output": "4", "chosen": "Four.", "rejected": "Five."},
        {"instruction": "Two and two?", "chosen": "Four.", "rejected": "Five."},
        {"prompt": "Two and two?", "responses": ["Four.", "Five."], "ranking": [1, 2]},
        {"prompt": [ASK], "responses": [[said("Four.")], "Five."], "ranking": [1, 2], "margin": None},
    ],
)  # fmt: skip
def test_one_pair_in_every_form(read, record):
    row = only(read(record))
    assert row.prompt == [ASK]
    assert row.answers == ["Four.", "Five."]
    assert row.pairs == [(0, 1)]
    assert row.margins == [0.0]


def test_an_array_in_another_encoding(tmp_path):
    records = [FOUR | {"chosen": "Vier – „4“."}]
    (tmp_path / "a.json").write_text(json.dumps(records, ensure_ascii=False), "cp1252")
    for encoding in (None, "cp1252"):
        found = read_preferences(tmp_path / "a.json", encoding=encoding)
        assert only(found).answers[0] == "Vier – „4“."
        assert found.said[0] == "a JSON array"
        assert "cp1252" in found.said[1]
        assert found.where == ["item 1"]


def test_the_book_s_file(read):
    record = {
        "instruction": "Correct it.",
        "input": "He go.",
        "output": "He goes.",
        "chosen": "He goes.",
        "rejected": "No.",
    }
    found = read(record)
    assert only(found).prompt == [{"role": "user", "content": "Correct it.", "input": "He go."}]
    assert "instructions with pairs: instruction, input, chosen, rejected" in found.said
    assert "keys that are not used: 'output'" in found.said


def test_conversations_of_several_turns(read):
    before = [{"role": "system", "content": "Be brief."}, ASK, said("Four."), {"role": "user", "content": "And three?"}]
    row = only(read({"chosen": [*before, said("Seven.")], "rejected": [*before, said("No.") | {"name": "x"}]}))
    assert row.prompt == before
    assert row.answers == ["Seven.", "No."]
    row = only(read({"prompt": before, "chosen": [said("Seven.")], "rejected": [said("No.")]}))
    assert row.prompt == before


def test_dialogues_of_hh_rlhf(read):
    begin = "\n\nHuman: Hello\n\nthere, Human: or not?\n\nAssistant: Hi.\n\nHuman: One.\n\nHuman: Two.\n\nAssistant:"
    row = only(read({"chosen": f"{begin} Yes.\n\nSo be it.", "rejected": f"{begin} No."}))
    assert row.prompt == [
        {"role": "user", "content": "Hello\n\nthere, Human: or not?"},
        said("Hi."),
        {"role": "user", "content": "One.\n\nTwo."},
    ]
    assert row.answers == ["Yes.\n\nSo be it.", "No."]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is black.", "The sky is"),  # not "The sky is bl"
        ("The sky\n\nis", "The sky\n\nwas", "The sky"),
        ("The sky is", "The skylark", "The"),
        ("One", "Two", ""),
    ],
)
def test_texts_with_the_prompt_in_both(read, chosen, rejected, prompt):
    row = only(read({"chosen": chosen, "rejected": rejected}))
    assert row.prompt == [{"role": "user", "content": prompt}]
    assert [prompt + answer for answer in row.answers] == [chosen, rejected]


@given(st.text("ab \n", max_size=12), st.text("ab \n", max_size=12))
def test_a_common_beginning_ends_where_a_word_does(a, b):
    begin = _common_words(a, b)
    assert begin == begin.rstrip()
    if a == b:
        assert begin == ""
        return
    assert a.startswith(begin)
    assert b.startswith(begin)
    borders = [
        n for n in range(min(len(a), len(b)) + 1) if a[:n] == b[:n] and not (a[n : n + 1] + b[n : n + 1]).strip()
    ]
    assert begin == (a[: max(borders)].rstrip() if borders else "")


def test_rankings(read):
    row = only(
        read({"prompt": "Two and two?", "responses": ["a", "b", "c", "d"], "ranking": [2, 1, 2, 3], "margin": 0.5})
    )
    assert row.answers == ["a", "b", "c", "d"]
    assert row.pairs == [(1, 0), (0, 3), (1, 2), (1, 3), (2, 3)]  # a and c tie
    assert row.margins == [0.5] * 5
    found = read({"prompt": "x", "responses": ["a", "b", "c"], "ranking": [3, 1, 2], "margin": [1, 2, 3]})
    assert only(found).pairs == [(1, 0), (2, 0), (1, 2)]
    assert only(found).margins == [1.0, 2.0, 3.0]
    assert found.said[-1] == "1 prompts, 3 pairs of a better and a worse answer, up to 3 answers to a prompt"


def test_a_judgement_that_was_asked_for_again_counts_once(read):
    row = {"prompt": "x", "responses": ["a", "b"], "ranking": [1, 2]}
    found = read(row, row | {"prompt": "y", "repeat": False}, row | {"ranking": [2, 1], "repeat": True})
    assert [one.pairs for one in found.rows] == [[(0, 1)], [(0, 1)]]
    assert any("1 of 3 were judged before and are left out" in line for line in found.said)


@given(st.integers(2, 6).flatmap(lambda k: st.lists(st.integers(1, k), min_size=k, max_size=k)))
def test_a_pair_for_every_two_that_do_not_tie(tmp_path_factory, ranks):
    ranking = [sorted(set(ranks)).index(rank) + 1 for rank in ranks]
    path = tmp_path_factory.getbasetemp() / "ranking"
    responses = [f"answer {i}" for i in range(len(ranks))]
    path.write_text(json.dumps({"prompt": "x", "responses": responses, "ranking": ranking}))
    if len(set(ranks)) == 1:
        with pytest.raises(DataError, match="all 1 preferences rank all answers alike"):
            read_preferences(path)
        return
    pairs = only(read_preferences(path)).pairs
    assert sorted(pairs) == [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]


# ---- what is left out


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (FOUR | {"rejected": "Four."}, "have the same answer twice"),
        (FOUR | {"rejected": ""}, "have an empty answer"),
        (FOUR | {"chosen": " \n"}, "have an empty answer"),
        (FOUR | {"chosen": [ASK, said("Four."), ASK, said("Four.")], "rejected": [ASK, said("Five."), ASK, said("No.")]},
         "go apart before the last answer"),
        (FOUR | {"chosen": [ASK, said("Four.")], "rejected": [ASK]}, "end with a question"),
        (FOUR | {"chosen": [ASK, said("Four.")], "rejected": [ASK, {"role": "tool", "content": "4"}]}, "call tools"),
    ],
)  # fmt: skip
def test_records_of_no_use_are_left_out_and_counted(read, record, reason):
    found = read(FOUR, record, FOUR, record)
    assert found.where == ["row 1", "row 3"]
    assert f"2 of 4 {reason} and are left out: row 2, row 4" in found.said
    with pytest.raises(DataError, match=f"a: all 2 preferences {reason}: there is nothing to learn from"):
        read(record, record)


def test_the_same_answer_twice_in_a_ranking_gives_no_pair(read):
    record = {"prompt": "x", "responses": ["a", "b", "a"], "ranking": [1, 2, 3]}
    row = only(read(record | {"margin": [1, 2, 3]}))
    assert row.pairs == [(0, 1), (1, 2)]
    assert row.margins == [1.0, 3.0]


# ---- faults


RANKING = {"prompt": "x", "responses": ["a", "b", "c"], "ranking": [1, 2, 3]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "completion": "y", "label": True}, "row 1: one completion and its label, as for KTO"),
        ({"prompt": "x"}, "row 1 has the keys 'prompt': none of the forms"),
        (FOUR | {"prompt": 7}, "row 1: prompt is 7: it must be text"),
        (FOUR | {"chosen": None}, "row 1: chosen is None"),
        (FOUR | {"margin": "much"}, "row 1: margin is 'much': it must be a finite number"),
        (FOUR | {"margin": True}, "margin is True"),
        (FOUR | {"margin": float("nan")}, "margin is nan"),
        (FOUR | {"margin": 10**400}, "margin is 1000"),
        (FOUR | {"margin": [1, 2]}, "margin: has 2 numbers: the ranking gives 1 pairs"),
        (RANKING | {"margin": [1, 2]}, "margin: has 2 numbers: the ranking gives 3 pairs"),
        (RANKING | {"ranking": [1, 2, 4]}, r"ranking is \[1, 2, 4\]: ranks go from 1 without a gap.* see to 3"),
        (RANKING | {"ranking": [1, 3, 3]}, "without a gap.* see to 2"),
        (RANKING | {"ranking": [0, 1, 2]}, "ranks go from 1.* see to 0"),
        (RANKING | {"ranking": [1, 2, 10**15]}, "see to 3"),
        (RANKING | {"ranking": [1, 2]}, "must be 3 integers"),
        (RANKING | {"ranking": [1, 2, 2.5]}, "must be 3 integers"),
        (RANKING | {"ranking": "abc"}, "must be 3 integers"),
        (RANKING | {"responses": ["a"], "ranking": [1]}, "a list of two answers or more"),
        (RANKING | {"responses": ["a", 2, "c"]}, r"responses\[1\] is 2: it must be text"),
        ({"chosen": "a", "rejected": [said("b")]}, "chosen and rejected: one is a list of messages and one is not"),
        ({"chosen": [said("a")], "rejected": [said("b")]}, "an answer comes before any question"),
        ({"chosen": [ASK, {"role": "judge", "content": "a"}], "rejected": [ASK, said("b")]}, "role is 'judge'"),
        (FOUR | {"prompt": [ASK, said("No.")]}, "a second message of the assistant in a row"),
        ({"instruction": "x", "chosen": "a", "rejected": "b", "input": 3}, "input is 3"),
    ],
)  # fmt: skip
def test_faults(read, record, message):
    with pytest.raises(DataError, match=message):
        read(record)


def test_two_forms_in_a_file(read):
    with pytest.raises(
        DataError, match="row 2: it is of the form rankings, and row 1 is of pairs: put them in two files"
    ):
        read(FOUR, RANKING)
    with pytest.raises(DataError, match="row 2: 'rejected' is missing"):
        read(FOUR, {"prompt": "x", "chosen": "y"})


@pytest.mark.parametrize("reader", [read_preferences, read_prompts])
def test_files_that_cannot_be_read(reader, tmp_path):
    (tmp_path / "a.csv").write_text("chosen,rejected\na,b\n")
    with pytest.raises(DataError, match=r"a\.csv: begins with 'chosen.*are a JSON array of objects"):
        reader(tmp_path / "a.csv")
    with pytest.raises(DataError, match="absent: cannot be read"):
        reader(tmp_path / "absent")
    with pytest.raises(ConfigError, match="no-such"):
        reader(tmp_path / "a.csv", encoding="no-such")
    (tmp_path / "empty").write_text("[]")
    with pytest.raises(DataError, match="empty"):
        reader(tmp_path / "empty")


# ---- prompts


def test_prompts_with_columns(read):
    records = [
        {"prompt": "1 + 1", "answer": 2},
        {"prompt": [ASK | {"name": "x"}], "answer": [4], "level": "hard"},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:"},
    ]
    found = read(*records, reader=read_prompts)
    assert found.prompts == [[{"role": "user", "content": "1 + 1"}], [ASK], [{"role": "user", "content": "Hi"}]]
    assert found.columns == {"answer": [2, [4], None], "level": [None, "hard", None]}
    assert found.where == ["row 1", "row 2", "row 3"]
    assert len(found) == 3
    assert found.said[2:] == [
        "prompts: prompt",
        "keys that are not used: 'name'",
        "3 prompts, with answer, level",
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "x"}, "none of the forms that are known: prompt"),
        ({"prompt": [ASK, said("Four.")]}, "row 1: prompt: it ends with an answer"),
        ({"prompt": []}, "there is no message of a user's"),
        ({"prompt": None}, "prompt is None"),
        ({"prompt": "x", "completions": "y"}, "'completions' is what a reward function gets from training"),
    ],
)
def test_prompts_that_cannot_be(read, record, message):
    with pytest.raises(DataError, match=message):
        read(record, reader=read_prompts)
