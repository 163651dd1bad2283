"""DPO: the losses' start, symmetry, gradients; the task beside a plain loop, resumed, ended early; bad input."""

import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preferring import assistant, pairs, quiet
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, CorruptCheckpoint, DataError, ShapeError
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.runs.folder import load_config, load_run, resume_command
from tinygrad_llm.testing import gradcheck
from tinygrad_llm.tuning import dpo, reward
from tinygrad_llm.tuning.assistant import Assistant
from tinygrad_llm.tuning.exercises import preferences_of
from tinygrad_llm.tuning.feedback import open_base
from tinygrad_llm.tuning.instruct import instruct
from tinygrad_llm.tuning.options import DPOOptions

REF = np.array([-12.5, -3.25, -40.0])
CHOSEN, REJECTED = np.array([-10.0, -5.0, -40.0]), np.array([-13.0, -2.0, -39.0])
numbers = st.lists(st.floats(-60, 0), min_size=4, max_size=4).map(lambda x: np.array(x)[:, None])
betas = st.floats(0.01, 5)
SIZES = {"context_length": 32, "emb_dim": 16, "n_heads": 2, "n_layers": 1, "lr": 1e-3}


def losses(*arguments, **options):
    return dpo.loss(*arguments, **options)[0].data


def test_the_start_is_ln_2():
    """Where the model is the reference, whatever the pairs are, and whichever of both answers is chosen."""
    found, chosen, rejected = dpo.loss(CHOSEN, REJECTED, CHOSEN, REJECTED, beta=0.1)
    np.testing.assert_allclose(found.data, math.log(2), rtol=1e-15)
    assert not chosen.any()
    assert not rejected.any()
    np.testing.assert_allclose(losses(CHOSEN, REJECTED, CHOSEN, REJECTED, 0.5, "ipo"), 1)
    np.testing.assert_allclose(losses(CHOSEN, REJECTED, CHOSEN, REJECTED, 0.5, "hinge"), 1)


def test_rewards_have_beta_and_no_graph():
    chosen = tg.Tensor(CHOSEN, requires_grad=True)
    found, better, worse = dpo.loss(chosen, REJECTED, REF, REF, beta=0.5)
    np.testing.assert_allclose(better, 0.5 * (CHOSEN - REF))
    np.testing.assert_allclose(worse, 0.5 * (REJECTED - REF))
    assert type(better) is type(worse) is np.ndarray
    assert found.shape == (3,)
    assert found.requires_grad


@given(numbers, betas)
def test_the_two_orders_of_a_pair_are_two_sides_of_one_probability(x, beta):
    chosen, rejected, ref_chosen, ref_rejected = x
    right = losses(chosen, rejected, ref_chosen, ref_rejected, beta)
    wrong = losses(rejected, chosen, ref_rejected, ref_chosen, beta)
    h = chosen - ref_chosen - rejected + ref_rejected
    np.testing.assert_allclose(np.exp(-right) + np.exp(-wrong), 1, rtol=1e-12)
    np.testing.assert_allclose(wrong - right, beta * h, rtol=1e-9, atol=1e-9)
    # smoothed, as often right as wrong in a half: the same whichever is chosen
    halves = losses(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing=0.5)
    np.testing.assert_allclose(halves, (right + wrong) / 2, rtol=1e-12)


@given(numbers, betas, st.floats(0, 0.45))
def test_robust_undoes_wrong_labels(x, beta, eps):
    """In the mean over labels of which ε are wrong, it is the loss of the right ones (Chowdhury et al. 2024, lemma 3.1)."""
    pi, ref = x[:2], x[2:]
    right = losses(*pi, *ref, beta, "robust", eps)
    wrong = losses(*pi[::-1], *ref[::-1], beta, "robust", eps)
    np.testing.assert_allclose((1 - eps) * right + eps * wrong, losses(*pi, *ref, beta), rtol=1e-7, atol=1e-9)


@given(numbers, betas)
def test_ipo_is_least_where_the_difference_is_half_the_inverse_of_beta(x, beta):
    chosen, rejected, ref_chosen, ref_rejected = x
    best = rejected + ref_chosen - ref_rejected + 1 / (2 * beta)
    np.testing.assert_allclose(losses(best, rejected, ref_chosen, ref_rejected, beta, "ipo"), 0, atol=1e-20)
    assert (losses(chosen, rejected, ref_chosen, ref_rejected, beta, "ipo") >= 0).all()


def test_hinge_stops_at_a_margin_of_one():
    far = losses([1.0, 9.0, 11.0], np.zeros(3), np.zeros(3), np.zeros(3), 0.1, "hinge")
    np.testing.assert_allclose(far, [0.9, 0.1, 0])


