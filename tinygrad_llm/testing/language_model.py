"""The contract of every causal language model, as properties: what generation, training and saving count on.

    check_language_model(lambda rng: make_model("gpt", SMALL, rng).astype(np.float64))

Letters in shape comments: B rows, T tokens, C features, V vocabulary.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import no_grad
from ..formats.safetensors import encode_arrays, read_arrays
from ..models import LanguageModel, make_model
from ..nn import Parameter
from ..ops import cross_entropy
from ..optim import AdamW
from ..rng import Generator, Zeros, use_generator

Make = Callable[[Generator], LanguageModel]
_T = 6  # tokens of a text, or as many as the context holds
_CLOSE = 1e-11  # of the largest number: two ways to the same sum in float64


def check_language_model(make: Make, *, seed: int = 0) -> None:
    """Hold a model to the contract of LanguageModel. AssertionError names the property that fails.

    `make(rng)` gives a small model in float64 without dropout, whose weights are drawn from `rng` alone; it is called some ten
    times. `seed` decides weights and texts.
    """
    for name, check in PROPERTIES.items():
        try:
            check(make, seed)
        except AssertionError as error:
            raise AssertionError(f"{name}: {str(error).strip()}") from error


def _new(make: Make, seed: int) -> tuple[LanguageModel, np.ndarray]:
    """A model in evaluation mode, and three texts (3, T)."""
    model = make(Generator(seed)).eval()
    n_tokens = min(_T, model.config.context_length or _T)
    _demand(n_tokens >= 3, "the context must hold three tokens or more")
    ids = np.random.default_rng(seed).integers(0, model.config.vocab_size, (3, n_tokens))
    return model, ids


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _same(found: Any, expected: Any, what: str, tolerance: float = _CLOSE) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    _demand(found.shape == expected.shape, f"{what}: shape {found.shape}, it must be {expected.shape}")
    largest = np.abs(expected).max(initial=1e-300)
    apart = np.abs(found - expected).max(initial=0)
    _demand(bool(apart <= tolerance * largest), f"{what}: {apart:.3g} apart, where the largest number is {largest:.3g}")


def _loss(model: LanguageModel, ids: np.ndarray) -> Any:
    return cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:])


def _gradients(model: LanguageModel, ids: np.ndarray) -> dict[str, np.ndarray]:
    """dL/d(parameter) by name."""
    found: dict = {}
    _loss(model, ids).backward(into=found)
    return {name: found[p] for name, p in model.named_parameters() if p in found}


def _made_from_its_config(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    again, _ = _new(make, seed)
    _demand(all(p.data.dtype == np.float64 for p in model.parameters()), "make(rng) must give a model in float64")
    with no_grad():
        _same(again(ids).data, model(ids).data, "two models from the same seed", 0)
    twin = make_model(model.architecture, json.loads(json.dumps(model.config.to_dict())), Zeros())
    _demand(
        type(twin) is type(model) and twin.config == model.config, "make_model(architecture, config) makes another one"
    )
    shapes, twins = ({n: p.shape for n, p in m.named_parameters()} for m in (model, twin))
    _demand(shapes == twins, f"parameters differ: {sorted(shapes.items() ^ twins.items())[:4]}")
    count, says = model.n_parameters(), model.config.n_parameters()
    _demand(says == count, f"config.n_parameters() is {says}, the model has {count}")


def _features_and_head(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    with no_grad():
        logits, features = model(ids).data, model.features(ids)
        _demand(logits.shape == (*ids.shape, model.config.vocab_size), f"logits are {logits.shape}")
        _demand(features.shape[:2] == ids.shape and features.ndim == 3, f"features are {features.shape}")
        _same(model.head(features).data, logits, "head(features(ids)) and model(ids)", 0)
        _same(
            model.out_head(model.final_norm(features)).data, logits, "out_head(final_norm(features)) and model(ids)", 0
        )
        _same(model(ids, last_only=True).data, logits[:, -1:], "last_only")
        _same(model.head(features[1, 2]).data, logits[1, 2], "the head of one row (C,)")


def _independent_of_the_future(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    with no_grad():
        logits = model(ids).data
        for t in range(ids.shape[1]):
            changed = ids.copy()
            changed[:, t + 1 :] = (ids[:, t + 1 :] + 1) % model.config.vocab_size
            _same(
                model(changed).data[:, : t + 1],
                logits[:, : t + 1],
                f"logits of token {t} when later ones change",
                1e-12,
            )
            _same(model(ids[:, : t + 1]).data, logits[:, : t + 1], f"logits of the first {t + 1} tokens alone")
        changed = ids.copy()
        changed[:, 0] = (ids[:, 0] + 1) % model.config.vocab_size
        apart = np.abs(model(changed).data - logits).max(axis=(0, 2))  # (T,)
    _demand(bool(apart[0] > 0), "logits do not depend on the token that is read")


def _rows_do_not_meet(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    with no_grad():
        logits = model(ids).data
        for b in range(len(ids)):
            _same(model(ids[b : b + 1]).data[0], logits[b], f"row {b} alone and in a batch")


def _a_state_in_any_chunks(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    n_tokens = ids.shape[1]
    with no_grad():
        logits = model(ids).data
        for cuts in range(2 ** (n_tokens - 1)):  # every way to cut the text into pieces
            borders = [0, *(t for t in range(1, n_tokens) if cuts >> (t - 1) & 1), n_tokens]
            state = model.make_state(len(ids), capacity=n_tokens)
            pieces = [model(ids[:, a:b], state=state).data for a, b in pairwise(borders)]
            _same(np.concatenate(pieces, axis=1), logits, f"a text read in pieces up to {borders[1:]}")
            _demand(state.lengths.tolist() == [n_tokens] * len(ids), f"state.lengths is {state.lengths}")


def _rows_of_different_ages(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    ages = [ids.shape[1] - 2, 1, ids.shape[1] - 1]
    with no_grad():
        state: Any = None
        for b, age in enumerate(ages):  # rows join one by one
            row = model.make_state(1)
            model(ids[b : b + 1, :age], state=row)
            if state is None:
                state = row
            else:
                state.append(row)
        _demand(state.lengths.tolist() == ages, f"state.lengths is {state.lengths} after rows of {ages} tokens")
        order = [2, 1, 0, 1]
        state.select(order)
        for step in range(2):  # one token, then as many as there is room for
            rows = [b for b in order if ages[b] + step < ids.shape[1]]
            state.select([k for k, b in enumerate(order) if b in rows])
            order = rows
            following = np.array([[ids[b, ages[b] + step]] for b in order])  # (B, 1)
            logits = model(following, state=state, last_only=True).data  # (B, 1, V)
            for k, b in enumerate(order):
                _same(
                    logits[k],
                    model(ids[b : b + 1, : ages[b] + step + 1], last_only=True).data[0],
                    f"row {b}, step {step}",
                )
        state, older = model.make_state(1), model.make_state(1)
        model(ids[:1, :1], state=older)
        state.append(older)
        logits = model(ids[:2, 1:], state=state).data[
            1
        ]  # two rows, one of which has read a token: several tokens at once
        _same(
            logits, model(np.r_[ids[0, :1], ids[1, 1:]][None]).data[0, 1:], "several tokens for rows of different ages"
        )


def _tied_weights(make: Make, seed: int) -> None:
    """Where one parameter has two names, its gradient is the sum of both uses."""
    model, ids = _new(make, seed)
    first = {id(p): name for name, p in model.named_parameters()}
    names = [name for name in model.state_dict() if name not in first.values()]
    for name in names:
        untied, _ = _new(make, seed)
        path, _, attribute = name.rpartition(".")
        owner = dict(untied.named_modules())[path]
        shared = getattr(owner, attribute)
        setattr(owner, attribute, Parameter(shared.data.copy()))
        other = next(n for n, p in untied.named_parameters() if p is shared)
        both, apart = _gradients(model, ids), _gradients(untied, ids)
        for use in (other, name):
            _demand(use in apart, f"no gradient comes back to {use}, which shares its weights")
        _same(both[other], apart[other] + apart[name], f"the gradient of {other}, which is {name} too")


def _checkpointed_blocks(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    plain = _gradients(model, ids)
    model.checkpoint_blocks = True
    for name, gradient in _gradients(model, ids).items():
        _same(gradient, plain[name], f"the gradient of {name} with checkpoint_blocks")


def _every_parameter_learns(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    gradients = _gradients(model, ids)
    for name, _ in model.named_parameters():
        _demand(name in gradients, f"no gradient comes back to {name}")
        _demand(bool(np.isfinite(gradients[name]).all()), f"the gradient of {name} is not finite")


def _saved_and_loaded(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(b"".join(encode_arrays(model.state_dict())))
        arrays = read_arrays(path)
    loaded = make_model(model.architecture, model.config.to_dict(), Zeros()).astype(np.float64).eval()
    loaded.load_state_dict(arrays)
    with no_grad():
        _same(loaded(ids).data, model(ids).data, "the model from its saved weights", 0)


def _resumed(make: Make, seed: int) -> None:
    from ..training.step import train_step  # above testing in the order of the package, and needed here alone

    def steps(model: LanguageModel, optimizer: AdamW, n: int) -> list[float]:
        return [train_step(model, optimizer, ids[:, :-1], ids[:, 1:], max_norm=1.0, threads=1) for _ in range(n)]

    model, ids = _new(make, seed)
    with use_generator(Generator(seed)):
        optimizer = AdamW(model.train().parameters(), lr=1e-2)
        expected = steps(model, optimizer, 4)
    _demand(expected[-1] < expected[0], f"the loss does not fall: {expected}")
    with use_generator(Generator(seed)) as rng:
        model, _ = _new(make, seed)
        optimizer = AdamW(model.train().parameters(), lr=1e-2)
        found = steps(model, optimizer, 2)
        weights = {name: array.copy() for name, array in model.state_dict().items()}
        moments, where = optimizer.state_dict(), rng.get_state()
    with use_generator(Generator(seed + 1)) as rng:
        model = make(Generator(seed + 1)).train()
        model.load_state_dict(weights)
        optimizer = AdamW(model.parameters(), lr=1e-2)
        optimizer.load_state_dict(moments)
        rng.set_state(where)
        found += steps(model, optimizer, 2)
    _demand(found == expected, f"losses of a run that went on from its checkpoint: {found}, uninterrupted {expected}")


def _grows(make: Make, seed: int) -> None:
    model, ids = _new(make, seed)
    v, before = model.config.vocab_size, {name: array.copy() for name, array in model.state_dict().items()}
    with no_grad():
        logits = model(ids).data
        model.resize_vocabulary(v + 2)
        grown = model(ids).data
        _same(grown[..., :v], logits, "the logits of the old tokens")
        _same(
            grown[..., v:], np.stack([logits.mean(-1)] * 2, -1), "the logits of new tokens, and the mean of the others"
        )
        _same(model(np.full_like(ids, v)).data, model(np.full_like(ids, v + 1)).data, "two new tokens", 0)
    for name, array in model.state_dict().items():
        _same(array[: len(before[name])], before[name], f"what was in {name}", 0)
    twin = make_model(model.architecture, model.config, Zeros())
    shapes, twins = ({n: p.shape for n, p in m.named_parameters()} for m in (model, twin))
    _demand(shapes == twins, f"parameters differ from the new config's: {sorted(shapes.items() ^ twins.items())[:4]}")


PROPERTIES: dict[str, Callable[[Make, int], None]] = {
    "made from its configuration": _made_from_its_config,
    "features and head": _features_and_head,
    "independent of the future": _independent_of_the_future,
    "rows do not meet": _rows_do_not_meet,
    "a state in any chunks": _a_state_in_any_chunks,
    "rows of different ages": _rows_of_different_ages,
    "tied weights": _tied_weights,
    "checkpointed blocks": _checkpointed_blocks,
    "every parameter learns": _every_parameter_learns,
    "saved and loaded": _saved_and_loaded,
    "resumed": _resumed,
    "a larger vocabulary": _grows,
}
