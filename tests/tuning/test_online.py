"""PPO and GRPO as runs: answers as a plain loop draws them, the first step, resuming to the bit, bad input."""

import json
import sys

import numpy as np
import pytest
from stopping import StopAfter

from tinygrad_llm import parallel
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, ContextLengthError, DataError
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs.folder import load_config, load_run
from tinygrad_llm.tuning import grpo, ppo
from tinygrad_llm.tuning.assistant import Assistant
from tinygrad_llm.tuning.feedback import open_base
from tinygrad_llm.tuning.instruct import instruct
from tinygrad_llm.tuning.online import OnlineTask
from tinygrad_llm.tuning.rollouts import roll_out, token_values
from tinygrad_llm.tuning.sequences import token_logprobs

WORDS = ["pea", "tea", "oak", "ash", "ivy", "fig", "yew", "elm", "rye", "hop"]
SAID = ["pea", "tea", "oak", "maple"]
PPO = {
    "epochs": 3,
    "rollouts": 16,
    "batch_size": 8,
    "max_new_tokens": 6,
    "eval_answers": 4,
    "eval_every": 5,
    "lr": 3e-3,
}
GRPO = {**PPO, "group": 4}


def quiet(line):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that answers with a word, which is not yet the right one."""
    folder = tmp_path_factory.mktemp("base")
    rows = [{"prompt": f"Say {word}", "completion": other} for word in WORDS for other in SAID]
    (folder / "a.json").write_text(json.dumps(rows))
    sizes = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "context_length": 24, "epochs": 40, "lr": 1e-2}
    instruct(folder / "a.json", out=folder / "run", report=quiet, batch_size=8, **sizes)
    return folder / "run"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {word}", "answer": word}) + "\n" for word in WORDS))
    return path


@pytest.fixture
def rewards(tmp_path, monkeypatch):
    """A module with rewards of one's own."""
    (tmp_path / "own_rewards.py").write_text(
        "def begins_with_t(prompts, completions, **columns):\n    return [float(c.startswith('t')) for c in completions]\n"
        "def broken(prompts, completions, **columns):\n    return [float('nan') for _ in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    return "own_rewards:begins_with_t"


def asked(word):
    return [{"role": "user", "content": f"Say {word}"}]


# ---- answers that are drawn


def test_what_is_drawn_is_what_a_plain_loop_says_of_it(base):
    model, tokenizer, template = open_base(base)
    drawn = roll_out(model, tokenizer, template, [asked(word) for word in WORDS], 4, 0.7, rng=Generator(3).spawn())
    end = template.end_id(tokenizer)
    assert drawn.ended.any()
    assert not drawn.ended.all()
    for i, word in enumerate(WORDS):
        prompt, _ = template.encode(tokenizer, asked(word), generation_prompt=True)
        new = drawn.ids[i, len(prompt) :][: drawn.lengths[i]].tolist()
        assert drawn.ids[i, : len(prompt)].tolist() == prompt
        np.testing.assert_array_equal(
            np.flatnonzero(drawn.mask[i]), np.arange(len(prompt) - 1, len(prompt) - 1 + len(new))
        )
        assert drawn.last[i] == len(prompt) + len(new) - 2
        assert drawn.ended[i] == (new[-1] == end)
        assert end not in new[:-1]
        assert drawn.ended[i] or len(new) == 4
        assert tokenizer.decode(new[:-1] if drawn.ended[i] else new) == drawn.answers[i]
        for k, token in enumerate(new):
            logits = model(np.array([prompt + new[:k]])).data[0, -1].astype(np.float64) / 0.7
            expected = logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            assert drawn.sampled[i, len(prompt) - 1 + k] == pytest.approx(expected, abs=1e-5)
    again = token_values(lambda ids: token_logprobs(model, ids, 0.7).data, drawn.ids)
    np.testing.assert_allclose(np.where(drawn.mask, again, 0), drawn.sampled, atol=1e-5)


def test_rows_without_a_token_are_not_drawn_and_part_no_probabilities(base):
    model, tokenizer, template = open_base(base)
    model.resize_vocabulary(tokenizer.vocab_size + 30)
    drawn = roll_out(model, tokenizer, template, [asked(word) for word in WORDS], 4, rng=Generator(3).spawn())
    assert drawn.ids.max() < tokenizer.vocab_size
    again = token_values(lambda ids: token_logprobs(model, ids).data, drawn.ids)
    np.testing.assert_allclose(np.where(drawn.mask, again, 0), drawn.sampled, atol=1e-5)


def test_answers_do_not_depend_on_threads(base, monkeypatch):
    model, tokenizer, template = open_base(base)
    many = [asked(WORDS[i % 10]) for i in range(70)]
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("TINYGRAD_LLM_THREADS", threads)
        found.append(roll_out(model, tokenizer, template, many, 5, rng=Generator(1).spawn()))
    assert found[0].answers == found[1].answers
    np.testing.assert_array_equal(found[0].sampled, found[1].sampled)
    assert parallel.available() == 1


def test_a_prompt_without_room_for_an_answer(base):
    model, tokenizer, template = open_base(base)
    long = asked("y" * 30)
    n = len(template.encode(tokenizer, long, generation_prompt=True)[0])
    with pytest.raises(ContextLengthError, match=f"prompt 2 has {n} tokens, the model reads 24"):
        roll_out(model, tokenizer, template, [asked("pea"), long], 4, rng=Generator(1).spawn())


# ---- runs


def steps_of(monkeypatch):
    """Every step's stats, as they come to be known."""
    kept, end_step = [], OnlineTask._end_step

    def spy(self):
        n = len(self.steps)
        end_step(self)
        kept.extend(self.steps[n:])

    monkeypatch.setattr(OnlineTask, "_end_step", spy)
    return kept


def test_ppo_learns_what_is_rewarded(base, prompts, rewards, tmp_path, monkeypatch):
    kept = steps_of(monkeypatch)
    result = ppo.train(
        prompts,
        init_from=base,
        reward=rewards,
        out=tmp_path / "run",
        report=quiet,
        **PPO | {"epochs": 12, "beta": 0.01},
    )
    summary = json.loads(json.dumps(result.summary()))
    assert summary["after"]["reward"] > summary["before"]["reward"] + 0.3
    assert summary["before"]["kl"] == pytest.approx(0, abs=1e-5)
    assert summary["after"]["kl"] > 0.1
    first = kept[0]
    assert (first["clipfrac"], first["approxkl"]) == (0, pytest.approx(0, abs=1e-9))
    assert first["ratio"] == pytest.approx(1, abs=1e-5)
    assert any(step["clipfrac"] > 0 for step in kept)
    row = result.finished.metrics[-1]
    assert row["val/logprob_difference"] < 1e-5
    assert row["objective/non_score_reward"] == pytest.approx(-0.01 * row["objective/kl"])
    for name in ("policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/ratio"):
        assert np.isfinite(row[name]), name
    told = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert {len(told), *(len(row) for row in told)} == {16, 4}
    assert isinstance(Assistant.load(tmp_path / "run").answer(asked("pea"), 6), str)
    assert load_run(tmp_path / "run")[0].classes is None


def test_grpo_learns_what_is_right(base, prompts, tmp_path, monkeypatch):
    kept = steps_of(monkeypatch)
    options = GRPO | {
        "rollouts": 64,
        "batch_size": 64,
        "group": 8,
        "epochs": 30,
        "eval_answers": 8,
        "lr": 1e-2,
        "loss": "grpo",
    }
    result = grpo.train(prompts, init_from=base, reward="exact", out=tmp_path / "run", report=quiet, **options)
    row = result.finished.metrics[-1]
    assert row["reward"] > result.finished.metrics[1]["reward"] + 0.1
    assert 0 <= row["frac_reward_zero_std"] <= 1
    assert kept[0]["clip_ratio"] == 0
    assert result.summary()["after"]["kl"] == row["eval/kl"] > 0.1


@pytest.mark.parametrize(
    ("learn", "options"),
    [
        (ppo, PPO),
        (
            ppo,
            PPO | {"target_kl": 1.0, "horizon": 50.0, "whiten_rewards": True, "unbiased": True, "kl_estimator": "k3"},
        ),
        (ppo, PPO | {"lora": "r=2", "accumulate": 4}),
        (grpo, GRPO),
        (grpo, GRPO | {"beta": 0.1, "iterations": 2, "loss": "dr_grpo", "scale": False}),
        (grpo, GRPO | {"loss": "bnpo", "beta": 0.1}),
    ],
)
@pytest.mark.parametrize("stop", [5, 8])  # within a round, at its end
def test_a_run_that_was_interrupted_ends_with_the_same_bits(learn, options, stop, base, prompts, tmp_path):
    chosen = {"init_from": base, "reward": "exact", "report": quiet, "save_every": 3, **options, "epochs": 4}
    whole = learn.train(prompts, out=tmp_path / "whole", **chosen)
    with pytest.raises(KeyboardInterrupt):
        learn.train(prompts, out=tmp_path / "cut", loggers=[StopAfter(stop)], **chosen)
    resumed = learn.resume(tmp_path / "cut", report=quiet)
    for file in ("metrics.jsonl", "samples.txt", "answers.jsonl", "model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert resumed.summary()["after"] == whole.summary()["after"]


def test_conversations_that_are_not_to_be_forgotten(base, prompts, tmp_path):
    rows = [{"prompt": f"Say {word}", "completion": word} for word in WORDS]
    (tmp_path / "beside.json").write_text(json.dumps(rows))
    options = PPO | {"ptx": str(tmp_path / "beside.json"), "ptx_coef": 10.0, "epochs": 6, "lr": 1e-2, "vf_coef": 0.0}

    def nothing_else(more):
        run = ppo.train(
            prompts, init_from=base, reward="exact", out=tmp_path / str(len(more)), report=quiet, **options | more
        )
        model, tokenizer = load_run(run.finished.folder)
        template = open_base(base).template
        losses = []
        for row in rows:
            ids, is_answer = template.encode(
                tokenizer, [*asked(row["completion"]), {"role": "assistant", "content": row["completion"]}]
            )
            logprobs = token_logprobs(model, np.array([ids])).data[0]
            losses.append(-logprobs[np.array(is_answer[1:])].mean())
        return np.mean(losses)

    assert nothing_else({}) < nothing_else({"ptx": "", "ptx_coef": 1.0}) - 0.2


def test_the_record_tells_the_policy_from_its_value(base, prompts, tmp_path):
    ppo.train(prompts, init_from=base, reward="exact", out=tmp_path / "run", report=quiet, **PPO | {"epochs": 1})
    config = load_config(tmp_path / "run")
    assert config["value"]["head"]["classes"] == ["score"]
    assert config["template"]["name"] == "plain"
    assert config["training"]["reference"] == str(base)
    assert config["task"] == "ppo"


# ---- what is beside a run, and what cannot be


def test_a_reference_that_changed(base, prompts, tmp_path):
    reference = tmp_path / "reference"
    small = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "epochs": 1, "batch_size": 8, "report": quiet}
    rows = [{"prompt": f"Say {word}", "completion": other} for word in WORDS for other in SAID]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    instruct(tmp_path / "a.json", out=reference, **small)
    options = PPO | {"init_from": base, "reward": "exact", "reference": str(reference), "report": quiet}
    with pytest.raises(KeyboardInterrupt):
        ppo.train(prompts, out=tmp_path / "run", loggers=[StopAfter(3)], **options)
    instruct(tmp_path / "a.json", out=reference, **small | {"seed": 5})
    with pytest.raises(CheckpointError, match="not the weights any more that this run began with, as its reference"):
        ppo.resume(tmp_path / "run", report=quiet)


def test_a_reference_of_another_tokenizer(base, prompts, tmp_path):
    instruct(
        out=tmp_path / "other", emb_dim=16, n_heads=2, n_layers=1, epochs=1, examples=40, kinds="upper", report=quiet
    )
    with pytest.raises(ConfigError, match=r"tokens are not the \d+ of what learns"):
        ppo.train(
            prompts, init_from=base, reward="exact", reference=str(tmp_path / "other"), out=tmp_path / "run", **PPO
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reward": "own_rewards:broken"}, DataError, "completion 0 has nan: it must be a finite number"),
        ({"reward": "own_rewards:absent"}, ConfigError, "no such function"),
        ({"reward": "gone"}, ConfigError, "reward is 'gone'"),
        ({"temperature": 0.0}, ConfigError, "temperature"),
        ({"group": 1}, ConfigError, "group"),
        ({"group": 3}, ConfigError, "rollouts is 16 and group is 3"),
        ({"kl_estimator": "k4"}, ConfigError, "k1, k2, k3"),
        ({"emb_dim": 32}, ConfigError, "emb_dim is 32: with init_from it is that of the weights"),
        ({"template": "chatml"}, ConfigError, "was taught in 'plain'"),
    ],
)
def test_what_cannot_be(options, error, message, base, prompts, rewards, tmp_path):
    learn, common = (grpo, GRPO) if "group" in options else (ppo, PPO)
    with pytest.raises(error, match=message):
        learn.train(
            prompts,
            out=tmp_path / "run",
            **{"init_from": base, "reward": rewards, "report": quiet, **common, **options},
        )


def test_what_stays_in_a_resumed_run(base, prompts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ppo.train(
            prompts, init_from=base, reward="exact", out=tmp_path / "run", report=quiet, loggers=[StopAfter(3)], **PPO
        )
    for change in ({"reward": "reviews"}, {"rollouts": 32}, {"temperature": 0.5}):
        with pytest.raises(ConfigMismatch, match=next(iter(change))):
            ppo.resume(tmp_path / "run", report=quiet, **change)
    prompts_before = prompts.read_bytes()
    try:
        prompts.write_text(prompts.read_text().replace("pea", "ape"))
        with pytest.raises(DataError, match="not the texts any more"):
            ppo.resume(tmp_path / "run", report=quiet)
    finally:
        prompts.write_bytes(prompts_before)
