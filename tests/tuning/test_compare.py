"""The best of many answers, two models beside each other, and pairs told apart: beside counts, with judges that are functions."""

import json
import math

import numpy as np
import pytest
from preferring import assistant, by_length, pairs, quiet

from tinygrad_llm.errors import CheckpointError, ConfigError, DataError
from tinygrad_llm.evaluation.answers import wilson_interval
from tinygrad_llm.evaluation.pairs import PairScores
from tinygrad_llm.tuning import compare as module
from tinygrad_llm.tuning import dpo, reward
from tinygrad_llm.tuning.assistant import Assistant
from tinygrad_llm.tuning.compare import best_of, compare, compare_by_endpoint, evaluate_pairs
from tinygrad_llm.tuning.preferences import Prompts

QUICK = {"epochs": 1, "batch_size": 16, "report": quiet}
N = 30
PROMPTS = Prompts(
    [[{"role": "user", "content": f"Say {'abcd'[i % 4]}"}] for i in range(N)],
    {"answer": [str(i) for i in range(N)]},
    [f"row {i}" for i in range(N)],
    [],
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    assistant(folder)
    pairs(folder / "pairs.jsonl", 100)
    reward.train(folder / "pairs.jsonl", init_from=folder / "assistant", out=folder / "reward", **QUICK)
    dpo.train(folder / "pairs.jsonl", init_from=folder / "assistant", out=folder / "dpo", lr=1e-3, **QUICK)
    return folder


@pytest.fixture(scope="module")
def one(here):
    return Assistant.load(here / "assistant")


def test_the_best_of_many(one):
    asked = []

    def judge(prompts, completions, answer):
        asked.extend(zip([prompt[-1]["content"] for prompt in prompts], answer, strict=True))
        return [-float(len(text)) for text in completions]

    found = best_of(one, PROMPTS, by_length, 5, judge=judge, max_new_tokens=8)
    assert found.rewards.shape == found.judged.shape == (N, 5)
    assert [len(answer) for answer in found.answers] == found.rewards.max(1).tolist()
    assert asked == [(f"Say {'abcd'[i % 4]}", str(i)) for i in range(N) for _ in range(5)]
    told = json.loads(json.dumps(found.summary()))
    assert told["one"]["reward"] == pytest.approx(found.rewards.mean())
    assert told["best"]["reward"] == pytest.approx(found.rewards.max(1).mean()) == -told["best"]["judged"]
    std = found.rewards.max(1).std(ddof=1)
    assert told["best"]["reward_interval"] == pytest.approx(1.959964 * std / math.sqrt(N), rel=1e-5)
    assert best_of(one, PROMPTS, by_length, 5, max_new_tokens=8).answers == found.answers
    assert best_of(one, PROMPTS, by_length, 1, max_new_tokens=8).summary()["n"] == 1
    assert any("best of 5" in line for line in found.lines())
    with pytest.raises(ConfigError, match="n is 0"):
        best_of(one, PROMPTS, by_length, 0)


def test_a_model_beside_itself_wins_half(one):
    found = compare(one, one, PROMPTS, by_length, max_new_tokens=8)
    assert found.answers != [[a, a] for a, _ in found.answers]  # each has random numbers of its own
    told = json.loads(json.dumps(found.summary()))
    assert told["wins"] + told["ties"] + told["losses"] == N
    assert told["win_rate"] == (told["wins"] + told["ties"] / 2) / N
    assert told["interval"] == pytest.approx(wilson_interval(told["wins"] + told["ties"] / 2, N))
    assert told["interval"][0] < 0.5 < told["interval"][1]
    lengths = np.array([[len(text) for text in some] for some in found.answers])
    assert told["means"] == pytest.approx(lengths.mean(0).tolist())
    assert found.outcomes == [0.5 + 0.5 * np.sign(a - b) for a, b in lengths]
    greedy = compare(one, one, PROMPTS, by_length, max_new_tokens=8, temperature=0.0)
    assert greedy.outcomes == [0.5] * N
    assert any("win rate 0.500" in line for line in greedy.lines())


def test_the_judge_is_not_shown_whose_answers_are_whose(one, monkeypatch):
    drawn = iter([[["a"]] * N, [["b"]] * N])
    monkeypatch.setattr(module, "answers_of", lambda *arguments: next(drawn))
    seen = []

    def judge(prompts, completions, answer):
        seen.extend(zip(completions, answer, strict=True))
        return [float(text == "a") for text in completions]

    assert compare(one, one, PROMPTS, judge).outcomes == [1.0] * N
    order = "".join(text for text, _ in seen)
    assert order.count("a") == order.count("b") == N
    assert "ab" in order
    assert "ba" in order
    assert order not in ("ab" * N, "ba" * N, "a" * N + "b" * N)
    assert sorted(seen) == sorted((text, str(i)) for i in range(N) for text in "ab")  # columns go with their prompts


def test_an_endpoint_judges(one, monkeypatch):
    outcomes = iter([1.0, 0.5, None, 0.0] * N)

    def prefer(questions, first, second, *, url, model, report):
        assert (len(questions), len(first), len(second), url, model) == (N, N, N, "http://x", "m")
        return [next(outcomes) for _ in questions]

    monkeypatch.setattr(module, "prefer", prefer)
    told = compare_by_endpoint(one, one, PROMPTS, url="http://x", model="m", max_new_tokens=4).summary()
    assert (told["wins"], told["ties"], told["losses"], told["unparsed"]) == (8, 8, 7, 7)
    assert told["win_rate"] == pytest.approx((8 + 4) / 23)
    monkeypatch.setattr(module, "prefer", lambda questions, *pair, **options: [None] * len(questions))
    nothing = compare_by_endpoint(one, one, PROMPTS, url="http://x", model="m", max_new_tokens=4)
    assert nothing.win_rate is None
    assert nothing.summary()["interval"] is None
    assert "no verdict" in nothing.lines()[0]


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_pairs_told_apart(here, kind, tmp_path):
    name, found = evaluate_pairs(here / kind)
    assert name == "the pairs kept for testing"
    assert len(found.differences) == 10
    with open(here / kind / "metrics.jsonl") as file:
        last = json.loads(file.readlines()[-1])
    margins = "margin" if kind == "reward" else "rewards/margins"
    (tmp_path / "validation.jsonl").write_text("".join((here / "pairs.jsonl").read_text().splitlines(True)[-10:]))
    name, found = evaluate_pairs(here / kind, tmp_path / "validation.jsonl")
    scale = 1.0
    if kind == "reward":  # recorded before scores were brought to mean 0 and spread 1
        head = [
            reward.RewardModel.load(here / kind, c).model.out_head.weight.data[0, 0] for c in ("last", last["step"])
        ]
        scale = head[0] / head[1]
    assert found.margin == pytest.approx(last[margins] * scale, rel=1e-3, abs=1e-4)
    (tmp_path / "none.jsonl").write_text('{"prompt": "a"}')
    with pytest.raises(DataError, match="none of the forms"):
        evaluate_pairs(here / kind, tmp_path / "none.jsonl")


def test_pairs_need_a_run_of_reward_or_dpo(here):
    with pytest.raises(CheckpointError, match="task is 'instruct': pairs are for one of reward, dpo"):
        evaluate_pairs(here / "assistant")


def test_scores_of_pairs():
    scores = PairScores(np.array([2.0, -1.0, 0.0, 3.0, 0.5, 0.5, 4.0]))
    assert scores.accuracy == 5 / 7
    assert scores.margin == pytest.approx(9 / 7)
    bins = scores.calibration()
    assert [row["n"] for row in bins] == [2, 2, 1, 1, 1]
    assert bins[0]["right"] == 0.5  # a tie is not in order
    assert bins[-1]["expected"] == pytest.approx(1 / (1 + math.exp(-4)))
    assert scores.to_dict()["accuracy_interval"] == list(wilson_interval(5, 7))
    assert PairScores(np.array([1.0])).calibration()[0]["n"] == 1
