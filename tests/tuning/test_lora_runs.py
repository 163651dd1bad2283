"""A run that trains LoRA: it is resumed to the bit, opens alone, keeps no moments of what is frozen, and its evidence replays."""

import math

import numpy as np
import pytest
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm.errors import NonFiniteError
from tinygrad_llm.models import build_model, describe_model, make_model
from tinygrad_llm.rng import Generator, Zeros, get_generator, use_generator
from tinygrad_llm.runs.checkpoint import load_checkpoint, newest_checkpoint, verify_checkpoint
from tinygrad_llm.runs.folder import FORMAT, load_config, load_run, new_run
from tinygrad_llm.text import CharTokenizer
from tinygrad_llm.training import reproduce
from tinygrad_llm.training.loop import TrainingLoop
from tinygrad_llm.training.options import LoopOptions
from tinygrad_llm.training.step import NEXT_TOKEN
from tinygrad_llm.training.task import Task
from tinygrad_llm.tuning import lora

SIZES = {"vocab_size": 8, "context_length": 6, "emb_dim": 12, "n_heads": 2, "n_layers": 2, "drop_rate": 0.1}
OPTIONS = {"epochs": 3, "batch_size": 4, "lr": 1e-2, "eval_every": 2, "save_every": 50}
IDS = np.random.RandomState(1).randint(0, 8, (20, 7))


class Copy(Task):
    name, objective, chance = "copy", NEXT_TOKEN, math.log(8)

    def __len__(self):
        return 5

    def epoch(self, model):
        order = get_generator().randperm(20)
        for i in range(0, 20, 4):
            rows = IDS[order[i : i + 4]]
            yield rows[:, :-1], rows[:, 1:]

    def evaluate(self, model, final):
        model.eval()
        with tg.no_grad():
            loss = NEXT_TOKEN.loss(model, IDS[:, :-1], IDS[:, 1:]).item() / IDS[:, 1:].size
        model.train()
        return {"train_loss": loss, "val_loss": loss}

    def about(self):
        return {"data": {}, "batches": [20, 4]}


class Poisoned(Copy):
    def epoch(self, model):
        for i, batch in enumerate(super().epoch(model)):
            if i == 3:
                model.trf_blocks[0].att.W_query.lora_A.data[0, 0] = np.inf
            yield batch


def tuned():
    model = make_model("gpt", SIZES, Generator(7))
    return lora.inject(model, r=2, alpha=4, dropout=0.2, targets="attn", whole="final_norm", rng=Generator(8))


def begin(folder, loggers=(), task=Copy, said=lambda line: None):
    options, model = LoopOptions(**OPTIONS), tuned()
    config = {"format": FORMAT, **describe_model(model), "task": "copy", "training": vars(options)}
    with use_generator(Generator(options.seed)), new_run(folder, config, CharTokenizer.train("abcdefg")):
        return TrainingLoop(task(), options, model, folder, said, loggers).run()


def go_on(folder):
    config = load_config(folder)
    options, model = LoopOptions(**config["training"]), build_model(config, Zeros())
    with use_generator(Generator(0)):
        loop = TrainingLoop(Copy(), options, model, folder, lambda line: None)
        loop.restore(load_checkpoint(newest_checkpoint(folder, verify_checkpoint)))
        loop.rewind()
        return loop.run()


def test_interrupted_and_resumed_it_ends_with_the_same_bits(tmp_path):
    lines = []
    whole = begin(tmp_path / "whole", said=lines.append)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "cut", [StopAfter(7)])
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "cut", verify_checkpoint))
    n = sum(p.size for p in tuned().parameters() if p.requires_grad)
    assert sum(a.size for a in checkpoint.optimizer["moments"].values()) == 2 * n
    assert any(f"{tuned().n_parameters():,} parameters, of which {n:,} are trained" in line for line in lines)
    resumed = go_on(tmp_path / "cut")
    for key, value in resumed.model.state_dict().items():
        assert value.tobytes() == whole.model.state_dict()[key].tobytes(), key
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert whole.metrics[-1]["train_loss"] < whole.metrics[0]["train_loss"]
    base = make_model("gpt", SIZES, Generator(7)).state_dict()
    for name, array in whole.model.state_dict().items():
        if name in base and "final_norm" not in name:
            np.testing.assert_array_equal(array, base[name], err_msg=name)
    opened, _ = load_run(tmp_path / "cut")
    with tg.no_grad():
        np.testing.assert_array_equal(opened(IDS[:, :-1]).data, whole.model.eval()(IDS[:, :-1]).data)


def test_a_step_that_was_not_finite_is_taken_again(tmp_path):
    with pytest.raises(NonFiniteError, match="step 4"):
        begin(tmp_path / "run", task=Poisoned)
    with pytest.raises(NonFiniteError):
        reproduce(tmp_path / "run" / "nonfinite-step-000004")
