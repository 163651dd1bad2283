"""Instruction tuning: batches as the book's, what is in the loss, resuming, answers before and after, bad input."""

import json

import numpy as np
import pytest
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, DataError, TokenizerError
from tinygrad_llm.generation import generate
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.runs.folder import load_config, load_run
from tinygrad_llm.text.lessons import lessons
from tinygrad_llm.text.templates import TEMPLATES
from tinygrad_llm.training import pretrain
from tinygrad_llm.tuning.assistant import Assistant, Chat, write_answers
from tinygrad_llm.tuning.exercises import messages_of
from tinygrad_llm.tuning.instruct import collate, evaluate_assistant, instruct, resume_instruction, show_rows

P = 50256
QUICK = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "epochs": 2, "examples": 60, "eval_every": 2, "save_every": 2}
KINDS = {"kinds": "upper,last"}


def quiet(line):
    pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lessons"
    instruct(out=folder, report=quiet, **QUICK, **KINDS)
    return folder


def alpaca(path, n=40):
    rows = [
        {"instruction": f"Say {i}", "input": "twice" if i % 4 == 0 else "", "output": f"{i}" * (i % 3 + 1)}
        for i in range(n)
    ]
    path.write_text(json.dumps(rows))
    return path


# ---- batches


def test_a_batch_is_the_book_s():
    inputs, targets = collate([[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]], pad=P)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 3, 4], [5, 6, P, P, P], [7, 8, 9, P, P]])
    np.testing.assert_array_equal(targets, [[1, 2, 3, 4, P], [6, P, -100, -100, -100], [8, 9, P, -100, -100]])


def test_a_batch_with_what_counts():
    inputs, targets = collate([[0, 1, 2, P], [5, 6]], P, [[False, False, True, True], [True, True]])
    np.testing.assert_array_equal(inputs, [[0, 1, 2], [5, 6, P]])
    np.testing.assert_array_equal(targets, [[-100, 2, P], [6, -100, -100]])


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("bucket", [1, 4])
def test_every_text_is_read_once_an_epoch_and_only_answers_count_if_masked(mask, bucket, tmp_path):
    from tinygrad_llm.tuning.instruct import _prepare

    options = {"template": "alpaca", "mask_instruction": mask, "bucket": bucket, "batch_size": 4, "context_length": 300}
    _, task, _ = _prepare(alpaca(tmp_path / "a.json"), None, options)
    with use_generator(Generator(1)):
        batches = list(task.epoch(None))
    assert len(batches) == len(task) == 9  # 34 of 40
    read, counted = [], []
    for inputs, targets in batches:
        for row, target in zip(inputs, targets, strict=True):
            whole = np.append(row[0], np.where(target == -100, [*row.tolist()[1:], -1], target))
            text = task.tokenizer.decode([i for i in whole.tolist() if i >= 0])
            read.append(text.split("<|endoftext|>")[0])
            counted.append(task.tokenizer.decode([i for i in target.tolist() if i >= 0]))
    expected = [task.template.render(messages).split("<|endoftext|>")[0] for messages in task.train.conversations]
    assert sorted(read) == sorted(expected)
    if mask:
        assert sorted(counted) == sorted(
            messages[-1]["content"] + "<|endoftext|>" for messages in task.train.conversations
        )
    else:
        assert all(text.startswith("elow is an instruction") for text in counted)


def test_the_parts_are_the_book_s(tmp_path):
    lines = show_rows(alpaca(tmp_path / "a.json", 1100), mask_instruction=True, template="alpaca", context_length=300)
    assert any("935 conversations to train on, 110 to test on, 55" in line for line in lines)
    assert sum("tokens in the loss" in line for line in lines) == 3
    text = " ".join(lines)
    assert "[Below·is" in text
    assert "]0<|endoftext|>" in text


# ---- a run


