"""Conversations: every form of file that people have, every fault with its record and field, and what is in the loss."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError, TokenizerError
from tinygrad_llm.text import (
    TEMPLATES,
    CharTokenizer,
    Conversations,
    GPT2Tokenizer,
    count_answers,
    read_conversations,
)

GPT2 = GPT2Tokenizer()
ASKED, SAID = {"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four — „4“."}
ALPACA = [
    {"instruction": "Correct it.", "input": "He go.", "output": "He goes."},
    {"instruction": "Name a colour.", "input": "", "output": "Red."},
    {"instruction": "And another.", "output": "Blue\u2028\x85."},
]
ALPACA_ROWS = [
    [{"role": "user", "content": "Correct it.", "input": "He go."}, {"role": "assistant", "content": "He goes."}],
    [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}],
    [{"role": "user", "content": "And another."}, {"role": "assistant", "content": "Blue\u2028\x85."}],
]


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def as_lines(records, **options):
    return "".join(json.dumps(record, ensure_ascii=False, **options) + "\n" for record in records)


def read(tmp_path, *records):
    return read_conversations(write(tmp_path / "a", as_lines(records)))


# ---- the forms of files


@pytest.mark.parametrize("indent", [None, 4])
def test_alpaca_as_an_array(tmp_path, indent):
    data = read_conversations(write(tmp_path / "a.json", json.dumps(ALPACA, indent=indent)))
    assert data.rows == ALPACA_ROWS
    assert data.where == ["item 1", "item 2", "item 3"]
    assert data.said == [
        "a JSON array",
        "encoding utf-8",
        "Alpaca: instruction, input, output",
        "3 conversations, 3 answers, 1 with an input, 2 without",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_alpaca_as_lines(tmp_path, end):
    data = read_conversations(write(tmp_path / "a", as_lines(ALPACA).replace("\n", end)))
    assert data.rows == ALPACA_ROWS
    assert data.said[0] == "JSON lines"
    assert data.where[:2] == (["row 1", "row 3"] if end == "\n\n" else ["row 1", "row 2"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings_are_found(tmp_path, encoding):
    path = write(tmp_path / "a", as_lines([{"messages": [ASKED, SAID]}]), encoding)
    data = read_conversations(path)
    assert data.rows == [[ASKED, SAID]]
    assert encoding.removesuffix("-sig") in data.said[1]
    assert read_conversations(path, encoding=encoding).rows == data.rows


def test_chat(tmp_path):
    system = {"role": "developer", "content": "Be brief."}
    parts = {"role": "user", "content": [{"type": "text", "text": "Two "}, {"type": "text", "text": "and two?"}]}
    first = {"messages": [system, ASKED, SAID, ASKED, SAID | {"name": "a", "weight": 0}], "id": 3}
    data = read(tmp_path, first, {"messages": [parts, SAID], "split": "x", "id": 4}, {"messages": [ASKED]})
    assert data.rows == [[{"role": "system", "content": "Be brief."}, ASKED, SAID, ASKED, SAID], [ASKED, SAID], [ASKED]]
    assert data.said[2:] == [
        "chat: messages",
        "keys that are not used: 'id', 'name', 'weight', 'split'",
        "3 conversations, 3 answers",
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [ASKED, {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}, SAID],
        [ASKED, {"role": "assistant", "content": None, "function_call": {"name": "a"}}],
        [ASKED, SAID, {"role": "tool", "content": "4"}, SAID],
        [ASKED, {"role": "function", "name": "add", "content": "4"}, SAID],
    ],
)
def test_calls_of_tools_are_left_out_and_counted(tmp_path, messages):
    calls = {"messages": messages}
    data = read(tmp_path, {"messages": [ASKED, SAID]}, calls, {"messages": [ASKED, SAID]}, calls)
    assert data.where == ["row 1", "row 3"]
    assert "2 of 4 call tools and are left out: row 2, row 4" in data.said
    with pytest.raises(DataError, match="a: all 2 conversations call tools"):
        read(tmp_path, calls, calls)


def test_sharegpt(tmp_path):
    def turns(*speakers):
        return [{"from": speaker, "value": f"{speaker}."} for speaker in speakers]

    data = read(
        tmp_path,
        {"id": "a", "conversations": turns("system", "human", "gpt", "user", "chatgpt")},
        {"conversations": turns("human", "bing", "human", "assistant")},
        {"conversations": turns("human", "gpt", "observation", "gpt")},
    )
    assert [[message["role"] for message in row] for row in data.rows] == [
        ["system", "user", "assistant", "user", "assistant"],
        ["user", "assistant", "user", "assistant"],
    ]
    assert data.rows[1][1] == {"role": "assistant", "content": "bing."}
    assert data.said[2:] == [
        "ShareGPT: conversations",
        "keys that are not used: 'id'",
        "1 of 3 call tools and are left out: row 3",
        "2 conversations, 4 answers",
    ]


def test_pairs(tmp_path):
    data = read(tmp_path, {"prompt": "Two and two?", "completion": " Four."}, {"prompt": [ASKED], "completion": [SAID]})
    assert data.rows == [[ASKED, {"role": "assistant", "content": " Four."}], [ASKED, SAID]]
    assert TEMPLATES["bare"].render(data.rows[0]) == "Two and two? Four.<|endoftext|>"


def test_texts(tmp_path):
    data = read(tmp_path, {"text": "Once."}, {"text": "Twice."})
    assert data.rows == [[{"role": "text", "content": "Once."}], [{"role": "text", "content": "Twice."}]]
    assert data.said[-1] == "2 conversations, 2 answers"


@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 3), min_size=1, max_size=4), st.booleans()
)
def test_what_json_writes_is_read_back(tmp_path_factory, texts, array):
    records = [{"instruction": a, "input": b, "output": f"{c}."} for a, b, c in texts]
    content = json.dumps(records) if array else as_lines(json.loads(json.dumps(records)))
    data = read_conversations(write(tmp_path_factory.mktemp("json") / "a", content))
    assert [(u["content"], u.get("input", ""), a["content"]) for u, a in data.rows] == [
        (a, b, f"{c}.") for a, b, c in texts
    ]


# ---- faults

GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"


def chat(*messages):
    return GOOD + json.dumps({"messages": list(messages)})


def share(*turns):
    return json.dumps({"conversations": list(turns)})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "a: empty"),
        ("\n \n", "a: empty"),
        ("[]", "a: there are no records in it"),
        ("instruction,output\na,b\n", "a: begins with 'instruction,output.*: conversations are a JSON array"),
        ("[1, 2]", "a: begins with"),
        (GOOD + "{'a': 1}", "a: row 2: not JSON at character 2"),
        (GOOD + "{", "a: row 2: not JSON at character 2"),
        (json.dumps(ALPACA)[:-1], "a: not JSON at character"),
        (GOOD + "[1]", r"a: row 2 is \[1\]: it must be an object with a conversation"),
        ('{"a": 1, "a": 2}', "a: row 1: a key stands twice"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}', "a: row 1 has the keys 'prompt', 'chosen', 'rejected': none"),
        (GOOD + '{"prompt": "a", "completion": "b"}', "a: row 2: it is of the form pairs, and row 1 is of chat: put"),
        (GOOD + '{"question": "a"}', "a: row 2: 'messages' is missing: it has 'question'"),
        ('{"instruction": "a", "output": "b"}\n{"instruction": "a"}', "a: row 2: 'output' is missing"),
        ('[{"instruction": "a", "output": "b"},\n{"instruction": "a", "output": " "}]', "a: item 2: output: an empty answer"),
        ('{"instruction": "a", "output": NaN}', "a: row 1: output is nan: it must be text"),
        ('{"instruction": NaN, "output": "b"}', "a: row 1: instruction is nan: it must be text"),
        ('{"instruction": "a", "input": 3, "output": "b"}', "a: row 1: input is 3: it must be text"),
        ('{"instruction": "a", "output": null}', "a: row 1: output is None"),
        ('{"instruction": "a", "output": "\\ud83d"}', "a: row 1: output holds half a character"),
        ('{"prompt": "a", "completion": ""}', "a: row 1: completion: an empty answer"),
        ('{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}', "a: row 1: prompt and completion: one is"),
        ('{"prompt": [], "completion": [{"role": "assistant", "content": "b"}]}', r"a: row 1: prompt \+ completion\[0\]: an"),
        ('{"text": ""}', "a: row 1: text: it is empty"),
        ('{"text": ["a"]}', r"a: row 1: text is \['a'\]: it must be text"),
        (chat({"role": "bot", "content": "a"}), r"a: row 2: messages\[0\]: role is 'bot'"),
        (chat({"role": ["user"], "content": "a"}), r"a: row 2: messages\[0\]: role is \['user'\]"),
        (chat({"content": "a"}), r"a: row 2: messages\[0\]: role is None"),
        (chat(SAID, ASKED), r"a: row 2: messages\[0\]: an answer comes before any question: drop it"),
        (chat(ASKED, ASKED), r"a: row 2: messages\[1\]: a second message of the user in a row"),
        (chat(ASKED, SAID | {"content": ""}), r"a: row 2: messages\[1\]: content: an empty answer"),
        (chat(ASKED, SAID | {"content": None}), r"a: row 2: messages\[1\]: content is None"),
        (chat(ASKED | {"content": [{"type": "image_url"}]}), r"a: row 2: messages\[0\]: content\[0\] is 'image_url': parts"),
        (chat(ASKED | {"content": ["a"]}), r"a: row 2: messages\[0\]: content\[0\] is 'a'"),
        (chat(ASKED | {"content": [{"type": "text"}]}), r"a: row 2: messages\[0\]: content\[0\]: text is None"),
        (chat(), "a: row 2: messages: there is no message of a user's"),
        (chat("a"), r"a: row 2: messages\[0\] is 'a': it must be an object"),
        ('{"messages": "a"}', "a: row 1: messages is 'a': it must be a list"),
        (share({"from": "Ann", "value": "a"}), r"a: row 1: conversations\[0\]: from is 'Ann': it must be one of system, user"),
        (share({"from": {}, "value": "a"}), r"a: row 1: conversations\[0\]: from is {}"),
        (share({"from": "human"}), r"a: row 1: conversations\[0\]: value is None"),
        (share({"from": "gpt", "value": "a"}), r"a: row 1: conversations\[0\]: an answer comes before any question"),
        (b'{"text": "\x81\x8d"}', "a: line 1: byte 0x81 is not cp1252"),
        ('{"text": "Grüße"}\n'.encode() + b'{"text": "na\xefve"}', "a: line 2: byte 0xef is not utf-8"),
        (b'{"text": "a\0"}', "a: line 1 holds a null character"),
        ("[" * 100_000 + "{", "a: lists or objects are nested too deeply|a: not JSON"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(tmp_path, content, match):
    path = write(tmp_path / "a", content)
    with pytest.raises(DataError, match=match) as caught:
        read_conversations(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_line_without_an_end_is_given_up(tmp_path, alarm):
    path = write(tmp_path / "a", GOOD + '{"text": "')
    os.truncate(path, 1 << 30)  # a gibibyte of nothing, which takes no room on the disk
    with pytest.raises(DataError, match=r"a: line 2 is longer than 1\.00 MiB: not"):
        read_conversations(path)


def test_files_that_are_none(tmp_path, alarm):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(DataError, match="not a regular file"):
            read_conversations(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_conversations(tmp_path / "none")
    with pytest.raises(ConfigError, match="encoding is 'utf-9'"):
        read_conversations(write(tmp_path / "a", GOOD), encoding="utf-9")
    with pytest.raises(ConfigError, match="path is 3"):
        read_conversations(3)


def test_conversations_made_in_python_are_checked():
    data = Conversations([[ASKED, SAID], [{"role": "developer", "content": "a"}, ASKED]])
    assert (len(data), data.where, data.rows[1][0]["role"]) == (2, ["row 1", "row 2"], "system")
    with pytest.raises(DataError, match=r"row 2: messages\[0\]: an answer comes before"):
        Conversations([[ASKED, SAID], [SAID]])
    with pytest.raises(DataError, match="where has 1 places: 2 rows need one each"):
        Conversations([[ASKED], [ASKED]], ["a"])


# ---- what is in the loss


def pair(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_counts_of_answers():
    """Characters can be counted by hand: question, line break, answer, end."""
    tokenizer, plain = CharTokenizer("ab\n"), TEMPLATES["plain"]
    data = Conversations(
        [
            pair("a", "bb"),
            pair("aaaa", "bb"),
            pair("aaaaaaa", "b"),
            pair("a", "b") * 2,
            pair("a", "b")[:1],
            pair("aaa", "bb"),
        ]
    )
    counts = count_answers(plain, tokenizer, data, max_length=6)
    np.testing.assert_array_equal(counts.tokens, [5, 8, 10, 8, 2, 7])
    np.testing.assert_array_equal(counts.supervised, [3, 2, 0, 3, 0, 3])
    np.testing.assert_array_equal(counts.truncated, [False, True, True, True, False, False])
    np.testing.assert_array_equal(counts.has_end, [True, False, False, True, False, True])
    assert counts.n_supervised == 11
    assert counts.lines() == [
        "6 conversations, 40 tokens, the longest 10 (row 3); 11 of 29 targets in the loss (37.9%)",
        "3 cut off after 6 tokens: row 2, row 3, row 4",
        "2 with nothing in the loss, which teach nothing: row 3, row 5",
        "1 without an end of an answer in the loss: row 2",
    ]
    last = count_answers(plain, tokenizer, data, max_length=7, last_only=True)
    np.testing.assert_array_equal(last.supervised, [3, 3, 0, 2, 0, 3])
    np.testing.assert_array_equal(last.has_end, [True, True, False, True, False, True])
    assert len(count_answers(plain, tokenizer, Conversations([pair("a", "b")]), 99).lines()) == 1


def test_the_first_token_of_a_text_is_no_target():
    data = Conversations([[{"role": "text", "content": "ab"}]])
    tokenizer = CharTokenizer("ab")
    assert count_answers(TEMPLATES["plain"], tokenizer, data, 9).n_supervised == 2
    assert count_answers(TEMPLATES["plain"], tokenizer.marking_prompts(), data, 9).n_supervised == 3


def test_a_row_of_many_is_named(tmp_path):
    data = Conversations([pair("a" * 9, "b")] * 10)
    assert count_answers(TEMPLATES["plain"], CharTokenizer("ab\n"), data, 4).lines()[1].endswith("row 8 and 2 more")


def test_counting_what_cannot_be_counted():
    data = Conversations([pair("a", "b"), pair("c", "b")])
    with pytest.raises(TokenizerError, match=r"^row 2: template 'plain': in 'c.*'c'"):
        count_answers(TEMPLATES["plain"], CharTokenizer("ab\n"), data, 8)
    with pytest.raises(TokenizerError, match=r"^template 'phi3'.*add_special"):
        count_answers(TEMPLATES["phi3"], GPT2, data, 8)
    with pytest.raises(DataError, match="there are no conversations"):
        count_answers(TEMPLATES["plain"], GPT2, Conversations([]), 8)
    with pytest.raises(ConfigError, match="max_length is 0"):
        count_answers(TEMPLATES["plain"], GPT2, data, 0)
