import json
import math

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, DataError, TokenizerError
from tinygrad_llm.evaluation.evaluate import choices_right, evaluate_run, last_words, load_tasks
from tinygrad_llm.evaluation.losses import longest_copied_run
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.runs.folder import save_model, start_run
from tinygrad_llm.text import BPETokenizer, CharTokenizer

TEXT = "The cat sat on the mat. The dog ran to the log. Who has seen the hen? " * 20


def make_run(tmp_path, tokenizer, **training):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    tg.manual_seed(4)
    model = GPTModel(GPTConfig(tokenizer.vocab_size, 24, 16, 2, 1))
    training = {"prompt": "The cat", "val_ratio": 0.25, "temperature": 1.0, "top_k": 5} | training
    folder = tmp_path / "run"
    start_run(folder, {"model": model.config.to_dict(), "training": training, "files": [str(file)]}, tokenizer)
    save_model(folder, model)
    return folder, model.eval(), file


def test_the_figures_are_those_of_the_validation_text(tmp_path):
    tokenizer = BPETokenizer.train(TEXT, 270)
    folder, model, _ = make_run(tmp_path, tokenizer)
    result = evaluate_run(folder, sample_tokens=30)
    val_text = TEXT[int(0.75 * len(TEXT)) :]
    ids = tokenizer.encode(val_text)
    losses = []
    for start in range(0, len(ids) - 1, 24):  # every token but the first once, in windows of the context
        window = ids[start : start + 25]
        logits = model(np.array([window[:-1]])).data[0].astype(np.float64)
        losses += [np.log(np.exp(z).sum()) - z[i] for z, i in zip(logits, window[1:], strict=True)]
    assert len(losses) == len(ids) - 1
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert result.bits_per_byte == pytest.approx(np.mean(losses) * len(ids) / math.log(2) / len(val_text), rel=1e-5)
    assert result.n_tokens == len(ids)
    assert result.copied.split() == longest_copied_run(result.sample, TEXT[: int(0.75 * len(TEXT))])
    assert result.copied_words == len(result.copied.split())
    assert result.n_choices == 32
    assert result.choice_chance == 0.5
    assert evaluate_run(folder, sample_tokens=30) == result
    assert evaluate_run(folder, sample_tokens=30, seed=5).sample != result.sample


class Reciting:
    """A model that knows the text by heart: after each place where its input stands, the letter that follows."""

    def __init__(self, text, tokenizer, knows=lambda word: True):
        self.ids, self.tokenizer, self.knows = tokenizer.encode(text), tokenizer, knows
        self.config, self.training = GPTConfig(tokenizer.vocab_size, 24, 2, 1, 1), False

    def __call__(self, ids):
        row = ids[0].tolist()
        logits = np.zeros((1, len(row), self.config.vocab_size), np.float32)
        for t in range(len(row)):
            seen = row[: t + 1]
            start = next(i for i in range(len(self.ids)) if self.ids[i : i + len(seen)] == seen)
            following = [*self.ids, 0][start + len(seen)]
            if not self.knows(following):
                following = 0
            logits[0, t, following] = 1
        return tg.Tensor(logits)


def test_last_words_need_every_token_and_all_before():
    text = "It was the red hen. He had a big pen! Was it ten? Perhaps."
    tokenizer = CharTokenizer.train(text)
    letter = {c: tokenizer.encode(c)[0] for c in "hpt"}
    assert last_words(Reciting(text, tokenizer), tokenizer, text, 99) == [True, True, True, True]
    assert last_words(Reciting(text, tokenizer), tokenizer, text, 2) == [True, True]
    without_p = Reciting(text, tokenizer, lambda i: i != letter["p"])
    assert last_words(without_p, tokenizer, text, 99) == [True, False, True, False]
    assert last_words(without_p, tokenizer, "No end", 9) == []


class Preferring:
    """A model that expects one letter everywhere."""

    def __init__(self, tokenizer, letter):
        self.id = tokenizer.encode(letter)[0]
        self.config, self.training = GPTConfig(tokenizer.vocab_size, 64, 2, 1, 1), False

    def __call__(self, ids):
        logits = np.zeros((*ids.shape, self.config.vocab_size), np.float32)
        logits[..., self.id] = 5
        return tg.Tensor(logits)


def test_choices_are_counted_right_where_the_likeliest_is_the_answer():
    items = [
        {"question": "A", "choices": ["xxxx", "y"], "answer": "xxxx"},
        {"question": "B", "choices": ["y", "xx", "z"], "answer": "y"},
        {"question": "é", "choices": ["x", "y"], "answer": "x"},
    ]
    tasks = [{"task": "t", "template": "{question}:{answer}", "items": items}]
    tokenizer = CharTokenizer.train("ABxyz: \n")
    right, chances = choices_right(Preferring(tokenizer, "x"), tokenizer, tasks)
    assert right == [True, False]  # the third cannot be encoded
    assert chances == [1 / 2, 1 / 3]
    byte_right, _ = choices_right(Preferring(BPETokenizer([]), "x"), BPETokenizer([]), tasks, 2)
    assert byte_right == [True, False, True]


