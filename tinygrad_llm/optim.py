"""Optimizers: how gradients become better weights. Read top to bottom, from the plain step to clipping.

    optimizer = AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    schedule = CosineSchedule(peak_lr=4e-4, total_steps=1000, warmup_steps=100)
    for step in range(1000):
        optimizer.zero_grad()
        loss(model).backward()
        clip_grad_norm(model.parameters(), max_norm=1.0)
        optimizer.set_lr(schedule(step))
        optimizer.step()

Letters: p the weights, g their gradient, m and v decaying sums of g and g^2; all have the shape of p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from . import parallel
from .checks import check_number, is_number
from .errors import ConfigError, DTypeError, NonFiniteError, ShapeError, StateDictError
from .schedules import ConstantSchedule as ConstantSchedule  # as in torch.optim, schedules are found here
from .schedules import CosineSchedule as CosineSchedule
from .schedules import LinearSchedule as LinearSchedule
from .schedules import NoamSchedule as NoamSchedule

if TYPE_CHECKING:
    from .engine import Tensor


# ---- the rules: one parameter, one step, in place


def sgd_update(
    p: np.ndarray,
    g: np.ndarray,
    velocity: np.ndarray | None = None,
    *,
    step: int,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """p <- p - lr u,  u <- momentum u + g,  where g includes weight_decay p.

    Momentum is Polyak's (1964): u, here `velocity`, is a decaying sum of gradients; without momentum u = g. The decay is
    the gradient of an L2 penalty, (weight_decay / 2) |p|^2.
    """
    if weight_decay:
        g = g + weight_decay * p
    if velocity is not None:
        velocity *= momentum
        velocity += g
        g = velocity
    p -= lr * g


def adamw_update(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """p <- p (1 - lr weight_decay) - lr m' / (sqrt(v') + eps),  m' = m (1 - beta1) / (1 - beta1^t),  v' likewise with beta2

    m <- beta1 m + g and v <- beta2 v + g^2 start at zero, which the divisors make up for; t = `step` is 1 at the first. All
    constants go into one factor and one eps: s = lr a / b and eps / b, where m' = a m and sqrt(v') = b sqrt(v). Adam: Kingma
    and Ba 2015, algorithm 1, whose m and v are (1 - beta) times these sums. The decay beside it instead of inside g:
    Loshchilov and Hutter 2019, algorithm 2. With eps = 0 a weight whose gradients were all zero stays where it is.
    """
    beta1, beta2 = betas
    a = (1 - beta1) / (1 - beta1**step)
    b = math.sqrt((1 - beta2) / (1 - beta2**step))

    m *= beta1
    m += g
    u = g * g  # the one temporary: every line works in place
    v *= beta2
    v += u

    np.sqrt(v, out=u)
    u += eps / b
    if p.dtype.type(eps / b) == 0:
        u[u == 0] = math.inf
    np.divide(m, u, out=u)
    u *= lr * a / b
    if weight_decay:
        p *= 1 - lr * weight_decay
    p -= u


# ---- the optimizers: parameters in groups, their options, and what is remembered of each


@dataclass
class _State:
    step: int = 0
    moments: dict[str, np.ndarray] = field(default_factory=dict)


class Optimizer:
    """What SGD and AdamW share: parameters in groups, the options of each group, the moments of each parameter.

    `parameters`: tensors, or dictionaries {"params": tensors, "lr": ..., "weight_decay": ...} whose options override the
    optimizer's. A tensor that occurs twice in a group counts once. `param_groups` holds these dictionaries, complete;
    what is written to an option there counts from the next step. ConfigError for an option out of range, no parameters,
    or a tensor in two groups; DTypeError for data that is not float32 or float64.
    """

    update: Callable[..., None]  # the rule above that a subclass applies
    gradient_norm: float | None = None  # in the last `train_step`, before clipping
    update_ratio: float | None = None  # |change| / |weights| of the last step() that measured it, as one vector

    def __init__(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], **options: Any) -> None:
        options = _check_options(options)
        if not isinstance(parameters, Iterable):
            raise ConfigError(
                f"parameters is a {type(parameters).__name__}: pass model.parameters() or a list of tensors"
            )
        groups: list[Any] = list(parameters)
        if not any(isinstance(group, dict) for group in groups):
            groups = [{"params": groups}]
        self.param_groups: list[dict[str, Any]] = []
        self._lr_scales: list[float] = []
        self._checked: list[dict[str, Any]] = []  # the options of each group that were found right
        self._states: dict[Tensor, _State] = {}
        for i, group in enumerate(groups):
            self._add_group(f"group {i}", group, options)

    def _add_group(self, where: str, group: Any, options: dict[str, Any]) -> None:
        if not isinstance(group, dict) or not isinstance(group.get("params"), Iterable):
            raise ConfigError(f'{where} is {_brief(group)}: it must be a dictionary {{"params": [tensors], ...}}')
        if unknown := group.keys() - options.keys() - {"params"}:
            raise ConfigError(f"{where} has no option {min(unknown)!r}: there are {', '.join(options)}")
        own = _check_options({name: group.get(name, default) for name, default in options.items()})
        if options["lr"] == 0 < own["lr"]:
            raise ConfigError(
                f"{where}: lr is {own['lr']}, the optimizer's is 0: set_lr keeps their ratio, so give both"
            )
        params = list(group["params"])
        if not params:
            raise ConfigError(f"{where} has no parameters: the list is empty, or an iterator already used up")
        for i, p in enumerate(params):
            _check_parameter(f"{where}, parameter {i}", p)
            if p in self._states:
                raise ConfigError(f"{where}, parameter {i}: {_brief(p)} is in an earlier group too: keep it in one")
        self.param_groups.append({"params": list(dict.fromkeys(params))} | own)
        self._lr_scales.append(own["lr"] / options["lr"] if options["lr"] else 1.0)
        self._checked.append(own)
        self._states.update((p, _State()) for p in params)

    def __repr__(self) -> str:
        """`AdamW(10 + 18 parameters, 3,456 numbers, lr 0.0004, ..., weight_decay 0.1 | 0, step 12)`: of each group, in short."""
        counts = _in_short([str(len(group["params"])) for group in self.param_groups], " + ")
        words = [f"{counts} parameters", f"{sum(p.data.size for p in self._states):,} numbers"]
        for name in self._checked[0]:
            values = dict.fromkeys(_say(group[name]) for group in self.param_groups)
            words.append(f"{name} {_in_short(list(values), ' | ')}")
        words.append(f"step {max(state.step for state in self._states.values())}")
        return f"{type(self).__name__}({', '.join(words)})"

    def _repr_html_(self) -> str:
        from .debug.html import optimizer_html  # a notebook asks for it

        return optimizer_html(self)

    def moment_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        """The arrays that `update` keeps for a parameter under these options."""
        raise NotImplementedError

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, as a schedule gives it; a group with an lr of its own keeps its ratio to the others."""
        lr = _check_options({"lr": lr})["lr"]
        for group, scale in zip(self.param_groups, self._lr_scales, strict=True):
            group["lr"] = lr * scale

    def parameters(self) -> list[Tensor]:
        """All of them, in the order in which they were given."""
        return list(self._states)

    def zero_grad(self) -> None:
        """Forget all gradients: the next backward starts from none."""
        for p in self._states:
            p.grad = None

    def step(self, *, gradient_scale: float = 1.0, measure: bool = False) -> None:
        """Change, in place, every parameter that has a gradient; one without is left alone, and so are its moments.

        Gradients count `gradient_scale` times: `clip_scale(norm, max_norm)` clips them without another pass over memory.
        With `measure`, `update_ratio` says how far the weights went.
        """
        todo = []
        for i, group in enumerate(self.param_groups):
            options = dict(group)
            params = options.pop("params")
            if options != self._checked[i]:
                self._checked[i] = _check_options(options)
            options = self._checked[i]
            for p in params:
                if p.grad is not None:
                    _check_arrays(p, {"gradient": p.grad, **self._states[p].moments})
                    todo.append((p, p.grad, self._states[p], options))
        blocks = []
        for p, g, state, options in todo:
            for name in self.moment_names(options):
                if name not in state.moments:
                    state.moments[name] = np.zeros_like(p.data)
            state.step += 1
            update = partial(self.update, step=state.step, **options)
            for i in parallel.blocks(p.data):
                blocks.append((update, gradient_scale, p.data, g, state.moments, i))
        if not measure:
            parallel.spread(_update_block, blocks)
            return
        changes, weights = np.sum(parallel.spread(_measure_block, blocks), axis=0).tolist() if blocks else (0.0, 0.0)
        self.update_ratio = math.sqrt(changes / weights) if weights else None

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on to the bit: "param_groups" and "steps" are plain data, "moments" a dict of arrays.

        Parameters go by number, in the order they were given: "moments" has keys like "0.m" and "0.v". The arrays are
        the optimizer's own, not copies: write them out before the next step.
        """
        number = {p: i for i, p in enumerate(self._states)}
        return {
            "param_groups": [group | {"params": [number[p] for p in group["params"]]} for group in self.param_groups],
            "steps": [state.step for state in self._states.values()],
            "moments": {f"{number[p]}.{name}": a for p, s in self._states.items() for name, a in s.moments.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over options, steps and copies of the moments. StateDictError, and no change, where they do not fit."""
        mine, where = self.state_dict(), f"{type(self).__name__}.load_state_dict"
        if state_dict.keys() != mine.keys():
            raise StateDictError(
                f"{where}: it has {sorted(state_dict)}, not {sorted(mine)}: pass what state_dict() returned"
            )
        groups, steps, moments = state_dict["param_groups"], state_dict["steps"], state_dict["moments"]
        theirs, ours = ([(g["params"], g.keys()) for g in gs] for gs in (groups, mine["param_groups"]))
        if theirs != ours:
            raise StateDictError(f"{where}: it is for {_layout(groups)}; this is {_layout(self.param_groups)}")
        if len(steps) != len(self._states) or not all(isinstance(n, int) and n >= 0 for n in steps):
            raise StateDictError(f"{where}: steps is {steps!r:.60}: it must be one count for each parameter")
        options = [_check_options({name: value for name, value in g.items() if name != "params"}) for g in groups]
        parameters = list(self._states)
        expected = {
            f"{i}.{name}": parameters[i]
            for group in groups
            for i in group["params"]
            if steps[i] > 0
            for name in self.moment_names(group)
        }
        if differing := sorted(moments.keys() ^ expected.keys()):
            problem = "is missing" if differing[0] in expected else "belongs to no parameter"
            raise StateDictError(f"{where}: moment {differing[0]!r} {problem} ({len(differing)} such)")
        for key, p in expected.items():
            a = moments[key]
            if a.shape != p.data.shape or a.dtype != p.data.dtype:
                raise StateDictError(f"{where}: moment {key!r} is {a.dtype} {a.shape}, its parameter is {_brief(p)}")

        for group, new in zip(self.param_groups, options, strict=True):
            group.update(new)
        self._states = {p: _State(step) for p, step in zip(parameters, steps, strict=True)}
        for key, p in expected.items():
            self._states[p].moments[key.split(".")[1]] = moments[key].copy()