def test_rpo_adds_the_likelihood_of_the_chosen():
    nll = np.array([0.5, 1.0, 2.0])
    plain = losses(CHOSEN, REJECTED, REF, REF, 0.1)
    np.testing.assert_allclose(losses(CHOSEN, REJECTED, REF, REF, 0.1, nll=nll, alpha=0.5), plain + 0.5 * nll)
    np.testing.assert_array_equal(losses(CHOSEN, REJECTED, REF, REF, 0.1, nll=nll), plain)


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2}, {"kind": "robust", "label_smoothing": 0.2}, {"kind": "hinge"}, {"kind": "ipo"}],
)
def test_gradients(options):
    nll = np.array([0.5, 1.0, 2.0])
    assert gradcheck(
        lambda chosen, rejected, nll: dpo.loss(chosen, rejected, REF, REF, 0.3, nll=nll, alpha=0.5, **options)[0],
        CHOSEN,
        REJECTED,
        nll,
    )


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"kind": "robust", "label_smoothing": 0.1}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_apart(dtype, options):
    chosen = tg.Tensor(np.array([1000.0, -1000.0], dtype), requires_grad=True)
    zero = np.zeros(2, dtype)
    found, better, _ = dpo.loss(chosen, zero, zero, zero, beta=1.0, **options)
    found.sum().backward()
    assert np.isfinite(found.data).all()
    assert np.isfinite(chosen.grad).all()
    assert chosen.grad[1] < -0.8
    assert found.dtype == better.dtype == dtype


