"""What can be chosen about a run: each knob against its formula as others write it, and what cannot be chosen together."""

import json
import math
import os
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, DataError
from tinygrad_llm.evaluation import evaluate_run
from tinygrad_llm.evaluation.losses import all_windows, mean_loss, unigram_entropy
from tinygrad_llm.models import make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.optim import AdamW, decay_groups
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs.checkpoint import load_checkpoint
from tinygrad_llm.runs.loggers import Logger
from tinygrad_llm.runs.records import find_runs, read_run
from tinygrad_llm.text.corpus import TrainingWindows
from tinygrad_llm.training import PretrainOptions, continue_pretraining, load_run, loop, pretrain, resume

TEXT = "".join(f"the {who} {what} the {where}.\n" for who in "abc" for what in "defg" for where in "hijklm")
TINY = {"tokenizer": "char", "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0}
TINY |= {"batch_size": 8, "sample_tokens": 4, "stride": 8, "eval_batches": 2, "seed": 3}


def silent(line: str) -> None: ...


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def rate(step, n_steps, **options):
    return PretrainOptions.for_preset(**options).lr_schedule(n_steps)(step)


# ---- the learning rate


def test_the_cosine_is_nanogpts():
    """Its get_lr (train.py) with learning_rate 1e-3, min_lr 1e-4, warmup_iters 100, lr_decay_iters 5000."""
    options = {"lr": 1e-3, "min_lr": 1e-4, "warmup": 100, "decay_steps": 5000}

    def get_lr(it):
        if it < 100:
            return 1e-3 * (it + 1) / 101
        if it > 5000:
            return 1e-4
        return 1e-4 + 0.5 * (1.0 + math.cos(math.pi * (it - 100) / 4900)) * 9e-4

    for it, known in {0: 9.90099e-6, 100: 1e-3, 2550: 5.5e-4}.items():
        assert rate(it, 6000, **options) == pytest.approx(known, rel=1e-6)
    for it in (0, 1, 50, 99, 100, 101, 2550, 4999, 5000, 5001, 5999):
        assert rate(it, 6000, **options) == pytest.approx(get_lr(it), rel=1e-12)


def test_a_line_is_pytorchs_and_a_constant_stays():
    """LambdaLR of transformers' get_linear_schedule_with_warmup, but for the first step, which is not one of rate 0."""
    for step in (20, 21, 55, 99):
        linear = rate(step, 100, lr=0.5, schedule="linear", warmup=0.2)
        assert linear == pytest.approx(0.5 * (100 - step) / (100 - 20))
        assert rate(step, 100, lr=0.5, schedule="constant", warmup=20) == 0.5
    for step in range(20):
        assert rate(step, 100, lr=0.5, schedule="constant", warmup=20) == pytest.approx(0.5 * (step + 1) / 21)
    assert rate(0, 100, lr=0.5, schedule="constant", warmup=0) == 0.5


def test_noam_is_that_of_the_paper_when_lr_is_its_peak():
    """emb_dim 512 and 4000 steps of warm-up: section 5.3 of "Attention Is All You Need"."""
    options = {"schedule": "noam", "lr": (512 * 4000) ** -0.5, "warmup": 4000}
    for step, known in {1: 1.74693e-7, 100: 1.74693e-5, 4000: 6.98771e-4, 100_000: 1.39754e-4}.items():
        assert rate(step, 200_000, **options) == pytest.approx(known, rel=1e-5)
        assert rate(step, 200_000, **options) == pytest.approx(
            512**-0.5 * min(step**-0.5, step * 4000**-1.5), rel=1e-12
        )


def test_a_warm_up_is_a_share_of_the_steps_or_a_number_of_them():
    for step in (0, 7, 26, 27, 80, 134):
        assert rate(step, 135, warmup=0.2) == rate(step, 135, warmup=27)


@pytest.mark.parametrize("schedule", ["constant", "linear", "noam"])
def test_a_run_of_any_schedule_is_gone_on_with_to_the_bit(text, tmp_path, schedule):
    class Stop(Logger):
        def log_step(self, step, loss, lr):
            if step == 5:
                os.kill(os.getpid(), signal.SIGINT)

    options = TINY | {"schedule": schedule, "max_steps": 9, "warmup": 3}
    whole = pretrain(text, out=tmp_path / "whole", report=silent, **options)
    with pytest.raises(KeyboardInterrupt):
        pretrain(text, out=tmp_path / "run", report=silent, loggers=[Stop()], **options)
    more = resume(tmp_path / "run", report=silent)
    assert more.metrics == whole.metrics
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(more.model.state_dict()[name], value)
    (record,) = [record for record in map(read_run, find_runs([tmp_path])) if record.name.endswith("whole")]
    assert (record.step, record.total_steps) == (9, 9)


# ---- the optimizer


def test_the_optimizer_gets_its_numbers_and_resuming_changes_them(text, tmp_path):
    run = pretrain(text, out=tmp_path / "run", report=silent, epochs=1, beta1=0.8, beta2=0.99, eps=1e-6, **TINY)
    (group,) = load_checkpoint(run.folder / f"step-{run.metrics[-1]['step']:06}").optimizer["param_groups"]
    assert (group["betas"], group["eps"]) == ([0.8, 0.99], 1e-6)
    more = resume(run.folder, epochs=2, beta2=0.95, weight_decay=0.3, report=silent)
    (group,) = load_checkpoint(run.folder / f"step-{more.metrics[-1]['step']:06}").optimizer["param_groups"]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ([0.8, 0.95], 1e-6, 0.3)


def test_matrices_alone_decay():
    """nanoGPT's configure_optimizers: p.dim() >= 2."""
    sizes = {"vocab_size": 11, "context_length": 4, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0}
    for decay in ("matrices", "all"):
        model = make_model("gpt", sizes, Generator(1))
        before = {name: value.copy() for name, value in model.state_dict().items()}
        optimizer = AdamW(decay_groups(model.parameters(), decay), lr=0.1, weight_decay=0.5)
        for parameter in model.parameters():
            parameter.grad = np.zeros_like(parameter.data)
        optimizer.step()
        for name, parameter in model.named_parameters():
            factor = 1 - 0.1 * 0.5 if decay == "all" or parameter.data.ndim > 1 else 1
            np.testing.assert_allclose(parameter.data, factor * before[name], rtol=1e-6, err_msg=name)


def test_a_run_whose_matrices_alone_decay_ends_as_if_never_stopped(text, tmp_path):
    options = TINY | {"decay": "matrices", "max_steps": 12, "lr": 1e-2}
    whole = pretrain(text, out=tmp_path / "whole", report=silent, **options)
    pretrain(text, out=tmp_path / "run", report=silent, **options | {"max_steps": 7, "decay_steps": 12, "warmup": 0})
    with pytest.raises(ConfigMismatch, match="decay: matrices there, all here"):
        resume(tmp_path / "run", decay="all", max_steps=12, report=silent)
    other = pretrain(text, out=tmp_path / "other", report=silent, **options | {"warmup": 0})
    more = resume(tmp_path / "run", max_steps=12, report=silent)
    for name, value in other.model.state_dict().items():
        np.testing.assert_array_equal(more.model.state_dict()[name], value)
    assert len(load_checkpoint(whole.folder / "step-000012").optimizer["param_groups"]) == 2


# ---- the text


def test_random_windows_begin_anywhere_as_nanogpts_do():
    """get_batch of train.py: ix = torch.randint(len(data) - block_size, (batch_size,)), and targets one further."""
    windows = TrainingWindows(list(range(1000)), 8, 4, kind="random")
    tg.manual_seed(1)
    first = np.concatenate([ids[:, 0] for _ in range(20) for ids, _ in windows.epoch()])
    assert len(windows) == 124 // 4
    assert len(first) == 20 * 31 * 4
    expected = len(first) / 992
    assert np.bincount(first, minlength=992).var() == pytest.approx(
        expected, rel=0.2
    )  # as Poisson: drawn with replacement
    assert first.max() == 991
    for ids, targets in windows.epoch():
        np.testing.assert_array_equal(ids + 1, targets)
        np.testing.assert_array_equal(np.diff(ids), 1)


@pytest.mark.parametrize("n", [9, 10, 16, 17, 30, 100])
def test_shuffled_windows_lie_side_by_side_from_a_new_beginning_each_time(n):
    windows = TrainingWindows(list(range(n)), 8, 1, kind="shuffled")
    tg.manual_seed(n)
    beginnings = set()
    for _ in range(60):
        targets = np.concatenate([targets[0] for _, targets in windows.epoch()])
        assert len(targets) == 8 * len(windows) == len(set(targets.tolist())) == 8 * max(1, (n - 8) // 8)
        beginnings.add(int(targets.min()) - 1)
    assert beginnings == set(range(min(8, n - 8)))


@pytest.mark.parametrize("windows", ["shuffled", "random"])
def test_other_windows_are_gone_on_with_to_the_bit(text, tmp_path, windows):
    options = TINY | {"windows": windows, "stride": 0, "max_steps": 16, "schedule": "constant", "warmup": 0}
    whole = pretrain(text, out=tmp_path / "whole", report=silent, **options)
    pretrain(text, out=tmp_path / "run", report=silent, **options | {"max_steps": 13})
    more = resume(tmp_path / "run", max_steps=16, report=silent)
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(more.model.state_dict()[name], value)


def test_a_file_of_its_own_may_be_for_validation(text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the a d the h. " * 9)
    run = pretrain(text, out=tmp_path / "run", report=silent, epochs=1, val_file=str(other), **TINY)
    model, tokenizer = load_run(run.folder)
    ids = tokenizer.encode(other.read_text())
    loss = mean_loss(model, all_windows(ids, 8, 8))
    assert run.val_loss == pytest.approx(loss, rel=1e-6)
    assert run.unigram_train_loss == pytest.approx(unigram_entropy(tokenizer.encode(TEXT)))
    assert evaluate_run(run.folder, sample_tokens=3).loss == pytest.approx(loss, rel=1e-6)
    assert json.loads((run.folder / "config.json").read_text())["training"]["val_ratio"] == 0
    other.write_text("the a d the h. " * 8)
    with pytest.raises(DataError, match=r"other\.txt: not the text any more"):
        resume(run.folder, epochs=2, report=silent)
    again = resume(run.folder, epochs=2, val_ratio=0.25, report=silent)
    assert json.loads((again.folder / "config.json").read_text())["training"]["val_file"] == ""


STORY = "从前有一只小猫,它住在山上。有一天,小猫下山去找朋友。它在河边看见一只小狗。" * 8


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-16", "UTF-8"])
def test_a_text_in_another_encoding_is_the_same_text(tmp_path, encoding):
    story = STORY if encoding != "big5" else "從前有一隻小貓,牠住在山上。" * 20
    path, plain = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes(story.encode(encoding))
    plain.write_text(story, encoding="utf-8")
    options = TINY | {"epochs": 1, "stride": 0}
    run = pretrain(path, out=tmp_path / "run", report=silent, encoding=encoding, **options)
    same = pretrain(plain, out=tmp_path / "same", report=silent, **options)
    assert run.metrics == same.metrics
    assert run.copied == same.copied
    assert evaluate_run(run.folder, sample_tokens=30).loss == pytest.approx(run.val_loss, rel=1e-6)
    assert evaluate_run(run.folder, path, encoding=encoding).loss == evaluate_run(same.folder, plain).loss


def test_what_a_chinese_model_copies_is_counted_in_characters(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(STORY, encoding="utf-8")
    lines = []
    run = pretrain(path, out=tmp_path / "run", report=lines.append, epochs=1, **TINY)
    written = run.sample.removeprefix(run.prompt)
    longest = max(
        (written[i:j] for i in range(len(written)) for j in range(i + 1, len(written) + 1) if written[i:j] in STORY),
        key=len,
    )
    assert len(run.copied) == len(longest)
    record = " ".join("\n".join(lines).split())
    assert f"Of the {len(written)} characters above after the prompt, the longest run" in record
    assert f"copied from the training text is {len(longest)}:" in record


def test_bytes_that_are_not_in_the_encoding_and_encodings_that_are_none(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("今天天气".encode("gbk") + b"\xff\xff")
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8: byte 0xbd at offset 0 .*--encoding"):
        pretrain(path, out=tmp_path / "run", report=silent, **TINY)
    with pytest.raises(DataError, match=r"a\.txt: not gbk: byte 0xff at offset 8"):
        pretrain(path, out=tmp_path / "run", report=silent, encoding="gbk", **TINY)
    for encoding, near in {"gkb": r"\(did you mean gbk\?\)", "hex": "", "rot13": "", "": ""}.items():
        with pytest.raises(ConfigError, match=f"encoding is '{encoding}': .*{near}"):
            pretrain(path, out=tmp_path / "run", report=silent, encoding=encoding, **TINY)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


# ---- the model


def test_the_form_of_the_model_is_chosen_kept_and_gone_on_with(text, tmp_path):
    form = {"init": "gpt2", "tie_weights": True, "qkv_bias": True, "bias": False, "activation": "gelu_erf"}
    run = pretrain(text, out=tmp_path / "run", report=silent, epochs=1, **TINY, **form)
    config = json.loads((run.folder / "config.json").read_text())
    assert form.items() <= config["model"].items()
    assert form.items() <= config["training"].items()
    assert run.model.out_head.weight is run.model.tok_emb.weight
    assert run.model.trf_blocks[0].att.W_query.bias is not None
    assert run.model.trf_blocks[0].att.out_proj.bias is run.model.final_norm.shift is None
    resume(run.folder, epochs=2, report=silent)
    with pytest.raises(ConfigMismatch, match="tie_weights: True there, False here"):
        resume(run.folder, epochs=3, tie_weights=False, report=silent)
    with pytest.raises(ConfigError, match="bias is True: with init_from it is that of the weights"):
        continue_pretraining(run.folder, text, out=tmp_path / "other", report=silent, bias=True)
    more = continue_pretraining(run.folder, text, out=tmp_path / "other", report=silent, epochs=1, batch_size=4)
    assert resume(more.folder, epochs=2, report=silent).model.config == run.model.config
    assert PretrainOptions.of_run(json.loads((more.folder / "config.json").read_text())["training"]).tie_weights


# ---- what is recorded


def test_a_row_has_the_norm_of_the_gradient_and_how_far_the_weights_went(text, tmp_path, monkeypatch):
    seen, real = [], loop.train_step

    def train_step(model, optimizer, ids, targets, **options):
        before = [p.data.copy() for p in model.parameters()]
        model.zero_grad()
        cross_entropy(model(ids), targets=targets).backward()
        norm = math.sqrt(sum((p.grad.astype(np.float64) ** 2).sum() for p in model.parameters()))
        loss = real(model, optimizer, ids, targets, **options)
        went = [p.data.astype(np.float64) - old for p, old in zip(model.parameters(), before, strict=True)]
        seen.append(
            (norm, *(math.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in these)) for these in (went, before)))
        )
        return loss

    monkeypatch.setattr(loop, "train_step", train_step)
    options = {"max_steps": 8, "eval_every": 3, "max_norm": 0.1, "lr": 1e-2}
    rows = pretrain(text, out=tmp_path / "run", report=silent, **TINY | options).metrics
    assert [row["step"] for row in rows] == [0, 3, 6, 8]
    assert not {"gradient_norm", "update_ratio"} & rows[0].keys()
    for row in rows[1:]:
        norm, went, weights = seen[row["step"] - 1]
        assert row["gradient_norm"] == pytest.approx(norm, rel=1e-4)  # before it is scaled down
        assert row["update_ratio"] == pytest.approx(went / weights, rel=1e-4)
    speed = [json.loads(line) for line in (tmp_path / "run" / "speed.jsonl").read_text().splitlines()]
    assert [line["step"] for line in speed] == [3, 6, 8]
    assert all(line["tokens_per_second"] > 0 for line in speed)


def test_measuring_how_far_the_weights_go_changes_no_bit():
    """Of a parameter that is several blocks large, too."""
    found = []
    for measure in (False, True):
        tensors = [tg.Tensor(Generator(1).normal(0, 1, shape), requires_grad=True) for shape in ((700, 500), (3,))]
        optimizer = AdamW(tensors, lr=0.1)
        for p in tensors:
            p.grad = Generator(2).normal(0, 1, p.shape)
        before = [p.data.copy() for p in tensors]
        optimizer.step(measure=measure)
        found.append([p.data for p in tensors])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    went, weights = (
        np.linalg.norm(np.concatenate([np.ravel(a).astype(np.float64) for a in these]))
        for these in ([p.data - old for p, old in zip(tensors, before, strict=True)], before)
    )
    assert optimizer.update_ratio == pytest.approx(went / weights, rel=1e-5)


# ---- how long


def test_a_run_may_be_so_many_steps_long(text, tmp_path):
    lines = []
    run = pretrain(text, out=tmp_path / "run", report=lines.append, max_steps=20, eval_every=8, **TINY)
    assert [row["step"] for row in run.metrics] == [0, 8, 16, 20]
    n = run.metrics[-1]["epoch"]
    by_epochs = pretrain(text, out=tmp_path / "epochs", report=silent, epochs=n, eval_every=8, warmup=0, **TINY)
    assert n > 1  # it ends in the middle of an epoch
    assert by_epochs.metrics[-1]["step"] > 20
    assert any(f"20 steps, {20 * n / by_epochs.metrics[-1]['step']:.3g} epochs" in line for line in lines)
    with pytest.raises(ConfigError, match=r"finished its 20 steps: to go on, give more \(max_steps, --max-steps\)"):
        resume(run.folder, report=silent)
    with pytest.raises(ConfigError, match="max_steps is 5: the run has taken 20 steps"):
        resume(run.folder, max_steps=5, report=silent)
    assert resume(run.folder, epochs=n, report=silent).metrics[-1]["step"] == by_epochs.metrics[-1]["step"]
    changed = json.loads(Path(run.folder, "config.json").read_text())["changes"]
    assert changed == [{"step": 20, "epochs": [0, n], "max_steps": [20, 0]}]


# ---- from a file


def test_a_run_can_be_made_again_from_its_config(text, tmp_path):
    options = TINY | {
        "max_steps": 9,
        "windows": "random",
        "stride": 0,
        "tie_weights": True,
        "init": "gpt2",
        "beta2": 0.99,
    }
    run = pretrain(text, out=tmp_path / "run", report=silent, **options)
    config = json.loads((run.folder / "config.json").read_text())
    part = tmp_path / "part.json"
    part.write_text(json.dumps(config["training"]))
    for path in (run.folder / "config.json", part):
        again = pretrain(text, out=tmp_path / "again", config=path, report=silent)
        assert json.loads((again.folder / "config.json").read_text()) == config
        for name, value in run.model.state_dict().items():
            np.testing.assert_array_equal(again.model.state_dict()[name], value)
    changed = PretrainOptions.from_file(part, epochs=2, lr=0.5, stride=3)
    before = PretrainOptions.of_run(config["training"])
    assert {name for name, value in asdict(changed).items() if value != getattr(before, name)} == {
        *("epochs", "max_steps", "lr", "stride", "windows")
    }
    part.write_text('{"preset": "124M", "max_steps": 5, "lr": 1}')
    assert PretrainOptions.from_file(part) == PretrainOptions.for_preset("124M", max_steps=5, lr=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"beta_2": 0.9}', r"no option 'beta_2' \(did you mean beta2\?\)"),
        ('{"training": {"max_step": 3}}', r"no option 'max_step' \(did you mean max_steps\?\)"),
        ('{"training": 3}', "training is 3: it must hold options"),
        ('{"max_steps": 3, "epochs": 2}', "epochs is 2 and max_steps is 3"),
        ('{"lr": "fast"}', "lr is 'fast'"),
        ('{"task": "classify", "training": {}}', "task is 'classify'"),
        ('{"preset": "125M"}', "preset '125M'"),
        ("[1]", "JSON"),
        ("{", "JSON"),
    ],
)
def test_a_file_that_cannot_be_is_named(text, tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises((ConfigError, CheckpointError), match=rf"c\.json.*{message}"):
        pretrain(text, out=tmp_path / "run", config=path, report=silent)
    with pytest.raises((ConfigError, CheckpointError), match=r"missing\.json"):
        pretrain(text, out=tmp_path / "run", config=tmp_path / "missing.json", report=silent)
    assert not (tmp_path / "run").exists()


def test_flags_of_the_command_and_what_is_set_by_name(text, tmp_path, capsys):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "stride"]
    run = ["pretrain", str(text), "--out", str(tmp_path / "run"), "--json", *flags]
    more = [
        "--max-steps",
        "3",
        "--beta2",
        "0.99",
        "--init",
        "gpt2",
        "--tie-weights",
        "--no-bias",
        "--windows",
        "random",
    ]
    assert main([*run, *more, "--set", "qkv-bias=true", "--set", "lr=0.5", "--set", f"val_file={text}"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    training = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    said = {
        "max_steps": 3,
        "epochs": 0,
        "beta2": 0.99,
        "init": "gpt2",
        "tie_weights": True,
        "bias": False,
        "qkv_bias": True,
    }
    assert (
        said | {"windows": "random", "stride": 0, "lr": 0.5, "val_file": str(text), "val_ratio": 0}
    ).items() <= training.items()
    config = str(tmp_path / "run" / "config.json")
    assert (
        main(["pretrain", str(text), "--out", str(tmp_path / "two"), "--config", config, "--max-steps", "2", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    for wrong, message in {
        ("--set", "beta_2=1"): "no option 'beta_2' (did you mean beta2?)",
        ("--set", "lr"): "it must be lr= and a value of type float",
        ("--set", "max_steps=many"): "it must be max_steps= and a value of type int",
        ("--set", "bias=no"): "it must be bias= and true or false",
        ("--lr", "1", "--set", "lr=2"): "--set lr=2: lr is 1.0 already",
        ("--max-steps", "2", "--epochs", "1"): "epochs is 1 and max_steps is 2",
        ("--config", config, "--preset", "124M"): "preset is '124M'",
        ("--config", config, "--init-from", "x"): "--config is for a new model",
    }.items():
        assert main(["pretrain", str(text), *wrong]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


# ---- what cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2, "max_steps": 7}, "epochs is 2 and max_steps is 7: a run has one length"),
        ({"epochs": 0, "max_steps": 0}, "epochs is 0 and max_steps is 0: give one of them"),
        ({"schedule": "cosinus"}, "schedule is 'cosinus': use one of constant, linear, cosine, noam"),
        ({"decay": "biases"}, "decay is 'biases': use one of all, matrices"),
        ({"warmup": 100, "decay_steps": 50}, "warmup is 100 steps and decay_steps is 50"),
        ({"warmup": 0.9, "max_steps": 100, "decay_steps": 50}, "warmup is 90 steps and decay_steps is 50"),
        ({"warmup": 500, "max_steps": 100}, "warmup is 500 steps and the whole run is 100"),
        ({"warmup": 2.5}, "warmup is 2.5: up to 1 it is a share"),
        ({"schedule": "constant", "min_lr": 1e-5}, "min_lr is 1e-05 and schedule is 'constant'"),
        ({"schedule": "noam", "decay_steps": 9}, "decay_steps is 9 and schedule is 'noam'"),
        ({"schedule": "noam", "warmup": 0}, "warmup is 0 and schedule is 'noam'"),
        ({"beta1": 1.0}, r"beta1 is 1.0: it must be a number from 0 to 1.*1 excluded"),
        ({"beta2": -0.1}, "beta2 is -0.1"),
        ({"eps": math.nan}, "eps is nan"),
        ({"max_steps": 1.5}, "max_steps is 1.5"),
        ({"windows": "all"}, "windows is 'all': use one of stride, shuffled, random"),
        ({"windows": "random"}, "stride is 8 and windows is 'random'"),
        ({"val_file": "b.txt", "val_ratio": 0.2}, r"val_file is 'b\.txt' and val_ratio is 0.2: leave out one"),
        ({"init": "zero"}, "init is 'zero': use 'pytorch' or 'gpt2'"),
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"tie_weights": 1}, "tie_weights is 1: it must be True or False"),
        ({"beta_2": 0.9}, r"no option 'beta_2' \(did you mean beta2\?\)"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_written(text, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        pretrain(text, out=tmp_path / "run", report=silent, **TINY | options)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
