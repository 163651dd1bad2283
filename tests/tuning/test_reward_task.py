"""A reward model's training: a rule that is learned, what a prompt weighs, scores beside a loop, their scale, resuming."""

import json
import shutil

import numpy as np
import pytest
from preferring import assistant, pairs, quiet
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, TokenizerError
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.runs.folder import save_model
from tinygrad_llm.tuning import dpo, reward
from tinygrad_llm.tuning.exercises import preferences_of
from tinygrad_llm.tuning.feedback import open_base, open_reference
from tinygrad_llm.tuning.instruct import instruct
from tinygrad_llm.tuning.options import RewardOptions
from tinygrad_llm.tuning.rollouts import roll_out

OPTIONS = {"epochs": 8, "lr": 3e-3, "batch_size": 16, "report": quiet, "eval_every": 10, "save_every": 4}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    assistant(folder)
    pairs(folder / "pairs.jsonl", 300)
    pairs(folder / "rankings.jsonl", 60, 4)
    return folder


@pytest.fixture(scope="module")
def run(here):
    return reward.train(here / "pairs.jsonl", init_from=here / "assistant", out=here / "run", center=0.01, **OPTIONS)


def task_of(here, data, **options):
    base = open_base(here / "assistant")
    sizes = {name: getattr(base.model.config, name) for name in ("context_length", "emb_dim", "n_heads", "n_layers")}
    chosen = RewardOptions(**RewardOptions.defaults(True) | sizes | {"lr": 1e-3} | options)
    return reward.RewardTask(*preferences_of(here / data, chosen), chosen, base.tokenizer, base.template)


def test_longer_is_better(run):
    assert run.accuracy > 0.9
    assert run.margin > 1
    assert run.finished.metrics[0]["val_accuracy"] < run.accuracy
    told = json.loads(json.dumps(run.summary()))
    assert told["pairs"] == 30
    assert sum(row["n"] for row in told["calibration"]) == 30
    assert all(0.5 <= row["expected"] <= 1 for row in told["calibration"])
    prompt = [{"role": "user", "content": "Say ab"}]
    scores = reward.RewardModel.load(run.finished.folder).scores([prompt] * 3, ["a", "abc", "abcabc"])
    assert scores[0] < scores[1] < scores[2]


def test_scores_are_those_of_a_loop(here, run):
    """One row after the other, by the head on the features of the last token."""
    found = reward.RewardModel.load(run.finished.folder)
    rng = np.random.default_rng(3)
    prompts, answers = [], []
    for i in range(40):
        prompts.append([{"role": "user", "content": "Say " + "".join(rng.choice(list("abcd"), i % 5))}])
        answers.append("".join(rng.choice(list("abcd"), i % 23)))
    expected = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, _ = found.template.encode(found.tokenizer, prompt, generation_prompt=True)
        ids = [*ids, *found.tokenizer.encode(answer), found.template.end_id(found.tokenizer)][-32:]
        with tg.no_grad():
            expected.append(float(found.model(np.array([ids])).data[0, -1, 0]))
    np.testing.assert_allclose(found.scores(prompts, answers), expected, atol=1e-5)
    assert found([prompt[0]["content"] for prompt in prompts[:2]], answers[:2]) == pytest.approx(expected[:2], abs=1e-5)
    assert found.scores([], []).shape == (0,)


def test_scores_have_mean_0_and_spread_1_on_what_it_began_from_answers(here, run):
    base = open_base(here / "assistant")
    task = task_of(here, "pairs.jsonl", **{k: v for k, v in OPTIONS.items() if k != "report"}, max_steps=0)
    rows = [*task.train, *task.validation]
    prompts = [rows[i % len(rows)].prompt for i in range(256)]
    found = reward.RewardModel.load(run.finished.folder)
    room = task.max_length - min(len(base.template.encode(base.tokenizer, one, True)[0]) for one in prompts)
    drawn = roll_out(base.model, base.tokenizer, base.template, prompts, room, rng=Generator(123).spawn())
    scores = found.scores(drawn.prompts, drawn.answers)
    assert scores.mean() == pytest.approx(0, abs=1e-4)
    assert scores.std() == pytest.approx(1, abs=1e-4)
    other = roll_out(base.model, base.tokenizer, base.template, prompts, room, rng=Generator(9).spawn())
    assert abs(found.scores(other.prompts, other.answers).mean()) < 0.3  # not only on those