def test_beta_of_zero_is_a_finite_loss_without_a_gradient():
    chosen = tg.Tensor(CHOSEN, requires_grad=True)
    found, _, _ = dpo.loss(chosen, REJECTED, REF, REF, beta=0)
    found.sum().backward()
    np.testing.assert_allclose(found.data, math.log(2))
    assert not chosen.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "kto"}, "kind is 'kto': use one of sigmoid, ipo, hinge, robust"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"beta": math.nan}, "beta is nan"),
        ({"beta": 0, "kind": "ipo"}, "beta is 0, and ipo divides by it"),
        ({"label_smoothing": 0.5, "kind": "robust"}, "label_smoothing is 0.5: .*0.5 excluded"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0: .*1.0 excluded"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"label_smoothing": 0.1, "kind": "ipo"}, "label_smoothing is 0.1, and ipo has none"),
        ({"label_smoothing": 0.1, "kind": "hinge"}, "label_smoothing is 0.1, and hinge has none"),
        ({"alpha": 1.0}, "alpha is 1.0 without nll"),
        ({"alpha": -1.0, "nll": np.ones(3)}, "alpha is -1.0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        dpo.loss(CHOSEN, REJECTED, REF, REF, **{"beta": 0.1} | options)


@pytest.mark.parametrize("place", range(4))
def test_lengths_that_differ(place):
    arguments = [CHOSEN, REJECTED, REF, REF]
    arguments[place] = np.ones(2)
    with pytest.raises(ShapeError, match="they must be equal"):
        dpo.loss(*arguments, beta=0.1)
    with pytest.raises(ShapeError, match=r"nll is \(2,\)"):
        dpo.loss(CHOSEN, REJECTED, REF, REF, 0.1, nll=np.ones(2), alpha=1)
    with pytest.raises(ShapeError, match=r"must be \(rows,\), and not empty"):
        dpo.loss(*[np.ones((2, 2))] * 4, beta=0.1)


# ---- the task


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    assistant(folder)
    pairs(folder / "pairs.jsonl", 80)
    pairs(folder / "rankings.jsonl", 40, 3)
    return folder


@pytest.fixture
def train(here, tmp_path):
    def begin(name="run", data="pairs.jsonl", init_from="assistant", **options):
        chosen = {"out": tmp_path / name, "report": quiet, "eval_every": 3, "save_every": 2, "batch_size": 8} | options
        return dpo.train(here / data, init_from=here / init_from, **chosen)

    return begin


def by_loop(path, prompt, answer):
    """The log-probability of an answer and its end, token by token."""
    model, tokenizer = load_run(path)
    template = Assistant.load(path).template
    ids, _ = template.encode(tokenizer, prompt, generation_prompt=True)
    total = 0.0
    for token in [*tokenizer.encode(answer), template.end_id(tokenizer)]:
        with tg.no_grad():
            logits = model(np.array([ids])).data[0, -1].astype(np.float64)
        total += logits[token] - np.log(np.exp(logits).sum())
        ids = [*ids, token]
    return total


@pytest.mark.parametrize("options", [{}, {"average": True}, {"kind": "ipo", "average": True}, {"alpha": 0.5}])
def test_what_is_measured_is_what_a_loop_finds(here, train, options):
    """Of the pairs kept for testing, under the weights that were learned and those it began from."""
    run = train(lr=3e-3, epochs=2, **options)
    _, test, _ = preferences_of(here / "pairs.jsonl", DPOOptions.of_run(load_config(run.finished.folder)["training"]))[
        0
    ]
    expected = []
    for row in test:
        ratios = []
        for answer in (row.answers[i] for i in row.pairs[0]):
            ratio = by_loop(run.finished.folder, row.prompt, answer) - by_loop(here / "assistant", row.prompt, answer)
            ratios.append(ratio / (len(answer) + 1) if options.get("average") else ratio)
        expected.append(0.1 * (ratios[0] - ratios[1]))
    np.testing.assert_allclose(run.differences, expected, atol=2e-4)
    assert run.accuracy == np.mean(np.array(expected) > 0)


def test_a_run_learns_what_is_preferred(here, train):
    lines = []
    run = train(lr=3e-3, epochs=3, report=lines.append, judge="preferring:by_length", max_new_tokens=12)
    assert run.before["train_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert run.before["rewards/margins"] == run.before["rewards/accuracies"] == 0  # not the noise of float32
    assert run.accuracy > 0.7
    assert run.after["eval/loss"] < run.before["eval/loss"]
    assert run.after["eval/true"] > run.before["eval/true"] + run.after["eval/true_interval"]
    assert run.after["val_loss"] == -run.after["eval/true"]
    for name in ("rewards", "logps", "log_ratios"):
        assert {f"{name}/chosen", f"{name}/rejected"} <= run.after.keys()
    assert run.after["rewards/chosen"] == pytest.approx(0.1 * run.after["log_ratios/chosen"])
    assert run.after["rewards/margins"] == pytest.approx(run.after["rewards/chosen"] - run.after["rewards/rejected"])
    summary = json.loads(json.dumps(run.summary()))
    assert {"accuracy", "accuracy_interval", "margin", "before", "after", "pairs", "steps"} <= summary.keys()
    assert sum("log-ratio of better" in line and "of worse" in line and "true" in line for line in lines) > 2
    assert Assistant.load(run.finished.folder).answer([{"role": "user", "content": "Say a"}], 5)
    header = (run.finished.folder / "loss.png").read_bytes()[:20]
    assert int.from_bytes(header[16:20], "big") == 3 * 540  # log-ratios, accuracy, true score


def task_of(here, base):
    options = DPOOptions(**DPOOptions.defaults(True) | SIZES)
    return dpo.DPOTask(*preferences_of(here / "rankings.jsonl", options), options, base.tokenizer, base.template)


def test_every_pair_of_a_ranking_is_a_row(here):
    base = open_base(here / "assistant")
    task = task_of(here, base)
    assert (len(task.train), len(task.validation), len(task.answers)) == (32 * 3, 4 * 3, 40 * 3)
    task.read_reference(base.model)
    with use_generator(Generator(1)):
        batches = list(task.epoch(base.model))
    assert len(batches) == len(task) == 3
    is_answer, ref = (np.concatenate([batch[i].reshape(-1) for batch in batches]) for i in (1, 2))
    assert len(ref) == 32 * 3 * 2
    assert is_answer.sum() == sum(sum(task.answers[i][1]) for i in task.train.ravel())
    loss = task.loss(base.model, *batches[0])
    assert loss.item() / 32 == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"judge": "preferring:by_length", "eval_answers": 8, "max_new_tokens": 6, "data": "rankings.jsonl"},
        {"lora": "r=2", "kind": "ipo", "average": True, "alpha": 0.1},
    ],
)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(train, options):
    whole = train("whole", epochs=2, lr=1e-3, **options)
    with pytest.raises(KeyboardInterrupt):
        train("cut", epochs=2, lr=1e-3, loggers=[StopAfter(5)], **options)
    folder = whole.finished.folder
    cut = folder.parent / "cut"
    assert f"tinygrad-llm prefer dpo --resume {cut}" == resume_command(cut, load_config(cut)["task"])
    resumed = dpo.resume(cut, report=quiet)
    for name in ("metrics.jsonl", "samples.txt", "model.safetensors"):
        assert (cut / name).read_bytes() == (folder / name).read_bytes(), name
    assert resumed.differences.tobytes() == whole.differences.tobytes()


