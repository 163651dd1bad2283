"""Three small tasks of other kinds than pretraining, trained by the same loop: the seam that tuning/ is built on.

A class for each text, a preference between two continuations, and one loss of two means. Each is interrupted in the middle of
an epoch, and must end with the bits of the run that was not.
"""

import hashlib
import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm import ops
from tinygrad_llm.models import make_model
from tinygrad_llm.nn import Linear
from tinygrad_llm.rng import Generator, get_generator, use_generator
from tinygrad_llm.runs.checkpoint import load_checkpoint, newest_checkpoint, verify_checkpoint
from tinygrad_llm.runs.folder import FORMAT, load_config, new_run
from tinygrad_llm.text import CharTokenizer
from tinygrad_llm.training import reproduce, train_step
from tinygrad_llm.training.loop import TrainingLoop
from tinygrad_llm.training.options import LoopOptions
from tinygrad_llm.training.step import Objective
from tinygrad_llm.training.task import Task

SIZES = {"vocab_size": 8, "context_length": 6, "emb_dim": 12, "n_heads": 2, "n_layers": 1, "drop_rate": 0.1}
OPTIONS = {"epochs": 3, "batch_size": 4, "lr": 1e-2, "eval_every": 2, "save_every": 50}
N = 18  # examples: five batches an epoch, the last of two


class Small(Task):
    """Batches of the rows of some arrays, in an order that is drawn for each epoch."""

    def __init__(self, *arrays):
        self.arrays, self.epochs_begun = arrays, 0

    def __len__(self):
        return math.ceil(N / 4)

    def epoch(self, model):
        order = get_generator().randperm(N)
        self.epochs_begun += 1
        for i in range(0, N, 4):
            yield self.batch(order[i : i + 4])

    def batch(self, rows):
        return tuple(array[rows] for array in self.arrays)

    def evaluate(self, model, final):
        whole = self.batch(np.arange(N))
        model.eval()
        with tg.no_grad():
            loss = self.objective.loss(model, *whole).item() / self.objective.count(*whole)
        model.train()
        return {"train_loss": loss, "val_loss": loss, "half": loss / 2}

    def about(self):
        return {"data": {"n": N}, "batches": [N, 4]}


class Classes(Small):
    """Which of three classes a text is of, by the features of its last token, in a head of its own."""

    name, chance = "classes", math.log(3)

    def __init__(self):
        ids = np.random.RandomState(1).randint(0, 8, (N, 6))
        super().__init__(ids, np.full(N, 5), ids.sum(1) % 3)
        self.objective = Objective(lambda ids, last, labels: len(ids), self.loss)

    @staticmethod
    def loss(model, ids, last, labels):
        features = model.features(ids)[np.arange(len(ids)), last]  # (b, C)
        return ops.cross_entropy(model.head(features), targets=labels, reduction="sum")

    @staticmethod
    def adapt(model):
        model.out_head = Linear(12, 3, rng=Generator(3))
        return model


class Preferences(Small):
    """DPO (Rafailov et al. 2023, eq. 7): -log σ(β [(π_w - ref_w) - (π_l - ref_l)]), log-probabilities of whole texts."""

    name, chance, beta = "preferences", math.log(2), 0.5

    def __init__(self, reference):
        rng = np.random.RandomState(2)
        chosen, rejected = rng.randint(0, 8, (2, N, 6))
        with tg.no_grad():
            references = [self.logprobs(reference.eval(), ids).data for ids in (chosen, rejected)]
        super().__init__(chosen, rejected, *references)
        self.objective = Objective(lambda *batch: len(batch[0]), self.loss)
        self.seen, self.note = np.zeros(3), "none"

    @staticmethod
    def logprobs(model, ids):
        losses = ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:], reduction="none")  # (b, T - 1)
        return -losses.sum(axis=1)

    @classmethod
    def loss(cls, model, chosen, rejected, ref_chosen, ref_rejected):
        h = (cls.logprobs(model, chosen) - ref_chosen) - (cls.logprobs(model, rejected) - ref_rejected)  # (b,)
        logits = ops.stack(cls.beta * h, 0 * h, axis=1)  # (b, 2): -log sigmoid(h) is the cross-entropy of the first
        return ops.cross_entropy(logits, targets=np.zeros(len(chosen), np.int64), reduction="sum")

    def epoch(self, model):
        for batch in super().epoch(model):
            self.seen += len(batch[0])
            self.note = f"{self.seen[0]:.0f} pairs"
            yield batch

    def state(self):
        return {"seen": self.seen, "note": self.note}

    def restore(self, state):
        self.restored = state
        self.seen, self.note = state["seen"].copy(), state["note"]

    def sample(self, model, step, final):
        return f"{self.note} at step {step}" + " in the end" * final

    @staticmethod
    def adapt(model):
        return model


class WordsAndSentences(Small):
    """The mean over masked words and the mean over sentences, added: each loss has its weight in the batch."""

    name, chance = "words and sentences", math.log(8) + math.log(2)

    def __init__(self):
        rng = np.random.RandomState(4)
        ids = rng.randint(0, 8, (N, 6))
        super().__init__(ids, rng.random_sample(ids.shape) < 0.3, ids[:, 0] % 2)
        self.objective = Objective(lambda *batch: 1, self.loss)

    def batch(self, rows):
        ids, masked, follows = super().batch(rows)
        word_weights = masked / max(1, masked.sum())  # (B, T)
        return ids, word_weights.astype(np.float32), follows, np.full(len(ids), 1 / len(ids), np.float32)

    @staticmethod
    def loss(model, ids, word_weights, follows, sentence_weights):
        seen = np.where(word_weights > 0, 7, ids)
        features = model.features(seen)  # (b, T, C)
        words = ops.cross_entropy(model.head(features), targets=ids, reduction="none")  # (b, T)
        sentences = ops.cross_entropy(model.sentence_head(features[:, 0]), targets=follows, reduction="none")  # (b,)
        return (words * word_weights).sum() + (sentences * sentence_weights).sum()

    @staticmethod
    def adapt(model):
        model.sentence_head = Linear(12, 2, rng=Generator(5))
        return model


