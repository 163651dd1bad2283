"""What a policy is rewarded by, and answers put in order by it.

reward = reward_named("exact")
score(reward, ["Add: 1 + 2", "Add: 2 + 2"], ["3", "5"], {"answer": ["3", "4"]})      # [1.0, 0.0]
label(["Review the film."], [["the film was dull.", "the film was good."]], reward_named("reviews"))      # [[2, 1]]

A reward is a function f(prompts, completions, **columns) that returns a number for each completion, as those of TRL are.
Prompts and completions are texts, or lists of messages; each further column of the file of prompts comes as a list too.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..checks import check_number, did_you_mean, is_number
from ..errors import ConfigError, DataError
from ..rng import Generator, get_generator
from ..text.reviews import asked, true_score
from ..text.templates import Message

Text = str | Sequence[Message]
Reward = Callable[..., Sequence[float]]


def reviews(prompts: Sequence[Text], completions: Sequence[Text], **columns: Sequence[Any]) -> list[float]:
    """The true score of each as a review of what its prompt asks for (text/reviews.py); of anything, if that names nothing."""
    things = [asked(_last(prompt)) for prompt in prompts]
    return [true_score(_last(text).strip(), thing) for text, thing in zip(completions, things, strict=True)]


def exact(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    answer: Sequence[Any] | None = None,
    **columns: Sequence[Any],
) -> list[float]:
    """1.0 for each that is the answer in the column of this name, white space at the ends aside, else 0.0."""
    if answer is None:
        raise ConfigError(f"reward exact: the prompts have {_listed(columns)}: a column 'answer' is needed")
    return [float(_last(text).strip() == str(right).strip()) for text, right in zip(completions, answer, strict=True)]


REWARDS: dict[str, Reward] = {"reviews": reviews, "exact": exact}


def reward_named(name: str) -> Reward:
    """One of REWARDS, or MODULE:FUNCTION, which may be in the current folder. ConfigError if there is none."""
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if not colon:
        near = did_you_mean(name, REWARDS)
        raise ConfigError(f"reward is {name!r:.80}{near}: use {', '.join(REWARDS)}, or MODULE:FUNCTION of your own")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ConfigError(f"reward is {name!r:.80}: it must be MODULE:FUNCTION, as rewards:brevity of rewards.py")
    if os.getcwd() not in sys.path:  # a command that was installed has its own folder there
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"reward {name}: {module} needs a module {error.name!r}, which is not there") from error
        raise ConfigError(f"reward {name}: no module {module!r}: neither installed nor in {os.getcwd()}") from error
    except Exception as error:
        raise ConfigError(f"reward {name}: {module} cannot be imported: {_in_a_line(error)}") from error
    if not callable(found):
        names = [each for each, value in vars(sys.modules[module]).items() if callable(value)]
        what = "has no such function" if found is None else f"has a {type(found).__name__} there, not a function"
        raise ConfigError(f"reward {name}: {module} {what}{did_you_mean(function, names)}")
    return found


def score(
    reward: Reward,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> list[float]:
    """The reward of each completion, checked. ConfigError where the function raises an error, with what it says."""
    name = _name_of(reward)
    try:
        values = reward(prompts, completions, **columns or {})
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"reward {name}: {_in_a_line(error)}") from error
    return check_rewards(values, len(completions), name)


def check_rewards(values: Any, n: int, name: str) -> list[float]:
    """`n` finite numbers, or True and False, as floats. DataError, with the reward's name, for anything else."""
    try:
        listed = list(values)
    except TypeError:
        raise DataError(
            f"reward {name}: returned a {type(values).__name__}: it must return a list, a number for each completion"
        ) from None
    if len(listed) != n:
        raise DataError(
            f"reward {name}: returned {len(listed)} values for {n} completions: it must return one for each"
        )
    numbers = []
    for i, value in enumerate(listed):
        number = math.nan
        if isinstance(value, (bool, np.bool_)) or is_number(value):
            with suppress(OverflowError):  # an integer of more than 308 digits
                number = float(value)
        if not math.isfinite(number):
            raise DataError(f"reward {name}: completion {i} has {value!r:.80}: it must be a finite number")
        numbers.append(number)
    return numbers


def label(
    prompts: Sequence[Text],
    answers: Sequence[Sequence[Text]],
    reward: Reward,
    noise: float = 0.0,
    rng: Generator | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> list[list[int]]:
    """A judge that is simulated: of each prompt's answers their ranks, 1 for the highest reward; equal rewards share a rank.

    `noise` is the chance that it errs: going from the best down, each two ranks that stand side by side are swapped with this
    chance, however far apart their rewards are. Of two answers, the wrong one is preferred just as often.
    """
    check_number("noise", noise, most=1)
    rng = rng or get_generator()
    repeated = [i for i, some in enumerate(answers) for _ in some]
    spread = {name: [column[i] for i in repeated] for name, column in (columns or {}).items()}
    values = iter(score(reward, [prompts[i] for i in repeated], [one for some in answers for one in some], spread))
    return [_ranks([next(values) for _ in some], noise, rng) for some in answers]


def _ranks(values: Sequence[float], noise: float, rng: Generator) -> list[int]:
    order = sorted(set(values), reverse=True)
    for i in range(1, len(order)):
        if noise and float(rng.rand(1)[0]) < noise:
            order[i - 1], order[i] = order[i], order[i - 1]
    return [order.index(value) + 1 for value in values]


def _last(text: Text) -> str:
    """A text, or that of the last message."""
    return text if isinstance(text, str) else text[-1]["content"]


def _name_of(reward: Reward) -> str:
    if reward in REWARDS.values():
        return reward.__name__
    return f"{reward.__module__}:{getattr(reward, '__qualname__', type(reward).__name__)}"


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _listed(names: Mapping[str, Any]) -> str:
    return f"the columns {', '.join(names)}" if names else "no further columns"
