"""Answers put in order: sessions that are typed here, broken off anywhere and gone on with, and judges that are functions."""

import json
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.cli import main
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError
from tinygrad_llm.text.lessons import lessons
from tinygrad_llm.tuning import labelling
from tinygrad_llm.tuning.assistant import Assistant
from tinygrad_llm.tuning.exercises import all_prompts
from tinygrad_llm.tuning.instruct import instruct
from tinygrad_llm.tuning.labelling import Rankings, agreement, by_person, by_reward, read_order, rows_of, sampler
from tinygrad_llm.tuning.rewards import reward_named

PROMPTS = [{"prompt": f"p{i}", "answer": f"p{i}a"} for i in range(6)]


def answers(place, prompts):
    """Of each prompt an answer that is long and one that is short, in turns."""
    return [[f"{prompt}a", f"{prompt}abc"][:: 1 - 2 * (int(str(prompt)[1:]) % 2)] for prompt in prompts]


def by_length(prompts, completions, **columns):
    return [len(text) for text in completions]


class Person:
    """Types what the script says. "+": the longer answer is better, as shown; "-": the shorter."""

    def __init__(self, script):
        self.script, self.shown = list(script), []

    def show(self, text):
        self.shown.append(text)

    def ask(self):
        if not self.script:
            return None
        word = self.script.pop(0)
        if isinstance(word, type):
            raise word
        if word not in ("+", "-"):
            return word
        told = next(text for text in reversed(self.shown) if "\n1  " in text)
        texts = re.findall(r"^\d  (.+)$", told, re.MULTILINE)
        longer = max(range(len(texts)), key=lambda i: len(texts[i])) + 1
        return str(longer if word == "+" else 3 - longer)


def session(path, script, prompts=PROMPTS, sample=answers, repeat=0.0, seed=1):
    person = Person(script)
    by_person(Rankings(path), prompts, sample, person.ask, person.show, repeat, seed)
    return person


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def longest_is_best(row):
    best = row["responses"][row["ranking"].index(1)]
    return sorted(row["ranking"]) == [1, 2] and len(best) == max(map(len, row["responses"]))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pairs.jsonl"


def test_each_judgement_is_in_the_file_at_once(path):
    written = []

    class Watched(Person):
        def ask(self):
            written.append(len(read(path)) if path.exists() else 0)
            return super().ask()

    person = Watched("++++++")
    by_person(Rankings(path), PROMPTS, answers, person.ask, person.show, 0.0, 1)
    assert written == [0, 1, 2, 3, 4, 5]
    rows = read(path)
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in PROMPTS]
    assert all(set(row) == {"prompt", "responses", "ranking"} and longest_is_best(row) for row in rows)
    assert [row["responses"] for row in rows] == answers(0, [row["prompt"] for row in PROMPTS])


def test_answers_stand_in_random_order():
    firsts = []
    for seed in range(40):

        class Memory(Rankings):
            def __init__(self):
                self.rows = []

        person = Person(["q"])
        by_person(Memory(), PROMPTS, answers, person.ask, person.show, 0.0, seed)
        firsts.append("1  p0abc" in person.shown[0])
    assert 10 < sum(firsts) < 30


def test_what_is_typed(path):
    person = session(path, ["1=2", "", "x", "3", "1 1", "1 2=2", "s", "2 1", "q", "1"])
    rows = read(path)
    assert [row["prompt"] for row in rows] == ["p0", "p2"]  # the second was skipped
    assert rows[0]["ranking"] == [1, 1]
    assert sorted(rows[1]["ranking"]) == [1, 2]
    assert sum("is no order" in text for text in person.shown) == 5
    assert person.script == ["1"]
    session(path, ["+"] * 4)
    assert [row["prompt"] for row in read(path)] == ["p0", "p2", "p1", "p3", "p4", "p5"]
    assert session(path, ["+"]).shown == []


def test_undo_takes_back_and_asks_again(path):
    person = session(path, ["u", "+", "-", "u", "+", "u", "u", "-", "q"])
    assert person.shown[1] == "nothing was judged yet"
    (row,) = read(path)
    assert row["prompt"] == "p0"
    assert not longest_is_best(row)
    person = session(path, ["u", "+", "+", "+", "+", "+", "+"])  # also what a session before judged
    assert [row["prompt"] for row in read(path)] == [row["prompt"] for row in PROMPTS]
    assert all(map(longest_is_best, read(path)))
    assert person.script == []