def _update_block(block: tuple) -> None:
    """The rule on a part of one parameter that fits into the cache."""
    update, gradient_scale, p, g, moments, i = block
    g = g[i] if gradient_scale == 1 else g[i] * gradient_scale
    update(p[i], g, *map(itemgetter(i), moments.values()))


def _measure_block(block: tuple) -> tuple[float, float]:
    """The same, and the squares of what it changed and of what was there, added up."""
    p, i = block[2], block[-1]
    before = p[i].copy()
    _update_block(block)
    return _sum_of_squares(p[i] - before), _sum_of_squares(before)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for; the rule is `sgd_update`."""

    update = staticmethod(sgd_update)

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def moment_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return ("velocity",) if options["momentum"] else ()


class AdamW(Optimizer):
    """Adam with decoupled weight decay, which acts on every parameter of a group; the rule is `adamw_update`."""

    update = staticmethod(adamw_update)

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def moment_names(self, options: dict[str, Any]) -> tuple[str, ...]:
        return ("m", "v")


def decay_groups(parameters: Iterable[Tensor], decay: str = "matrices") -> list[dict[str, Any]]:
    """Groups for an optimizer whose weight decay acts on the first alone: on "all", or on "matrices" and tables.

    A bias or the scale of a norm has nothing to gain from being small; nanoGPT leaves out all that has less than two axes.
    What is frozen (`requires_grad` is False) is in neither: an optimizer would keep it alone and still check it at every step.
    What has a learning rate of its own (`nn.Parameter(data, lr=...)`) is a group with this rate, which does not decay.
    """
    slow: dict[float, list[Tensor]] = {}
    for p in (every := [p for p in parameters if p.requires_grad]):
        if (lr := getattr(p, "lr", None)) is not None:
            slow.setdefault(lr, []).append(p)
    parameters = [p for p in every if getattr(p, "lr", None) is None]
    decaying = [p for p in parameters if decay == "all" or p.ndim >= 2]
    others = [p for p in parameters if decay != "all" and p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    groups += [{"params": params, "lr": lr, "weight_decay": 0.0} for lr, params in slow.items()]
    return [group for group in groups if group["params"]]


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options as Python floats: a NumPy float64 scalar would turn float32 arithmetic into float64."""
    checked = dict(options)
    for name, value in options.items():
        if name == "betas":
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise ConfigError(f"betas is {value!r}: it must be a pair of numbers")
            checked[name] = tuple(check_number("betas", beta, below=1) for beta in value)
        else:
            checked[name] = check_number(name, value, below=1 if name == "momentum" else math.inf)
    return checked


