"""Answers scored by another model, behind any endpoint that speaks OpenAI's chat completions (the book's section 7.8).

    judged = judge(questions, expected, answers, url="http://127.0.0.1:8080/v1", model="llama3")
    judged.mean, judged.unparsed

A judge is asked for a number from 0 to 100 and nothing else; what it says besides is no score. The prompt has no example of a
score, which judges copy. `prefer` asks which of two answers is better, in both orders, since judges like the first.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError

_ASK = """\
Question:
{question}

A right answer:
{expected}

The answer to be judged:
{answer}

How good is the answer to be judged, on a scale from 0 for worthless to 100 for as good as can be?
Reply with the whole number alone."""
_PREFER = """\
Question:
{question}

Answer A:
{one}

Answer B:
{other}

Which answer is better? Reply with A or B alone, or with equal if neither is."""
_NUMBER = re.compile(r"\s*(100|0?\d{1,2})\s*")
_LETTER = re.compile(r"\s*(A|B|equal)\s*")
_VERDICTS = {"A": 1, "equal": 0, "B": -1}
_TRIES = 2
_MOST_BYTES = 2**20  # of a reply


@dataclass(frozen=True)
class Judged:
    """A score from 0 to 100 for each answer, or None where the judge gave no number in two tries."""

    scores: list[int | None]

    @property
    def unparsed(self) -> int:
        return sum(score is None for score in self.scores)

    @property
    def mean(self) -> float | None:
        """Of the scores there are."""
        given = [score for score in self.scores if score is not None]
        return sum(given) / len(given) if given else None

    def to_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "unparsed": self.unparsed, "scores": self.scores}


def judge(
    questions: Sequence[str],
    expected: Sequence[str],
    answers: Sequence[str],
    *,
    url: str,
    model: str,
    key: str | None = None,
    timeout: float = 60.0,
    report: Callable[[int], None] = lambda done: None,
) -> Judged:
    """Ask the endpoint at `url` (with its /v1, where it has one) about each answer, at temperature 0.

    `key` is what it wants as a bearer token, by default OPENAI_API_KEY of the environment; `report` is told after each answer how
    many are done. ConfigError for an url that is none, DataError for an endpoint that cannot be reached or refuses.
    """
    ask = _endpoint(url, model, key, timeout)
    scores: list[int | None] = []
    for question, right, answer in zip(questions, expected, answers, strict=True):
        found = ask(_ASK.format(question=question, expected=right, answer=answer), _NUMBER)
        scores.append(None if found is None else int(found))
        report(len(scores))
    return Judged(scores)


def prefer(
    questions: Sequence[str],
    one: Sequence[str],
    other: Sequence[str],
    *,
    url: str,
    model: str,
    key: str | None = None,
    timeout: float = 60.0,
    report: Callable[[int], None] = lambda done: None,
) -> list[float | None]:
    """Which of two answers to each question is better: 1.0 for `one`, 0.0 for `other`, 0.5 for a tie, as where the verdict turns
    with their order; None where either order brought no verdict. Arguments and errors as for `judge`.
    """
    ask = _endpoint(url, model, key, timeout)
    outcomes: list[float | None] = []
    for question, a, b in zip(questions, one, other, strict=True):
        there = ask(_PREFER.format(question=question, one=a, other=b), _LETTER)
        back = there and ask(_PREFER.format(question=question, one=b, other=a), _LETTER)
        if there is None or back is None:
            outcomes.append(None)
        else:
            sign = _VERDICTS[there] - _VERDICTS[back]
            outcomes.append(0.5 if sign == 0 else float(sign > 0))
        report(len(outcomes))
    return outcomes


def _endpoint(url: str, model: str, key: str | None, timeout: float) -> Callable[[str, re.Pattern[str]], str | None]:
    """What asks, and gives what of a reply is the pattern, if it is nothing else; a judge is asked twice, with another seed."""
    if not re.match(r"https?://", url):
        raise ConfigError(f"judge: url is {url!r:.80}: it must begin with http:// or https://")
    key = os.environ.get("OPENAI_API_KEY", "") if key is None else key

    def ask(text: str, pattern: re.Pattern[str]) -> str | None:
        for seed in range(_TRIES):
            if found := pattern.fullmatch(_reply(url, model, key, text, seed, timeout)):
                return found[1]
        return None

    return ask


def _reply(url: str, model: str, key: str, text: str, seed: int, timeout: float) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 16,
        "seed": seed,
    }
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url.rstrip("/") + "/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            told = json.loads(response.read(_MOST_BYTES))
        content = told["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        raise DataError(
            f"judge: {url} answers {error.code} {error.reason}: {error.read(200).decode(errors='replace')!r}"
        ) from None
    except OSError as error:
        raise DataError(f"judge: {url} cannot be reached: {getattr(error, 'reason', error)}") from None
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise DataError(f"judge: {url}: the reply is no chat completion") from None
    return content if isinstance(content, str) else ""
