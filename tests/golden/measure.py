"""What must not change: weights after training steps, texts, and where a run ends, on fixed input.

Bits are the same from one version of this package to the next on one kind of machine; other processors, or another NumPy, round
otherwise. `arithmetic()` tells whether this machine computes with the bits of the one that made the golden files.
"""

import hashlib
import os
import signal
from pathlib import Path

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm.errors import TinygradLLMError
from tinygrad_llm.generation import beam_search, generate
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.training import pretrain, train_step

HERE = Path(__file__).parent
SIZES = {"vocab_size": 61, "context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 2}
TEXT = "the cat sat on the mat and the rat sat on the hat; a hen in a pen met ten men in a den.\n" * 6
RUN = {"tokenizer": "char", "context_length": 16, "emb_dim": 16, "n_heads": 2, "n_layers": 2, "drop_rate": 0.1}
RUN |= {"epochs": 3, "batch_size": 6, "stride": 8, "eval_every": 4, "eval_batches": 2, "sample_tokens": 20}
RUN |= {"save_every": 100, "keep": 1, "lr": 1e-2, "accumulate": 2, "prompt": "the cat"}
STOPPED_AT = 13  # of 27 steps: in the second of three epochs


def digest(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


def arithmetic() -> str:
    """A hash over what this machine's BLAS and NumPy's loops make of fixed numbers."""
    rng = np.random.RandomState(7)
    sha = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for rows, inner, columns in ((96, 32, 128), (33, 17, 61), (512, 128, 64)):
            x = rng.standard_normal((rows, inner)).astype(dtype)
            w = rng.standard_normal((columns, inner)).astype(dtype)
            y = x @ w.T
            for result in (
                y,
                w.T @ y.T,
                np.exp(y / 8),
                np.tanh(y),
                np.sqrt(abs(y)),
                y.sum(-1),
                y.sum(0),
                (y * y).mean(),
            ):
                sha.update(np.ascontiguousarray(result).tobytes())
    return sha.hexdigest()


def trained(dtype=np.float32, threads=2, **changes) -> tuple[list[float], GPTModel]:
    """The losses of five steps with dropout, ignored targets and clipping, and the model after them."""
    tg.manual_seed(123)
    model = GPTModel(GPTConfig(**SIZES | {"drop_rate": 0.1} | changes)).astype(dtype)
    optimizer = tg.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    rng = np.random.RandomState(5)
    losses = []
    for _ in range(5):
        ids = rng.randint(0, SIZES["vocab_size"], (12, 16))
        targets = np.where(rng.random_sample(ids.shape) < 0.2, -100, np.roll(ids, -1, axis=1))
        losses.append(train_step(model, optimizer, ids, targets, max_norm=1.0, accumulate=3, threads=threads))
    return losses, model


def texts(model: GPTModel) -> dict[str, list]:
    """What a model writes, as token ids: alone and in batches of unequal length, greedy, drawn, in beams, past its context."""
    model.eval()
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3, 5], [8], [9, 7, 9, 3, 2]]
    drawn = {"temperature": 0.9, "top_k": 20, "repetition_penalty": 1.1}

    def rows(ids, n, **options):
        return generate(model, ids, n, **options).tolist()

    return {
        "greedy": rows([prompts[1]], 8),
        "greedy, without cache": rows([prompts[1]], 8, use_cache=False),
        "greedy, past the context": rows([prompts[1]], 20),
        "drawn": rows([prompts[0]], 12, rng=Generator(11), **drawn),
        "drawn by top_p": rows([prompts[0]], 12, rng=Generator(12), temperature=1.2, top_p=0.8),
        "batch, greedy": rows(prompts, 8),
        "batch, past the context": rows(prompts, 20),
        "batch, drawn": rows(prompts, 10, rng=Generator(13), **drawn),
        "batch, with ends": rows(prompts, 10, rng=Generator(14), stop_ids=list(range(0, 61, 4)), temperature=1.0),
        "beams": [h.ids for h in beam_search(model, prompts[1], 7, 3)],
        "beams, with ends": [
            h.ids for h in beam_search(model, prompts[3], 7, 3, length_penalty=0.6, stop_ids=list(range(0, 61, 5)))
        ],
    }


class StopAfter:
    """A logger that interrupts the run, as Ctrl-C does, after so many steps."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def start(self, run, config, step): ...

    def log_step(self, step, loss, lr):
        if step == self.n_steps:
            os.kill(os.getpid(), signal.SIGINT)

    def log_evaluation(self, row): ...

    def log_sample(self, step, text): ...

    def finish(self): ...


def begin_run(folder: Path, stop: bool) -> None:
    """A run in `folder`, from text.txt in the current folder; stopped in its second epoch, or taken to its end."""
    Path("text.txt").write_text(TEXT)
    loggers = [StopAfter(STOPPED_AT)] if stop else []
    try:
        pretrain("text.txt", out=folder, report=lambda line: None, loggers=loggers, **RUN)
    except KeyboardInterrupt:
        if not stop:
            raise
    else:
        if stop:
            raise TinygradLLMError("the run was not stopped")