def reference_model():
    return make_model("gpt", SIZES, Generator(7))


TASKS = {
    "classes": Classes,
    "preferences": lambda: Preferences(reference_model()),
    "words and sentences": WordsAndSentences,
}


def begin(task, folder, loggers=(), **changes):
    options, model = LoopOptions(**OPTIONS | changes), task.adapt(reference_model())
    config = {"format": FORMAT, "architecture": "gpt", "model": SIZES, "task": task.name, "training": vars(options)}
    with use_generator(Generator(options.seed)), new_run(folder, config, CharTokenizer.train("abcdefgh")):
        return TrainingLoop(task, options, model, folder, lambda line: None, loggers).run()


def go_on(task, folder):
    options, model = LoopOptions(**load_config(folder)["training"]), task.adapt(make_model("gpt", SIZES))
    with use_generator(Generator(0)):
        loop = TrainingLoop(task, options, model, folder, lambda line: None)
        loop.restore(load_checkpoint(newest_checkpoint(folder, verify_checkpoint)))
        loop.rewind()
        return loop.run()


@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(name, tmp_path):
    whole = begin(TASKS[name](), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        begin(TASKS[name](), tmp_path / "cut", [StopAfter(7)])
    resumed = go_on(TASKS[name](), tmp_path / "cut")
    weights = whole.model.state_dict()
    for key, value in resumed.model.state_dict().items():
        assert value.tobytes() == weights[key].tobytes(), key
    for file in ("metrics.jsonl", "samples.txt"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10, 12, 14, 15]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["half"] == rows[-1]["train_loss"] / 2
    assert any("half" in line for line in resumed.lines())
    assert load_config(tmp_path / "cut")["task"] == name


def test_a_preference_starts_at_ln_2(tmp_path):
    task = Preferences(reference_model())
    row = task.evaluate(reference_model(), False)
    assert row["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert begin(task, tmp_path / "run").metrics[0]["train_loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_what_a_task_keeps_is_in_every_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        begin(Preferences(reference_model()), tmp_path / "run", [StopAfter(7)])
    (checkpoint,) = (tmp_path / "run").glob("step-*")
    assert "task.safetensors" in (checkpoint / "SHA256SUMS").read_text()
    task = Preferences(reference_model())
    go_on(task, tmp_path / "run")
    np.testing.assert_array_equal(
        task.restored["seen"], np.full(3, 26.0)
    )  # 18 in the first epoch, two batches of the second
    assert task.restored["note"] == "26 pairs"


def test_the_gradient_of_two_means_is_the_sum_of_theirs():
    task, model = WordsAndSentences(), WordsAndSentences.adapt(reference_model()).astype(np.float64).eval()
    ids, masked, follows = task.arrays
    features = model.features(np.where(masked, 7, ids))
    words = ops.cross_entropy(model.head(features)[masked], targets=ids[masked])
    (words + ops.cross_entropy(model.sentence_head(features[:, 0]), targets=follows)).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    batch = (*task.batch(np.arange(N)),)
    task.objective.loss(model, *batch).backward()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad, expected[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_in_parts_and_on_threads_is_the_batch(name):
    found = []
    for options in ({}, {"threads": 1}, {"accumulate": 3, "threads": 1}, {"accumulate": 6}):
        task = TASKS[name]()
        model = task.adapt(make_model("gpt", SIZES | {"drop_rate": 0.0}, Generator(7)))
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        loss = train_step(model, optimizer, *task.batch(np.arange(12)), objective=task.objective, **options)
        found.append([loss, *(p.data for p in model.parameters())])
    for one, other in pairwise(found):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_step_of_another_task_that_is_not_finite_can_be_taken_again(tmp_path):
    class Broken(Classes):
        def epoch(self, model):
            for i, batch in enumerate(super().epoch(model)):
                if i == 3:
                    model.out_head.bias.data[0] = np.nan
                yield batch

    with pytest.raises(tg.errors.NonFiniteError, match=r"step 4: .* takes the step again, .*report\.html shows it"):
        begin(Broken(), tmp_path / "run")
    (folder,) = (tmp_path / "run").glob("nonfinite-step-000004")
    with pytest.raises(tg.errors.ConfigError, match="holds ids, last, labels, the objective takes ids, targets"):
        reproduce(folder)
    assert (folder / "report.html").stat().st_size > 10_000


def test_batches_that_are_others_begin_the_epoch_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        begin(Classes(), tmp_path / "run", [StopAfter(7)])

    class Reordered(Classes):
        def about(self):
            return super().about() | {"batches": "others"}

    task = Reordered()
    assert go_on(task, tmp_path / "run").metrics[-1]["step"] == 7 + 5 + 5
    assert task.epochs_begun == 2


def test_a_checkpoint_that_does_not_say_its_batches_begins_the_epoch_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        begin(Classes(), tmp_path / "run", [StopAfter(7)])
    (state,) = (tmp_path / "run").glob("step-*/trainer_state.json")
    record = json.loads(state.read_text())
    del record["batches"]
    state.write_text(json.dumps(record))
    sums = state.with_name("SHA256SUMS")
    sums.write_text(
        re.sub(r"\w{64}  trainer", f"{hashlib.sha256(state.read_bytes()).hexdigest()}  trainer", sums.read_text())
    )
    assert go_on(Classes(), tmp_path / "run").metrics[-1]["step"] == 7 + 5 + 5