def test_a_prompt_weighs_once_however_many_answers_it_has(here):
    task = task_of(here, "rankings.jsonl")
    base = open_base(here / "assistant")
    assert [len(row.pairs) for row in task.train[:3]] == [6, 6, 6]
    model = reward.add_score(base.model, rng=Generator(1)).eval()
    mixed = [task.train[0], task.train[1]]
    mixed[1] = type(mixed[1])(mixed[1].prompt, mixed[1].answers[:2], mixed[1].pairs[:1], [0.0])
    mixed[1].pairs[0] = (0, 1)
    task.rows[id(mixed[1])] = task._encode(mixed[1])
    batch = task.batch(mixed)
    assert batch[-1].sum(1) == pytest.approx([0.5, 0.5])
    losses = []
    for row in mixed:
        scores = reward.score_rows(model, task.rows[id(row)])
        losses.append(np.mean([np.logaddexp(0, scores[j] - scores[i]) for i, j in row.pairs]))
    assert task.loss(model, *batch).item() == pytest.approx(np.mean(losses), rel=1e-5)
    parts = [task.loss(model, *(array[i : i + 1] for array in batch)).item() for i in range(2)]
    assert sum(parts) == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_epoch_reads_every_prompt_once(here):
    task = task_of(here, "rankings.jsonl", batch_size=10)
    with use_generator(Generator(1)):
        batches = list(task.epoch(None))
    assert [len(batch[0]) for batch in batches] == [10, 10, 10, 10, 8]
    read = sorted(
        row[0][:length].tolist() for ids, lengths, *_ in batches for row, length in zip(ids, lengths[:, 0], strict=True)
    )
    assert read == sorted(task.rows[id(row)][0] for row in task.train)


@pytest.mark.parametrize("options", [{}, {"lora": "r=2", "center": 0.01, "data": "rankings.jsonl"}])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(here, tmp_path, options):
    data = here / options.pop("data", "pairs.jsonl")
    chosen = OPTIONS | {"init_from": here / "assistant", "epochs": 2} | options
    whole = reward.train(data, out=tmp_path / "whole", **chosen)
    with pytest.raises(KeyboardInterrupt):
        reward.train(data, out=tmp_path / "cut", loggers=[StopAfter(5)], **chosen)
    resumed = reward.resume(tmp_path / "cut", report=quiet)
    for name in ("metrics.jsonl", "samples.txt", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert resumed.differences.tobytes() == whole.differences.tobytes()
    assert resumed.scale == whole.scale
    if "lora" in options:  # what is new learns as a whole
        assert "out_head" in json.loads((tmp_path / "whole" / "config.json").read_text())["lora"]["whole"]


def test_a_reference_that_reads_other_tokens_or_has_changed(here, tmp_path):
    sizes = {"emb_dim": 8, "n_layers": 1, "n_heads": 1}
    instruct(out=tmp_path / "other", report=quiet, kinds="upper", examples=40, epochs=1, **sizes)
    shutil.copytree(here / "assistant", tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"reference is .* tokens are not the"):
        reward.train(here / "pairs.jsonl", init_from=here / "assistant", reference=str(tmp_path / "other"), **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        reward.train(
            here / "pairs.jsonl", init_from=tmp_path / "copy", out=tmp_path / "cut", loggers=[StopAfter(5)], **OPTIONS
        )
    with pytest.raises(ConfigMismatch, match="reference"):
        reward.resume(tmp_path / "cut", report=quiet, reference="other")
    model = open_reference(here / "assistant", open_base(here / "assistant").tokenizer)
    model.out_head.weight.data = model.out_head.weight.data * 2
    save_model(tmp_path / "copy", model)
    with pytest.raises(CheckpointError, match=f"{tmp_path / 'copy'}: not the weights any more .* as its reference"):
        reward.resume(tmp_path / "cut", report=quiet)


def test_what_is_no_reward_model(here):
    for path, message in (
        (here / "assistant", "not a reward model, it gives no score: tinygrad-llm prefer reward makes one"),
        (here, "not a run: tinygrad-llm prefer reward makes one"),
    ):
        with pytest.raises(CheckpointError, match=message):
            reward.open_reward(str(path))


def test_prompts_without_room_for_an_answer_are_read_from_their_end(here, tmp_path):
    context = open_base(here / "assistant").model.config.context_length
    rows = [{"prompt": "a" * (2 * context), "chosen": "bb", "rejected": "a"} for _ in range(20)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = []
    result = reward.train(
        tmp_path / "long.jsonl", init_from=here / "assistant", out=tmp_path / "run", report=lines.append, epochs=1
    )
    assert any(f"40 prompts with an answer are longer than {context} tokens" in line for line in lines)
    assert result.scale is None
    assert any("not brought to mean 0" in line for line in lines)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_what_cannot_be_encoded_is_named_by_its_prompt(here, tmp_path):
    rows = [{"prompt": f"a{'b' * i}", "chosen": "\u4e2d" if i == 3 else "bb", "rejected": "a"} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for learn in (reward, dpo):
        with pytest.raises(TokenizerError, match=r"prompt 'abbb': .*not among"):
            learn.train(
                tmp_path / "a.jsonl", init_from=here / "assistant", out=tmp_path / "run", report=lambda line: None
            )


def test_a_reward_model_writes_nothing(run):
    with pytest.raises(CheckpointError, match="a reward model, which writes no text"):
        open_base(run.finished.folder)