def _check_parameter(where: str, p: Any) -> None:
    data = getattr(p, "data", None)
    if not isinstance(data, np.ndarray) or not hasattr(p, "grad"):
        raise ConfigError(f"{where} is {_brief(p)}: it must be a tensor")
    if data.dtype not in (np.float32, np.float64):
        raise DTypeError(f"{where} is {_brief(p)}: its data must be float32 or float64")
    if p.node is not None:
        raise ConfigError(f"{where} is {_brief(p)}: it is computed from other tensors, optimize those")
    if not data.flags.writeable:
        raise ConfigError(f"{where} is {_brief(p)}: its data is read-only, so give it a copy")


def _check_arrays(p: Tensor, arrays: dict[str, np.ndarray]) -> None:
    for name, a in arrays.items():
        if a.shape != p.data.shape:
            raise ShapeError(f"{_brief(p)}: its {name} has shape {a.shape}: it must have the parameter's")
        if a.dtype != p.data.dtype:
            raise DTypeError(f"{_brief(p)}: its {name} is {a.dtype}: change dtypes before building the optimizer")


def _brief(p: Any) -> str:
    data = getattr(p, "data", None)
    if not isinstance(data, np.ndarray):
        return f"a {type(p).__name__}"
    return f"{getattr(p, 'name', None) or 'a tensor'} {data.dtype} {data.shape}"


