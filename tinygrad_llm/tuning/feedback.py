"""What the ways to learn from feedback have in common: the weights they begin from, and those that stay beside as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import CheckpointError, ConfigError, TokenizerError
from ..models import LanguageModel
from ..nn import Module
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config
from ..text import Tokenizer
from ..text.templates import Message, Template
from .assistant import template_named
from .options import FeedbackOptions
from .preferences import Preference
from .run import load_base

Options = TypeVar("Options", bound=FeedbackOptions)


class Base(NamedTuple):
    """What answers, before it learns more."""

    model: LanguageModel
    tokenizer: Tokenizer
    template: Template

    def record(self, **beside: Any) -> dict[str, Any]:
        """What config.json is to tell of a run that begins here, with these weights beside it."""
        return {"template": self.template.to_dict(), "fingerprints": fingerprints(**beside)}


def choose(kind: type[Options], init_from: str | os.PathLike[str], options: dict[str, Any]) -> tuple[Base, Options]:
    """The weights to begin from, and all options: where none is named, they are their own reference."""
    base = open_base(init_from, options.get("template", ""))
    options = options | {"template": base.template.name, "reference": options.get("reference") or str(init_from)}
    return base, kind.choose(base.model, **options)


def open_base(path: str | os.PathLike[str], template: str = "") -> Base:
    """The weights, tokenizer and template of a run of instruct, or other weights with the template of this name, else plain.

    ConfigError for a run that was taught in another template, TokenizerError for a tokenizer that lacks the template's marks.
    """
    model, tokenizer = load_base(path)
    found = find_run(path)
    kept = load_config(found[0]).get("template") if found else None
    if kept is None:
        chosen = template_named(template or "plain")
    else:
        with naming(found[0] / CONFIG_FILE if found else Path(path)):
            chosen = Template.from_dict(kept)
        if template and template != chosen.name:
            raise ConfigError(f"template is {template!r}: {path} was taught in {chosen.name!r}: leave it out")
    chosen.end_id(tokenizer)
    return Base(model, tokenizer, chosen)


def open_reference(path: str | os.PathLike[str], tokenizer: Tokenizer) -> LanguageModel:
    """A model that stays as it is, in evaluation mode. ConfigError for one that reads other tokens."""
    model, other = load_base(path)
    if other.tokens != tokenizer.tokens:
        raise ConfigError(
            f"reference is {str(path)!r}: its {other.vocab_size:,} tokens are not the {tokenizer.vocab_size:,} of what "
            "learns: their probabilities cannot be compared"
        )
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model.eval()


def fingerprint(model: Module) -> str:
    """SHA-256 of all weights and their names."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(f"{name} {parameter.shape} {parameter.dtype}\n".encode())
        found.update(parameter.data.tobytes())
    return found.hexdigest()


def fingerprints(**beside: Any) -> dict[str, str]:
    """Those of the weights among what stands beside a run: models, and rewards that are models."""
    models = {name: getattr(one, "model", one) for name, one in beside.items()}
    return {name: fingerprint(model) for name, model in models.items() if isinstance(model, Module)}


def check_fingerprints(config: Mapping[str, Any], options: FeedbackOptions, **beside: Any) -> None:
    """CheckpointError where weights beside a run, whose config.json this is, are no longer what they were."""
    kept = config.get("fingerprints")
    for name, value in fingerprints(**beside).items():
        if not isinstance(kept, Mapping) or kept.get(name) != value:
            raise CheckpointError(
                f"{getattr(options, name)}: not the weights any more that this run began with, as its {name}: put them back"
            )


def encode_answer(
    template: Template, tokenizer: Tokenizer, prompt: Sequence[Message], answer: str
) -> tuple[list[int], list[bool]]:
    """The ids of a prompt with an answer up to its end, and which of them are the answer's, which may be empty."""
    if not answer.strip():
        ids, _ = template.encode(tokenizer, prompt, generation_prompt=True)
        return [*ids, template.end_id(tokenizer)], [*[False] * len(ids), True]
    ids, is_answer = template.encode(tokenizer, [*prompt, {"role": "assistant", "content": answer}], last_only=True)
    n = len(is_answer) - is_answer[::-1].index(True)  # what closes the conversation comes after
    return ids[:n], is_answer[:n]


def encode_answers(template: Template, tokenizer: Tokenizer, row: Preference) -> list[tuple[list[int], list[bool]]]:
    """`encode_answer` of all answers of a preference. TokenizerError, naming the prompt, for what cannot be encoded."""
    try:
        return [encode_answer(template, tokenizer, row.prompt, answer) for answer in row.answers]
    except TokenizerError as error:
        raise TokenizerError(f"prompt {row.prompt[-1]['content']!r:.60}: {error}") from None


def say_cut(lengths: Iterable[int], max_length: int) -> list[str]:
    """A line about what is too long, if anything is."""
    n = sum(length > max_length for length in lengths)
    return (
        [f"{n:,} prompts with an answer are longer than {max_length:,} tokens: of these the end alone is read."]
        if n
        else []
    )