def test_a_run_says_what_it_came_to(run):
    config = load_config(run)
    assert config["task"] == "instruct"
    assert config["template"]["name"] == "plain"
    told = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert len(told) == 80
    assert told[0].keys() == {"question", "expected", "answer"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assistant = Assistant.load(run)
    for row in told[:5]:
        assert (
            assistant.answer([{"role": "user", "content": row["question"]}], 40)[: len(row["answer"])] == row["answer"]
        )


def test_evaluation_asks_what_the_run_asked(run, tmp_path):
    name, asked, found = evaluate_assistant(run)
    assert name == "the questions kept for testing"
    told = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert asked.answers == [row["expected"] for row in told]
    assert asked.score(found).n == 80
    for row, answer in zip(told, found, strict=True):
        assert answer.startswith(row["answer"]) or row["answer"].startswith(answer)
    (tmp_path / "a.json").write_text('[{"prompt": "Capitals: pea", "completion": "PEA"}]')
    name, asked, found = evaluate_assistant(run, tmp_path / "a.json")
    assert asked.answers == ["PEA"]
    assert len(found) == 1


def test_a_question_stands_below_its_tale_and_what_a_summary_is_asked_for_above(tmp_path):
    question, summary = lessons(1, 1, "test", ["question"])[0], lessons(1, 1, "test", ["summary"])[0]
    plain = TEMPLATES["plain"]
    assert plain.render(messages_of(question)[:1]) == f"{question.input}\n{question.instruction}\n"
    assert plain.render(messages_of(summary)[:1]) == f"{summary.instruction}\n{summary.input}\n"
    first, *others = plain.render(messages_of(lessons(1, 1, "train", ["question"])[0], True)).split("<|endoftext|>")[
        :-1
    ]
    tale, asked, _ = first.rsplit("\n", 2)
    assert len(tale) > 200
    for each in (asked, *(other.split("\n")[0] for other in others)):
        assert each.endswith("?")
        assert "." not in each


def test_one_answer_is_learned(tmp_path):
    rows = [{"prompt": f"Question {i}", "completion": "Yes."} for i in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    options = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "epochs": 40, "batch_size": 8, "lr": 1e-2}
    result = instruct(tmp_path / "a.json", out=tmp_path / "run", report=quiet, **options)
    assert result.before.exact_match == 0
    assert result.after.exact_match == 1
    summary = json.loads(json.dumps(result.summary()))
    assert summary["before"]["exact_match"] == 0
    assert summary["after"]["exact_match"] == 1
    assert "by_kind" in summary["after"]
    assert any("tinygrad-llm chat" in line for line in result.lines())
    assert Assistant.load(tmp_path / "run").answer([{"role": "user", "content": "Question 3"}]) == "Yes."


@pytest.mark.parametrize(
    "options", [{}, {"mask_instruction": True, "bucket": 1}, {"lora": "r=2", "template": "chatml"}]
)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(options, run, tmp_path):
    chosen = {
        "init_from": run,
        "epochs": 2,
        "examples": 40,
        "eval_every": 3,
        "save_every": 2,
        "drop_rate": 0.1,
        **KINDS,
        **options,
    }
    if "lora" in options:
        del chosen["init_from"]
        chosen |= {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "batch_size": 8}
    whole = instruct(out=tmp_path / "whole", report=quiet, **chosen)
    with pytest.raises(KeyboardInterrupt):
        instruct(out=tmp_path / "cut", report=quiet, loggers=[StopAfter(7)], **chosen)
    resumed = resume_instruction(tmp_path / "cut", report=quiet)
    for name, value in whole.model.state_dict().items():
        assert resumed.model.state_dict()[name].tobytes() == value.tobytes(), name
    for file in ("metrics.jsonl", "samples.txt", "answers.jsonl", "model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert resumed.before == whole.before


def test_what_stays_in_a_resumed_run(run):
    for change in ({"template": "alpaca"}, {"kinds": "upper"}, {"seed": 4}):
        with pytest.raises(ConfigMismatch, match=next(iter(change))):
            resume_instruction(run, report=quiet, **change)
    with pytest.raises(ConfigError, match="finished its 2 epochs"):
        resume_instruction(run, report=quiet)


def test_marks_that_the_template_needs_are_added(tmp_path):
    lines, run = [], tmp_path / "story"
    sizes = {"tokenizer": "bpe", "vocab_size": 300, "context_length": 96, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    pretrain(out=run, report=quiet, max_steps=1, **sizes)
    result = instruct(init_from=run, out=tmp_path / "run", report=lines.append, template="chatml", max_steps=1, **KINDS)
    assert any("<|im_start|>, <|im_end|>" in line for line in lines)
    before, _ = load_run(run)
    assert result.model.config.vocab_size == before.config.vocab_size + 2
    assert Assistant.load(tmp_path / "run").template == TEMPLATES["chatml"]


# ---- answers


def test_answers_in_groups_are_those_of_each_alone(run):
    assistant = Assistant.load(run)
    asked = [
        [{"role": "user", "content": text}] for text in ("Capitals: pea", "Last letter: lantern", "Capitals: a", "x")
    ]
    together = write_answers(assistant.model, assistant.tokenizer, assistant.template, asked, 12)
    for messages, answer in zip(asked, together, strict=True):
        ids, _ = assistant.template.encode(assistant.tokenizer, messages, generation_prompt=True)
        end = assistant.template.end_id(assistant.tokenizer)
        row = generate(assistant.model, [ids], 12, stop_ids=[end])[0, len(ids) :]
        assert (
            answer == assistant.tokenizer.decode([i for i in row.tolist() if i >= 0]) == assistant.answer(messages, 12)
        )


def test_a_conversation(run, tmp_path):
    chat = Chat(Assistant.load(run), max_new_tokens=8)
    first = "".join(chat.ask("Capitals: pea"))
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    assert "".join(chat.retry()) == first
    assert b"".join(token for token, _ in chat.why()).decode() == first
    for _, best in chat.why():
        assert len(best) == 5
        assert sum(p for _, p in best) <= 1 + 1e-6
    chat.save(tmp_path / "chat.json")
    other = Chat(Assistant.load(run))
    other.load(tmp_path / "chat.json")
    assert other.messages == chat.messages
    assert chat.undo()
    assert chat.messages == []
    assert not chat.undo()
    with pytest.raises(ConfigError, match="nothing has been asked"):
        next(chat.retry())


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(run):
    chat = Chat(Assistant.load(run), max_new_tokens=8)
    pieces = chat.ask("Capitals: lantern")
    begin = next(pieces)
    pieces.close()
    assert chat.messages[-1] == {"role": "assistant", "content": begin}


def test_what_no_longer_fits_is_dropped_from_the_front(run):
    chat = Chat(Assistant.load(run), max_new_tokens=20)
    context = chat.assistant.model.config.context_length
    for i in range(12):
        list(chat.ask(f"Capitals: word number {'abcdefghijkl'[i]}"))
        assert chat.assistant.room(chat.messages[:-1]) >= 20 or len(chat.messages) == 2
    assert chat.dropped == 2
    assert len(chat.messages) < 24
    before = list(chat.messages)
    with pytest.raises(tg.errors.ContextLengthError, match=f"the model reads {context}"):
        list(chat.ask("a" * context))
    assert chat.messages == before  # nothing is lost for a question that is too long
    assert "".join(Chat(chat.assistant, max_new_tokens=0).ask("Capitals: a")) == ""
    wishful = Chat(chat.assistant, max_new_tokens=10 * context)
    for _ in range(2):
        list(wishful.ask("Capitals: a"))
    assert wishful.dropped in (0, 2)


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "mine"}, "template is 'mine': use one of alpaca"),
        ({"kinds": "upper,sing"}, "sing"),
        ({"bucket": 0}, "bucket is 0"),
        ({"max_length": 500}, "max_length is 500: the model reads 128"),
        ({"mask": True}, "has no option 'mask'"),
    ],
)
def test_options_that_cannot_be(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        instruct(out=tmp_path / "run", report=quiet, **options)
    assert not (tmp_path / "run").exists()


def test_a_context_too_short_for_any_answer(tmp_path):
    with pytest.raises(DataError, match="none has the end of its answer within it"):
        instruct(out=tmp_path / "run", report=quiet, max_length=5, **QUICK, **KINDS)
    rows = [{"prompt": "a" * (i % 7) * 30, "completion": " yes" * 10} for i in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    lines = show_rows(tmp_path / "a.json", max_length=100)
    text = " ".join(lines)
    assert "24 cut off after 100 tokens: row 3" in text
    assert "14 with nothing in the loss, which teach nothing: row 5" in text
    assert "10 without an end of an answer in the loss: row 3" in text


@pytest.mark.parametrize("options", [{"train": "last_block"}, {"lora": "r=2"}])
def test_new_marks_have_to_be_learned(options, run, tmp_path):
    with pytest.raises(ConfigError, match="would be new tokens"):
        instruct(init_from=run, out=tmp_path / "run", report=quiet, template="chatml", **KINDS, **options)
    assert not (tmp_path / "run").exists()


def test_too_few_conversations(tmp_path):
    with pytest.raises(DataError, match="5 texts or conversations that end with an answer: 20 are needed"):
        instruct(alpaca(tmp_path / "a.json", 5), out=tmp_path / "run", report=quiet)
    with pytest.raises(DataError, match=r"absent\.json"):
        instruct(tmp_path / "absent.json", out=tmp_path / "run", report=quiet)


def test_other_weights_need_the_name_of_a_template(tmp_path):
    sizes = {"tokenizer": "char", "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    pretrain(out=tmp_path / "story", report=quiet, max_steps=1, **sizes)
    with pytest.raises(ConfigError, match="it knows no template: name one"):
        Assistant.load(tmp_path / "story")
    assert Assistant.load(tmp_path / "story", template="plain").template.name == "plain"
    with pytest.raises(TokenizerError, match="add_special"):
        Assistant.load(tmp_path / "story", template="chatml")


@pytest.mark.parametrize(
    "template", [7, {}, {"name": "x"}, {"name": "x", "user": "{content}", "end": "y", "special_tokens": []}]
)
def test_a_stranger_s_template(template, run, tmp_path):
    for name in ("tokenizer.txt", "model.safetensors", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(load_config(run) | {"template": template}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Assistant.load(tmp_path)


def test_texts_without_questions_are_learned_as_they_are(tmp_path):
    rows = [{"text": f"One and {word}."} for word in ("one", "two", "six", "ten") * 10]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    small = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "epochs": 3, "batch_size": 8, "lr": 1e-2}
    result = instruct(tmp_path / "a.json", out=tmp_path / "run", report=quiet, **small)
    assert (result.before, result.after, result.summary()["after"]) == (None, None, None)
    assert result.metrics[-1]["val_loss"] < result.metrics[0]["val_loss"] - 0.5
    assert any("texts without questions" in line for line in show_rows(tmp_path / "a.json", **small))
    with pytest.raises(KeyboardInterrupt):
        instruct(tmp_path / "a.json", out=tmp_path / "cut", report=quiet, loggers=[StopAfter(6)], **small)
    resumed = resume_instruction(tmp_path / "cut", report=quiet)
    for name, value in result.model.state_dict().items():
        assert resumed.model.state_dict()[name].tobytes() == value.tobytes(), name
    with pytest.raises(DataError, match="learned from texts without questions"):
        evaluate_assistant(tmp_path / "run")


def test_what_is_inherited_is_said_line_by_line(run, tmp_path):
    lines = []
    instruct(init_from=run, out=tmp_path / "run", report=lines.append, examples=40, epochs=1, drop_rate=0.3, **KINDS)
    said = [line.split(": ", 1)[1] for line in lines if f"Inherited from {run}" in line]
    vocab = Assistant.load(run).tokenizer.vocab_size
    sizes = ["context_length = 128", "emb_dim = 16", "n_heads = 2", "n_layers = 1"]
    assert said == [f"tokenizer = char, {vocab} tokens", *sizes]
    other = [line for line in lines if line.startswith("Not inherited: ")]
    assert "Not inherited: epochs = 1, there 2" in other
    assert "Not inherited: drop_rate = 0.3, there 0.0" in other


def test_look_ups_are_said_to_be_memorised(tmp_path):
    small = {"emb_dim": 32, "n_heads": 2, "n_layers": 1, "epochs": 50, "examples": 10, "batch_size": 5, "lr": 1e-2}
    result = instruct(out=tmp_path / "run", kinds="opposite", report=quiet, **small)
    told = load_config(tmp_path / "run")
    assert told["training"]["kinds"] == "opposite"
    assert result.memorised > 0.8  # what it read again and again
    assert result.after.exact_match < 0.2  # what nobody told it
    assert result.summary()["memorised"] == result.memorised
    assert any("come back: memorised" in line for line in result.lines())


def test_nothing_else_is_called_memorised(run):
    _, asked, _ = evaluate_assistant(run)
    assert len(asked.look_ups()) == 0