def _say(option: Any) -> str:
    return f"{option:.6g}" if isinstance(option, float) else str(option)


def _in_short(words: list[str], between: str) -> str:
    return between.join(words if len(words) <= 3 else [*words[:2], "...", words[-1]])


def _layout(groups: list[dict[str, Any]]) -> str:
    return ", ".join(f"{len(g['params'])} parameters with {'/'.join(sorted(g.keys() - {'params'}))}" for g in groups)


# ---- clipping


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), in place; returns the norm before.

    The norm is the Euclidean one of all gradients as a single vector (Pascanu, Mikolov and Bengio 2013, section 3.2);
    `max_norm=math.inf` only measures it. NonFiniteError, with nothing changed, says where the first NaN or infinity is.
    """
    gradients = {p: p.grad for p in parameters if p.grad is not None}
    norm = gradient_norm(gradients)
    if (scale := clip_scale(norm, max_norm)) < 1:
        for g in gradients.values():
            g *= scale
    return norm


def clip_scale(norm: float, max_norm: float) -> float:
    """min(1, max_norm / (norm + 1e-6)): what gradients of this norm are multiplied by."""
    if not is_number(max_norm) or not max_norm > 0:
        raise ConfigError(f"max_norm is {max_norm!r}: it must be a number above 0 (math.inf to measure the norm only)")
    return min(1.0, float(max_norm) / (norm + 1e-6))


def gradient_norm(gradients: dict[Tensor, np.ndarray]) -> float:
    """The Euclidean norm of all gradients as one vector. NonFiniteError says where the first NaN or infinity is."""
    squares = [sum(parallel.spread(partial(_sum_of_squares, g), parallel.blocks(g))) for g in gradients.values()]
    norm = math.sqrt(sum(squares))
    return norm if math.isfinite(norm) else _large_norm(gradients)


def _sum_of_squares(g: np.ndarray, block: Any = ...) -> float:
    """Of one block; in float32 alone, tens of millions of squares would add up to only four right digits."""
    flat = g[block].reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is looked into by the caller
        return float(np.dot(flat, flat))


def _large_norm(gradients: dict[Tensor, np.ndarray]) -> float:
    """The norm where squares overflow, if it exists: |g| = c |g / c| with c the largest element."""
    for p, g in gradients.items():
        if not np.isfinite(g).all():
            index = tuple(np.argwhere(~np.isfinite(g))[0].tolist())
            raise NonFiniteError(f"clip_grad_norm: the gradient of {_brief(p)} is {g[index]} at {index}")
    largest = max(float(np.abs(g).max(initial=0)) for g in gradients.values())
    return largest * math.sqrt(sum(_sum_of_squares((g / largest).astype(np.float64)) for g in gradients.values()))