def test_a_resumed_run_needs_no_reference(here, train, tmp_path):
    shutil.copytree(here / "assistant", tmp_path / "copy")
    with pytest.raises(KeyboardInterrupt):
        train("cut", init_from=tmp_path / "copy", loggers=[StopAfter(5)], epochs=2)
    shutil.rmtree(tmp_path / "copy")
    assert len(load_config(tmp_path / "cut")["fingerprints"]["reference"]) == 64
    assert dpo.resume(tmp_path / "cut", report=quiet).after["step"] == 16


def test_a_run_ends_where_better_answers_have_become_unlikely(train):
    lines = []
    options = {"lr": 3e-2, "epochs": 2, "eval_every": 1, "warmup": 0.0}
    whole = train("whole", **options)
    ratios = [row["log_ratios/chosen"] for row in whole.finished.metrics]
    least = -min(ratios) / 2
    assert least > 0
    end = next(i for i, ratio in enumerate(ratios) if ratio < -least)
    run = train(least_chosen=least, report=lines.append, **options)
    assert run.after["step"] == end < len(ratios) - 1
    assert any("(least_chosen): the run stops after step" in line for line in lines)
    with pytest.raises(ConfigError, match="ended before its last step, by least_chosen"):
        dpo.resume(run.finished.folder, report=quiet)
    assert dpo.resume(run.finished.folder, report=quiet, least_chosen=0.0).after["step"] == whole.after["step"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beta": 0}, ConfigError, "beta is 0: nothing would be learned"),
        ({"kind": "kto"}, ConfigError, "kind is 'kto': use one of sigmoid"),
        ({"kind": "ipo", "label_smoothing": 0.1}, ConfigError, "label_smoothing is 0.1, and ipo has none"),
        ({"kind": "robust", "label_smoothing": 0.6}, ConfigError, "label_smoothing is 0.6"),
        ({"max_length": 1}, ConfigError, "max_length is 1"),
        ({"judge": "reviws"}, ConfigError, "did you mean reviews"),
        ({"judge": "exact"}, ConfigError, "a column 'answer' is needed"),
        ({"template": "alpaca"}, ConfigError, "taught in 'plain'"),
        ({"emb_dim": 8}, ConfigError, "emb_dim is 8"),
        ({"init_from": "nowhere"}, CheckpointError, "nowhere"),
        ({"data": "nowhere.jsonl"}, DataError, r"nowhere\.jsonl"),
        ({"data": "conversations.json"}, DataError, "none of the forms that are known"),
    ],
)
def test_runs_that_cannot_be(train, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        train(**options)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "state", [{}, {"reference": [0.0]}, {"reference": np.zeros(3)}, {"reference": np.zeros(120, int)}]
)
def test_a_checkpoint_without_the_reference(here, state):
    with pytest.raises(CorruptCheckpoint, match="reference must be 120 numbers"):
        task_of(here, open_base(here / "assistant")).restore(state)


def test_a_judge_that_has_changed(here, train, tmp_path):
    quick = {"init_from": here / "assistant", "max_steps": 1, "report": quiet}
    reward.train(here / "pairs.jsonl", out=tmp_path / "judge", **quick)
    with pytest.raises(KeyboardInterrupt):
        train(judge=str(tmp_path / "judge"), eval_answers=4, max_new_tokens=4, loggers=[StopAfter(5)])
    reward.train(here / "pairs.jsonl", out=tmp_path / "judge", seed=4, **quick)
    with pytest.raises(CheckpointError, match=r"judge: not the weights any more .* as its judge: put them back"):
        dpo.resume(tmp_path / "run", report=quiet)


def test_a_reference_that_reads_other_tokens(train, tmp_path):
    instruct(
        out=tmp_path / "other", report=quiet, kinds="upper", examples=40, epochs=1, emb_dim=8, n_layers=1, n_heads=1
    )
    with pytest.raises(ConfigError, match=r"reference is .* tokens are not the"):
        train(reference=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="it gives no score: tinygrad-llm prefer reward makes one"):
        train(judge=str(tmp_path / "other"))
    assert not (tmp_path / "run").exists()


def test_what_stays_in_a_resumed_run(train, here, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(loggers=[StopAfter(5)])
    for change in ({"reference": "x"}, {"judge": "reviews"}, {"seed": 4}):
        with pytest.raises(ConfigMismatch, match=next(iter(change))):
            dpo.resume(tmp_path / "run", report=quiet, **change)
    for checkpoint in (tmp_path / "run").glob("step-*"):
        shutil.rmtree(checkpoint)
    again = f"begin it again .tinygrad-llm prefer dpo {here / 'pairs.jsonl'} --init-from {here / 'assistant'} --out"
    with pytest.raises(CheckpointError, match=again):
        dpo.resume(tmp_path / "run", report=quiet)