@given(
    st.lists(st.sampled_from(["+", "+", "-", "1=2", "u", "s", "?"]), max_size=25),
    st.integers(0, 9),
    st.sampled_from([0, 0.5, 1]),
)
def test_the_file_is_always_what_a_list_would_be(tmp_path_factory, script, seed, repeat):
    """A session beside a model of it: stopping anywhere loses nothing, and rows are whole."""
    path = tmp_path_factory.mktemp("s") / "pairs.jsonl"
    done, count = [], 0

    class Checked(Person):
        def ask(self):
            nonlocal count
            if path.exists():
                assert path.read_bytes()[-1:] in (b"", b"\n")
                assert read(path) == Rankings(path).rows
                count = len(read(path))
            done.append(count)
            return super().ask()

    person = Checked(script)
    by_person(Rankings(path), PROMPTS, answers, person.ask, person.show, repeat, seed)
    for word, before, after in zip(script, done, done[1:], strict=False):
        assert after - before == {"u": -1 if before else 0, "s": 0, "?": 0}.get(word, 1)
    rows = read(path) if path.exists() else []
    fresh = [row["prompt"] for row in rows if "repeat" not in row]
    assert len({*fresh}) == len(fresh)
    assert all(row["prompt"] in fresh for row in rows if "repeat" in row)


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt])
def test_stopped_anywhere_and_gone_on_with(path, stop):
    for n in (2, 4):
        with pytest.raises(stop) if stop else nullcontext():
            session(path, ["+", "+", stop])
        assert all(map(longest_is_best, read(path)))
        assert [row["prompt"] for row in read(path)] == [f"p{i}" for i in range(n)]


def test_a_row_written_by_half_is_dropped(path):
    session(path, ["+", "+", "+"])
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[2])):
        path.write_bytes(whole[:-cut])
        rankings = Rankings(path)
        assert rankings.said == [f"{path}: line 3 was written by half, and is dropped"]
        assert len(read(path)) == len(rankings.rows) == 2
    path.write_bytes(whole)
    assert Rankings(path).said == []
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    ["[]", "{}", "3", "{", '{"prompt": "a", "responses": ["b"]}', '{"prompt": "a", "responses": ["b"], "ranking": [1, 2]}',
     '{"prompt": "a", "responses": [1], "ranking": [1]}', '{"prompt": "a", "responses": ["b"], "ranking": ["1"]}',
     '{"responses": ["b"], "ranking": [1]}'],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(path, line):
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match="line 1: no ranking of responses to a prompt") as error:
        Rankings(path)
    assert "\n" not in str(error.value)
    assert path.read_text() == f"{line}\n"


def test_a_prompt_that_stands_there_twice_is_judged_twice(path):
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    session(path, ["+"], prompts)
    assert Rankings(path).left(prompts) == [1, 2]
    session(path, ["+", "+"], prompts)
    assert [row["prompt"] for row in read(path)] == ["p0", "p1", "p0"]


def test_equal_answers_are_shown_once_and_not_asked_about(path):
    def sample(place, prompts):
        return [
            {"p0": ["x", "x", "x"], "p1": ["long", "x", "long"]}.get(prompt, ["x", "yy", "zzz"]) for prompt in prompts
        ]

    person = session(path, ["+", "u", "+", "q"], sample=sample)
    assert "1  " in person.shown[0]
    assert "3  " not in person.shown[0]
    rows = read(path)
    assert [row["ranking"] for row in rows] == [[1, 1, 1], [1, 2, 1]]
    assert "p1" in person.shown[0]
    whole = path.read_bytes()
    session(path, ["u", "q"], sample=sample)  # takes back what was asked about
    assert len(read(path)) == 1
    session(path, ["u", "q"], sample=sample)  # nobody was asked about what is left
    assert path.read_bytes() == whole.splitlines(keepends=True)[0]
    path.write_bytes(b"".join(reversed(whole.splitlines(keepends=True))))
    person = session(
        path, ["u", "u", "+", "q"], sample=sample
    )  # what came after without asking is judged again as well
    assert person.shown[2] == "nothing was judged yet"
    assert [row["prompt"] for row in read(path)] == ["p1", "p0"]


