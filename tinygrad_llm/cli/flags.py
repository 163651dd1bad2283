"""The options of a kind of training as flags: one for each field of its dataclass, which has the help text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from ..training.options import LoopOptions


def add_flags(
    parser: argparse.ArgumentParser, options: type[LoopOptions], defaults: Mapping[str, Mapping[str, Any]]
) -> None:
    """A flag for every option, and `--set`. `defaults`: name of a case -> its options; the help says where they differ."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option by its name in config.json, for example --set max_steps=2000; may be given several times",
    )
    types = get_type_hints(options)
    for option in fields(options):
        if option.name in options.hidden:
            continue
        name, kind = option.name, types[option.name]
        takes: dict[str, Any] = {"type": kind, "metavar": kind.__name__.upper()}
        if kind is bool:
            takes = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(
            "--" + name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=f"{option.metadata['help']} (default: {_default(name, defaults)})".replace("%", "%%"),
            **takes,
        )


def _default(name: str, defaults: Mapping[str, Mapping[str, Any]]) -> str:
    """`6 for story, 10 for 124M`, or once what is the same in all cases."""
    said = {case: in_words(options.get(name, "none, it must be given")) for case, options in defaults.items()}
    (first, value), *others = said.items()
    if value == first:  # the option that chooses among the cases
        return value
    different = [f"{other} for {case}" for case, other in others if other != value]
    return ", ".join([f"{value} for {first}", *different]) if different else value


def in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value or repr(value))


def given(args: argparse.Namespace, options: type[LoopOptions]) -> dict[str, Any]:
    """The options that were given, as flags or by `--set`. ConfigError for one that was given twice, or is none."""
    from ..errors import ConfigError

    chosen = {option.name: getattr(args, option.name) for option in fields(options) if hasattr(args, option.name)}
    for text in args.set:
        name, value = _assignment(text, options)
        if name in chosen:
            raise ConfigError(f"--set {text}: {name} is {chosen[name]!r} already: give it once")
        chosen[name] = value
    return chosen


def _assignment(text: str, options: type[LoopOptions]) -> tuple[str, Any]:
    """`max_steps=2000` -> "max_steps", 2000."""
    from ..checks import check_options
    from ..errors import ConfigError

    name, sign, value = text.partition("=")
    name = name.replace("-", "_")
    types = get_type_hints(options)
    check_options(f"--set {text}:", [name], options)
    kind: Any = {"true": True, "false": False}.__getitem__ if types[name] is bool else types[name]
    try:
        if not sign:
            raise ValueError
        return name, kind(value)
    except (KeyError, ValueError):
        wanted = "true or false" if types[name] is bool else f"a value of type {types[name].__name__}"
        raise ConfigError(f"--set {text}: it must be {name}= and {wanted}") from None
