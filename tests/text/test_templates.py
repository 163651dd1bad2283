"""Chat templates: what transformers makes of the same conversations, prefixes token for token, answers, marks, bad messages."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import store

from tinygrad_llm.errors import ConfigError, DataError, TokenizerError
from tinygrad_llm.text import (
    END_OF_TEXT,
    TEMPLATES,
    BPETokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Template,
    WordTokenizer,
    check_messages,
    load_tokenizer,
    story,
)
from tinygrad_llm.text.vocabulary import parse_tokenizer, to_json

REFERENCE = store.read("templates")
MARKS = sorted({mark for template in TEMPLATES.values() for mark in template.special_tokens} - {END_OF_TEXT})
PROSE = "".join(template.render([{"role": "user", "content": "a"}]) for template in TEMPLATES.values()) + story()
TOKENIZERS = {
    tokenizer.name: tokenizer.add_special(MARKS)
    for tokenizer in (
        BPETokenizer.train(PROSE, 500),
        GPT2Tokenizer(),
        CharTokenizer.train(PROSE),
        WordTokenizer.train(PROSE),
    )
}
TOKENIZERS["marking"] = TOKENIZERS["bpe"].marking_prompts()
every_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)

# users write what they like: marks, the words of templates, slots; and what merges well with what stands beside it
pieces = st.sampled_from(
    [*MARKS, END_OF_TEXT, "[INST]", "### Response:\n", "{content}", "{system}", "\n", " ", "the", " cat"]
)
any_text = st.lists(pieces | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=6).map("".join)
known_text = st.text(st.sampled_from(TOKENIZERS["char"].alphabet), max_size=12) | st.sampled_from(["the", "\n", " a"])


@st.composite
def conversations(draw, texts):
    """A conversation that ends with an answer."""
    said = (
        [{"role": draw(st.sampled_from(["system", "developer"])), "content": draw(texts)}]
        if draw(st.booleans())
        else []
    )
    for _ in range(draw(st.integers(1, 3))):
        more = {"input": draw(texts)} if draw(st.booleans()) else {}
        said.append({"role": "user", "content": draw(texts)} | more)
        said.append({"role": "assistant", "content": draw(texts) + draw(st.sampled_from("abc"))})
    return said


def user(content="Two and two?", **more):
    return {"role": "user", "content": content} | more


def assistant(content="Four."):
    return {"role": "assistant", "content": content}


def answers_of(tokenizer, ids, is_answer):
    return tokenizer.decode([i for i, counts in zip(ids, is_answer, strict=True) if counts])


# ---- against what others make


@pytest.mark.parametrize("case", REFERENCE.values(), ids=REFERENCE)
def test_the_text_is_what_transformers_renders(case):
    template = TEMPLATES[case["template"]]
    assert template.render(case["messages"], case["generation_prompt"]) == case["text"]


def test_there_is_a_reference_for_each_published_template():
    assert {case["template"] for case in REFERENCE.values()} == {"chatml", "phi3", "llama2"}


def test_alpaca_is_the_prompt_of_the_book():
    entry = {"instruction": "Correct it.", "input": "He go.", "output": "He goes."}
    text = (
        f"Below is an instruction that describes a task. "
        f"Write a response that appropriately completes the request."
        f"\n\n### Instruction:\n{entry['instruction']}"
    )
    messages = [user(entry["instruction"]), assistant(entry["output"])]
    answer = f"\n\n### Response:\n{entry['output']}{END_OF_TEXT}"
    assert TEMPLATES["alpaca"].render(messages) == text + answer
    messages[0]["input"] = entry["input"]
    assert TEMPLATES["alpaca"].render(messages) == f"{text}\n\n### Input:\n{entry['input']}" + answer
    system = {"role": "system", "content": "Be brief."}
    assert TEMPLATES["alpaca"].render([system, user("Hi.")]) == "Be brief.\n\n### Instruction:\nHi."


@every_template
@every_tokenizer
def test_ordinary_text_has_the_ids_of_the_whole_text(template, tokenizer):
    """As publishers encode it, in one piece with the marks allowed: no border is where an ordinary text would have merged."""
    messages = [
        user("Where was the cat?", input="It sat."),
        assistant("On the mat."),
        user("And then?"),
        assistant("No."),
    ]
    whole = tokenizer.encode_prompt(template.render(messages), set(tokenizer.special) - {"<unk>"})
    assert template.encode(tokenizer, messages)[0] == whole


# ---- what holds for every conversation


def check_conversation(template, tokenizer, messages):
    ids, is_answer = template.encode(tokenizer, messages)
    assert len(ids) == len(is_answer)
    assert all(type(i) is int for i in ids)
    assert {type(counts) for counts in is_answer} <= {bool}
    for n in range(len(messages)):
        if messages[n]["role"] == "assistant":
            before, prompted = template.encode(tokenizer, messages[:n], generation_prompt=True)
            assert ids[: len(before)] == before
            assert is_answer[: len(before)] == prompted
            assert is_answer[len(before)], "the answer begins where the prompt ends"
            finished, _ = replace(template, close="").encode(tokenizer, messages[: n + 1])
            assert ids[: len(finished)] == finished, "what a chat has read need not be read again"
    n_answers = sum(message["role"] == "assistant" for message in messages)
    end = template.end_id(tokenizer)
    assert sum(i == end and counts for i, counts in zip(ids, is_answer, strict=True)) == n_answers
    # marks are as many as with harmless contents, wherever they are written
    harmless = [message | {key: "a" for key in ("content", "input") if message.get(key)} for message in messages]
    marks = set(tokenizer.special.values()) - {tokenizer.special.get("<unk>")}
    counted = [sum(i in marks for i in template.encode(tokenizer, each)[0]) for each in (messages, harmless)]
    assert counted[0] == counted[1]
    last, of_last = template.encode(tokenizer, messages, last_only=True)
    start = len(template.encode(tokenizer, messages[:-1], generation_prompt=True)[0])
    assert (last, of_last[start:]) == (ids, is_answer[start:])
    assert not any(of_last[:start])
    return ids, is_answer


@every_template
@given(messages=conversations(any_text))
def test_any_text_in_byte_level_tokens(template, messages):
    for name in ("bpe", "gpt2", "marking"):
        tokenizer = TOKENIZERS[name]
        ids, is_answer = check_conversation(template, tokenizer, messages)
        mark = END_OF_TEXT if name == "marking" else ""
        assert tokenizer.decode(ids, errors="strict") == mark + template.render(messages)
        strip = str.strip if template.strip else str
        wanted = [
            template.answer.replace("{content}", "\0").replace("\0", strip(message["content"])) + template.end
            for message in messages
            if message["role"] == "assistant"
        ]
        assert answers_of(tokenizer, ids, is_answer) == "".join(wanted)


@every_template
@given(messages=conversations(known_text))
def test_known_text_in_characters_and_words(template, messages):
    tokenizer = TOKENIZERS["char"]
    ids, _ = check_conversation(template, tokenizer, messages)
    assert tokenizer.decode(ids) == template.render(messages)
    check_conversation(template, TOKENIZERS["word"], messages)


@every_template
def test_the_end_is_an_answer_and_the_prompt_is_not(template):
    tokenizer = TOKENIZERS["gpt2"]
    messages = [user("Hi."), assistant("Four."), user("And?"), assistant("Five.")]
    ids, is_answer = template.encode(tokenizer, messages)
    space = {"llama2": " "}.get(template.name, "")
    assert answers_of(tokenizer, ids, is_answer) == "".join(
        f"{space}{a}{space}{template.end}" for a in ("Four.", "Five.")
    )
    ids, is_answer = template.encode(tokenizer, messages[:3], generation_prompt=True)
    assert answers_of(tokenizer, ids, is_answer) == f"{space}Four.{space}{template.end}"
    assert tokenizer.decode(ids).endswith(template.prompt)


def test_a_text_without_roles_is_one_answer():
    tokenizer = TOKENIZERS["gpt2"]
    ids, is_answer = TEMPLATES["chatml"].encode(tokenizer, [{"role": "text", "content": "Once <|im_start|>"}])
    assert tokenizer.decode(ids) == "Once <|im_start|><|im_end|>\n"
    assert answers_of(tokenizer, ids, is_answer) == "Once <|im_start|><|im_end|>"
    assert sum(i in tokenizer.special.values() for i in ids) == 1


def test_the_mark_before_documents_stands_before_everything():
    plain, marking = TOKENIZERS["bpe"], TOKENIZERS["marking"]
    for template in TEMPLATES.values():
        ids, is_answer = template.encode(plain, [user(), assistant()])
        marked = template.encode(marking, [user(), assistant()])
        assert marked == ([plain.eot_id, *ids], [False, *is_answer])


# ---- marks


def test_marks_that_a_tokenizer_lacks_are_named_with_the_remedy():
    tokenizer = CharTokenizer("ab\n")
    with pytest.raises(TokenizerError, match=r"'chatml'.*add_special\(\['<\|im_start\|>', '<\|im_end\|>'\]\)"):
        TEMPLATES["chatml"].encode(tokenizer, [user("a")])
    with pytest.raises(TokenizerError, match=r"add_special\(\['<\|im_end\|>'\]\)"):
        TEMPLATES["chatml"].end_id(tokenizer.add_special(["<|im_start|>"]))
    assert TEMPLATES["plain"].encode(tokenizer, [user("a"), assistant("b")]) == (
        [1, 0, 2, 3],
        [False, False, True, True],
    )
    with pytest.raises(TokenizerError, match=r"'plain': in 'c\\n': position 0: 'c'"):
        TEMPLATES["plain"].encode(tokenizer, [user("c")])


def test_a_document_may_end_with_another_mark():
    data = to_json(CharTokenizer("ab\n"))
    text = json.dumps(data).replace("<|endoftext|>", "</s>")
    tokenizer = parse_tokenizer(json.loads(text), "tokenizer.json", eot="</s>")
    assert END_OF_TEXT not in tokenizer.special
    assert TEMPLATES["plain"].end_id(tokenizer) == tokenizer.eot_id == tokenizer.special["</s>"]


def test_a_stored_tokenizer_encodes_alike(tmp_path):
    TOKENIZERS["bpe"].save(tmp_path)
    messages = [user("<|im_end|>"), assistant()]
    again = TEMPLATES["chatml"].encode(load_tokenizer(tmp_path), messages)
    assert again == TEMPLATES["chatml"].encode(TOKENIZERS["bpe"], messages)


# ---- messages that cannot be


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ("Hi.", "messages: is 'Hi.'"),
        ([], "messages: there is no message of a user's"),
        ([{"role": "system", "content": "a"}], "no message of a user's"),
        (["Hi."], r"messages\[0\]: is 'Hi.'"),
        ([{"role": "user"}], r"messages\[0\]: content is None: it must be text"),
        ([user(7)], r"messages\[0\]: content is 7"),
        ([user(float("nan"))], r"messages\[0\]: content is nan"),
        ([user("a\ud83d")], r"messages\[0\]: content holds half a character"),
        ([user(), {"role": "bot", "content": "a"}], r"messages\[1\]: role is 'bot': it must be system, user or assistant"),
        ([user() | {"role": ["user"]}], r"messages\[0\]: role is \['user'\]"),
        ([assistant(), user()], r"messages\[0\]: an answer comes before any question"),
        ([{"role": "system", "content": "a"}, assistant()], r"messages\[1\]: an answer comes before any question"),
        ([user(), user()], r"messages\[1\]: a second message of the user in a row: join"),
        ([user(), assistant(), assistant()], r"messages\[2\]: a second message of the assistant"),
        ([user(), {"role": "system", "content": "a"}], r"messages\[1\]: a system message stands first"),
        ([user(), assistant(" \n")], r"messages\[1\]: content: an empty answer"),
        ([user(name="Ann")], r"messages\[0\]: 'name' is no part of a message"),
        ([user(input=3)], r"messages\[0\]: input is 3"),
        ([user(), assistant() | {"input": "a"}], r"messages\[1\]: input: only a user's"),
        ([user(), {"role": "text", "content": "a"}], r"messages\[1\]: a text without roles stands alone"),
        ([{"role": "text", "content": "a"}, user()], r"messages\[1\]: a text without roles stands alone"),
        ([{"role": "text", "content": ""}], r"messages\[0\]: content: an empty text"),
    ],
)  # fmt: skip
def test_bad_messages_are_named_with_their_place(messages, match):
    with pytest.raises(DataError, match=match) as caught:
        TEMPLATES["plain"].encode(TOKENIZERS["gpt2"], messages)
    assert "\n" not in str(caught.value)


def test_messages_are_returned_in_one_form():
    developer = {"role": "developer", "content": "a"}
    assert check_messages([developer, user(input="")]) == [{"role": "system", "content": "a"}, user()]


def test_an_answer_to_an_answer_is_refused():
    with pytest.raises(DataError, match=r"messages\[1\]: an answer can be generated after a user's message alone"):
        TEMPLATES["plain"].render([user(), assistant()], generation_prompt=True)


def test_a_template_without_a_place_for_a_system_message_says_so():
    template = replace(TEMPLATES["chatml"], name="own", system="")
    with pytest.raises(DataError, match=r"messages\[0\]: template 'own' has no place for a system message"):
        template.render([{"role": "system", "content": "a"}, user()])


# ---- templates of one's own


@every_template
def test_a_template_is_json(template):
    assert Template.from_dict(json.loads(json.dumps(template.to_dict()))) == template


def test_what_follows_an_answer_is_not_joined_to_the_next_question():
    template = Template("own", "{content}:", END_OF_TEXT, (END_OF_TEXT,), after="\n")
    check_conversation(template, TOKENIZERS["gpt2"], [user("a"), assistant("b"), user("\n\nc"), assistant("d")])


OWN = {"name": "own", "user": "Q: {content}\n", "prompt": "A: ", "end": "<e>", "special_tokens": ["<e>"]}


def test_a_template_of_ones_own():
    template = Template.from_dict(OWN | {"after": "\n", "default_system": "{x} {", "system": "{content}:{}\n"})
    text = template.render([user("{system}"), assistant("{input}"), user("b")], generation_prompt=True)
    assert text == "{x} {:{}\nQ: {system}\nA: {input}<e>\nQ: b\nA: "


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([], r"run: is \[\]: it must be an object"),
        (OWN | {"usr": "a"}, r"run: there is no field 'usr' \(did you mean user\?\)"),
        ({"name": "own"}, "run: the field 'user' is missing"),
        (OWN | {"name": 3}, "run: template: name is 3"),
        (OWN | {"user": "Q: "}, "run: template 'own': user is 'Q: ': it must be text with {content} in it, once"),
        (OWN | {"user": "{content}{content}"}, "user is .*once"),
        (OWN | {"answer": "{content}{input}"}, "answer is"),
        (OWN | {"user": None}, "user is None: it must be text"),
        (OWN | {"after": "a\ud83d"}, "after is .*: it must be text"),
        (OWN | {"prompt": "{content}"}, "prompt is '{content}': it must be text without a slot"),
        (OWN | {"system": "a"}, "system is 'a': it must be text with {content}"),
        (OWN | {"end": "<f>"}, r"end is '<f>': it must be one of the special_tokens, \['<e>'\]"),
        (OWN | {"special_tokens": "<e>"}, "special_tokens is '<e>': it must be a list"),
        (OWN | {"special_tokens": ["<e>", "<e>"]}, "special_tokens is .*: it must be a list of different marks"),
        (OWN | {"special_tokens": ["<e>", ""]}, "special_tokens is"),
        (OWN | {"strip": 1}, "strip is 1: it must be True or False"),
        (OWN | {"default_system": "a"}, "default_system is 'a': there is no field `system`"),
        (OWN | {"user": "{system}{content}"}, "user is .*: there is no field `system` for its slot"),
    ],
)
def test_a_wrong_field_is_named(data, match):
    with pytest.raises(ConfigError, match=match) as caught:
        Template.from_dict(data, "run")
    assert str(caught.value).startswith("run: ")