def test_agreement_with_oneself(path):
    session(path, ["+"] * 100, repeat=1.0)
    rows = read(path)
    assert len(rows) == 12
    again = [row for row in rows if row.get("repeat")]
    assert [row["prompt"] for row in again] == [row["prompt"] for row in PROMPTS]
    assert rows.index(again[0]) == 6  # five others between
    assert agreement(rows) == (6, 6)
    assert Rankings(path).left(PROMPTS) == []
    path.unlink()
    session(path, ["+"] * 6 + ["-", "+", "1=2", "-", "+", "+"], repeat=1.0)
    assert agreement(read(path)) == (3, 6)
    path.unlink()
    session(path, ["+"] * 6 + ["-", "u", "+", "+", "+", "+", "+", "+"], repeat=1.0)
    assert agreement(read(path)) == (6, 6)
    path.unlink()
    session(path, ["+", "u"] + ["+"] * 100, repeat=1.0)
    assert len(read(path)) == 12  # what was taken back comes again once, not twice
    path.unlink()
    session(path, ["+"] * 3, [PROMPTS[0]], repeat=1.0)
    assert Rankings(path).left([PROMPTS[0]] * 3) == [1, 2]  # judged again is not judged anew
    assert agreement([]) == (0, 0)
    three = {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [1, 2, 2]}
    assert agreement([three, {**three, "ranking": [1, 2, 3], "repeat": True}]) == (2, 3)


@given(
    st.permutations(range(1, 5)),
    st.lists(st.sampled_from([" ", " = ", "=", ">", ", "]), min_size=3, max_size=3),
    st.integers(1, 4),
)
def test_orders_are_read(order, joints, n_named):
    """Beside a reading that goes from answer to answer."""
    line, rank, expected = str(order[0]), 1, {order[0]: 1}
    for number, joint in list(zip(order[1:], joints, strict=True))[: n_named - 1]:
        rank += "=" not in joint
        line, expected[number] = f"{line}{joint}{number}", rank
    assert read_order(line, 4) == [expected.get(i, rank + 1) for i in range(1, 5)]


@pytest.mark.parametrize("line", ["", "=", "1=", "0", "5", "1 1", "one", "1.0", "-1", "²"])
def test_what_is_no_order(line):
    with pytest.raises(ConfigError, match="is no order: numbers from 1 to 4, each once"):
        read_order(line, 4)


def test_a_reward_judges(path):
    seen = []
    by_reward(Rankings(path), PROMPTS, answers, by_length, report=lambda done, of: seen.append((done, of)))
    assert all(map(longest_is_best, read(path)))
    assert seen == [(6, 6)]
    path.unlink()
    by_reward(Rankings(path), PROMPTS, answers, reward_named("exact"))
    assert [row["responses"][row["ranking"].index(1)] for row in read(path)] == [row["answer"] for row in PROMPTS]
    path.unlink()
    by_reward(Rankings(path), PROMPTS * 50, answers, by_length, noise=0.3)
    assert 0.2 < sum(not longest_is_best(row) for row in read(path)) / 300 < 0.4


def test_a_reward_goes_on_as_if_never_stopped(path, monkeypatch):
    monkeypatch.setattr(labelling, "_BATCH", 2)
    drawn = lambda place, prompts: [[f"{prompt}{place}", "xyz"] for prompt in prompts]  # noqa: E731
    by_reward(Rankings(path), PROMPTS, drawn, by_length, 0.5)
    whole = path.read_bytes()
    for n in (2, 4):
        path.write_bytes(b"".join(whole.splitlines(keepends=True)[:n]))
        by_reward(Rankings(path), PROMPTS, drawn, by_length, 0.5)
        assert path.read_bytes() == whole


def test_prompts_are_lessons_or_a_file(tmp_path):
    def prompts_of(*arguments):
        return rows_of(all_prompts(*arguments))

    made = lessons(5, 3, "train", ["review"])
    expected = [{"prompt": one.instruction, "answer": one.answer, "kind": "review"} for one in made]
    assert prompts_of("review", 3, 5) == expected
    (tale,) = prompts_of("summary", 1)
    assert set(tale["prompt"][0]) == {"role", "content", "input"}
    assert len(prompts_of("upper,last")) == 1000
    file = tmp_path / "p.jsonl"
    dialogue = [{"role": role, "content": "b"} for role in ("user", "assistant", "user")]
    rows = [{"prompt": "a", "level": 1}, {"prompt": dialogue, "level": 2}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prompts_of(file) == rows
    assert prompts_of(file, 1) == rows[:1]
    assert prompts_of(file, 9) == rows
    for content, said in {
        '{"text": "a"}': "has the keys 'text': none of the forms that are known: prompt",
        '{"prompt": 3}': "prompt is 3",
        '{"prompt": [{"role": "cook", "content": "a"}]}': "prompt.*role is 'cook'",
    }.items():
        file.write_text(content)
        with pytest.raises(DataError, match=said):
            prompts_of(file)
    with pytest.raises(DataError, match="reviw: no such file, nor a kind of lessons: these are upper, spell"):
        prompts_of("reviw")


def test_a_question_is_the_same_as_a_text_and_as_a_message(path):
    by_reward(Rankings(path), PROMPTS[:2], answers, by_length)
    as_messages = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in PROMPTS[:3]]
    assert Rankings(path).left(as_messages) == [2]