def test_the_bundled_tasks_are_sound():
    tasks = load_tasks()
    for task in tasks:
        places = [item["choices"].index(item["answer"]) for item in task["items"]]
        assert sum(places) * 2 == len(places)  # always taking the first or the last choice is right half the time
        assert len({item["question"] + str(item["choices"]) for item in task["items"]}) == len(task["items"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file of tasks"),
        ('{"a": 1}', "not a file of tasks"),
        (
            '[{"template": "{question}", "items": [{"question": "a", "choices": ["b", "c"], "answer": "d"}]}]',
            "'a' must have",
        ),
        ('[{"template": "{q}", "items": [{"question": "a", "choices": ["b", "c"], "answer": "b"}]}]', r"\{q\}"),
    ],
)
def test_a_damaged_task_file(tmp_path, text, message):
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises((DataError, ConfigError), match=message):
        load_tasks(tmp_path / "tasks.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_tasks(tmp_path / "none.json")


def test_other_texts_and_a_training_text_that_is_gone(tmp_path):
    folder, _, file = make_run(tmp_path, BPETokenizer([]))
    other = tmp_path / "other.txt"
    other.write_text("A hen sat.")
    result = evaluate_run(folder, other, sample_tokens=3)
    assert (result.text, result.n_tokens, result.n_last_words) == (str(other), 10, 1)
    file.unlink()
    assert evaluate_run(folder, other, sample_tokens=3).copied is None
    with pytest.raises(DataError, match=r"text\.txt"):
        evaluate_run(folder)
    with pytest.raises(ConfigError, match="n_shots is -1"):
        evaluate_run(folder, n_shots=-1)
    other.write_text("A")
    with pytest.raises(DataError, match="no batches"):
        evaluate_run(folder, other)


def test_the_command_prints_the_figures(tmp_path, capsys):
    folder, _, file = make_run(tmp_path, BPETokenizer([]))
    assert main(["evaluate", str(folder), "--sample-tokens", "9", "--shots", "1"]) == 0
    out = capsys.readouterr().out
    result = evaluate_run(folder, sample_tokens=9, n_shots=1)
    for figure in (
        f"{result.loss:.3f}",
        f"{result.perplexity:.1f}",
        f"{result.bits_per_byte:.3f}",
        f"of {result.n_choices}; guessing gives 50%",
    ):
        assert figure in out
    assert main(["evaluate", "--json", str(folder), "--text", str(file), str(file), "--sample-tokens", "9"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == f"{file}, {file}"
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_generate_shows_candidates_and_takes_every_strategy(tmp_path, capsys):
    folder, model, _ = make_run(tmp_path, BPETokenizer([]))
    argv = ["generate", str(folder), "--seed", "1", "--max-new-tokens", "3", "--prompt", "a", "--top-p", "0.5"]
    assert main([*argv, "--show-candidates", "2", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    z = model(np.array([[97]])).data[0, -1].astype(np.float64) / 0.8
    p = np.sort(np.exp(z) / np.exp(z).sum())[::-1]
    p = p[: int((p.cumsum() < 0.5).sum()) + 1]
    p /= p.sum()
    np.testing.assert_allclose([q for _, q in steps[0]["candidates"]], p[:2], rtol=1e-5)
    assert steps[0]["entropy"] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)
    assert len(steps) == 3
    assert main([*argv, "--show-candidates"]) == 0
    assert capsys.readouterr().out.count("entropy") == 3
    best = ord("z")
    more = "--top-k 9 --min-p 0.001 --typical-p 0.9 --repetition-penalty 1.1 --frequency-penalty 0.1 --presence-penalty 0.1"
    assert main([*argv, *more.split(), "--no-repeat-ngram", "2", "--logit-bias", f"{best}=99"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("azz")
    assert not out.startswith("azzz")
    assert (
        main(
            [
                "generate",
                str(folder),
                "--prompt",
                "a",
                "--temperature",
                "0",
                "--logit-bias",
                f"{best}=99",
                "--stop",
                "zz",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out == "a\n"
    for bad in (["--top-p", "0"], ["--show-candidates", "0"], ["--stop", ""], ["--logit-bias", "999=1"]):
        assert main([*argv, *bad]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_a_prompt(tmp_path):
    folder, _, _ = make_run(tmp_path, BPETokenizer([]), prompt="")
    with pytest.raises(CheckpointError, match="no prompt"):
        evaluate_run(folder)


def test_a_text_of_foreign_characters(tmp_path):
    folder, _, _ = make_run(tmp_path, CharTokenizer.train(TEXT))
    other = tmp_path / "other.txt"
    other.write_text("日本語")
    with pytest.raises(TokenizerError, match="日"):
        evaluate_run(folder, other)