SMALL = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "epochs": 1, "examples": 60, "kinds": "review", "seed": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "review"
    instruct(out=folder, report=lambda line: None, **SMALL)
    return str(folder)


def test_answers_are_drawn_and_the_same_again(run):
    assistant = Assistant.load(run)
    sample = sampler(assistant, 3, seed=7, max_new_tokens=9)
    prompts = ["Review the film.", [{"role": "user", "content": "Review the opera."}]]
    found = sample(4, prompts)
    assert found == sample(4, prompts) != sample(5, prompts)
    assert [len(some) for some in found] == [3, 3]
    assert len({text for some in found for text in some}) > 3
    assert all(len(text) <= 9 for some in found for text in some)
    (greedy,) = sampler(assistant, 2, temperature=0.0, max_new_tokens=9)(0, prompts[:1])
    one = assistant.answer([{"role": "user", "content": prompts[0]}], 9)
    assert greedy == [one, one]
    assert all(len(text) < 128 for some in sampler(assistant)(0, prompts) for text in some)
    with pytest.raises(ContextLengthError, match=r"prompt 1 has \d+ tokens, the model reads 128"):
        sample(0, ["the film " * 20])
    with pytest.raises(ConfigError, match="n is 1"):
        sampler(assistant, 1)


def test_the_command_with_a_reward(run, path, capsys):
    command = ["prefer", "label", run, "--prompts", "review", "--examples", "40", "--out", str(path), "--by", "reviews"]
    command += ["--n", "3", "--max-new-tokens", "20", "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "40 of 40 prompts" in err
    rows = read(path)
    assert {key: found[key] for key in ("out", "judged", "rows", "left", "judged_twice", "agreement")} == {
        "out": str(path), "judged": 40, "rows": 40, "left": 0, "judged_twice": 0, "agreement": None,
    }  # fmt: skip
    assert found["all_equal"] == sum(len({*row["ranking"]}) == 1 for row in rows)
    assert all(len(row["responses"]) == 3 for row in rows)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:33]) + b'{"prom')
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "line 34 was written by half, and is dropped" in err
    assert json.loads(out)["judged"] == 7
    assert [row["prompt"] for row in read(path)] == [row["prompt"] for row in rows]


def test_the_command_with_a_person(run, path, capsys, monkeypatch):
    hostile = "bad\x1b[31m \x07red\u202e\n2  so it seems"
    monkeypatch.setattr(
        labelling,
        "roll_out",
        lambda model, tok, template, asked, *how, **options: SimpleNamespace(
            answers=[hostile, "ok"] * (len(asked) // 2)
        ),
    )
    lines = iter(["1 2", "2", "u", "1=2"])
    monkeypatch.setattr("tinygrad_llm.cli.prefer.read_line", lambda: next(lines, None))
    command = ["prefer", "label", run, "--prompts", "review", "--examples", "3", "--out", str(path), "--repeat", "0"]
    assert main(command) == 0
    out, _ = capsys.readouterr()
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert "bad[31m red\n   2  so it seems" in out
    assert f"{path}: 2 rows, 2 of them new; all equal in 1; 1 prompts are left" in out
    assert read(path)[0]["responses"] == [hostile, "ok"]

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("tinygrad_llm.cli.prefer.read_line", interrupt)
    assert main([*command, "--json"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["left"] == 1
    assert "1 prompts. " in err


def test_what_cannot_be(run, path, capsys):
    command = ["prefer", "label", run, "--prompts", "review", "--out", str(path)]
    for more, said in {
        "--noise 0.1": "--noise 0.1 is for --by",
        "--by exakt": "did you mean exact?",
        "--n 1": "n is 1: it must be an integer, 2 or more",
        "--examples -1": "examples is -1",
        "--repeat 2": "repeat is 2.0: it must be a number from 0 to 1",
        "--by reviews --noise 2": "noise is 2.0",
    }.items():
        assert main([*command, *more.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert said in line
    with pytest.raises(SystemExit):
        main([*command, "--temprature", "1"])
    assert "did you mean --temperature?" in capsys.readouterr().err
    assert not path.exists()
