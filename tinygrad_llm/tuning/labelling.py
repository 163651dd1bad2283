"""Answers of a model put in order, by a person or by a reward: what a reward model and DPO learn from.

rankings = Rankings("pairs.jsonl")                             # with those that are there from before
prompts = rows_of(all_prompts("review"))
by_reward(rankings, prompts, sampler(assistant), reward_named("reviews"))
by_person(rankings, prompts, sampler(assistant), input, print)
agreement(rankings.rows)                                       # (9, 10): of 10 pairs judged twice, 9 alike

A row is {"prompt", "responses", "ranking"}: ranking[i] is the rank of response i, from 1; equal ones share a rank. A pair that
a person was shown again has "repeat": true as well.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..checks import check_integer, check_number
from ..errors import ConfigError, DataError
from ..files import append, truncate
from ..rng import Generator
from ..text.data_files import file_name, read_bytes
from .assistant import Assistant
from .preferences import Prompts
from .rewards import Reward, Text, label
from .rollouts import roll_out

HELP = "1 2: best first; 1=2: equals; u: take back; s: skip; q: quit"
_BATCH = 32  # prompts that are answered at once
_LATER = 5  # judgements until one comes again

Row = dict[str, Any]
Sample = Callable[[int, Sequence[Text]], list[list[str]]]  # (place of the first prompt, prompts) -> K answers to each


class Rankings:
    """The judgements in a file, which is written at once with each. What a death cut off at its end is dropped, and `said`.

    DataError for a row that is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.said = file_name(path), list[str]()
        whole = read_bytes(self.path) if self.path.exists() else b""
        *lines, rest = whole.split(b"\n")
        if rest.strip():
            truncate({self.path: len(whole) - len(rest)})
            self.said.append(f"{self.path}: line {len(lines) + 1} was written by half, and is dropped")
        self.rows = [_row(f"{self.path}: line {i}", line) for i, line in enumerate(lines, 1) if line.strip()]

    def add(self, rows: Sequence[Row]) -> None:
        append(self.path, "".join(map(_line, rows)))
        self.rows += rows

    def undo(self) -> Row:
        """Take back the last."""
        whole = self.path.read_bytes()
        truncate({self.path: whole.rstrip().rfind(b"\n") + 1})
        return self.rows.pop()

    def left(self, prompts: Sequence[Row]) -> list[int]:
        """The places of the prompts that were not judged yet; one that stands there twice is judged twice."""
        done = Counter(_key(row) for row in self.rows if not row.get("repeat"))
        left = []
        for i, row in enumerate(prompts):
            if done[_key(row)] > 0:
                done[_key(row)] -= 1
            else:
                left.append(i)
        return left


def agreement(rows: Sequence[Row]) -> tuple[int, int]:
    """Of the pairs of answers that were judged again, how many alike, and how many in all."""
    first: dict[str, dict[str, int]] = {}
    same = n = 0
    for row in rows:
        ranks = dict(zip(row["responses"], row["ranking"], strict=True))
        before = first.setdefault(_key(row, sorted(ranks)), ranks)
        if row.get("repeat"):
            for one, other in combinations(ranks, 2):
                n += 1
                same += _sign(ranks[one] - ranks[other]) == _sign(before[one] - before[other])
    return same, n


def sampler(
    assistant: Assistant, n: int = 2, temperature: float = 1.0, seed: int = 123, max_new_tokens: int | None = None
) -> Sample:
    """What draws `n` answers to each of some prompts, of up to `max_new_tokens`, or what is left of the context.

    The same prompts at the same place are answered alike.
    """
    check_integer("n", n, least=2)

    def sample(place: int, prompts: Sequence[Text]) -> list[list[str]]:
        asked = [conversation(prompt) for prompt in prompts for _ in range(n)]
        how = max_new_tokens or 1 << 20, temperature
        rng = Generator(seed + place).spawn()
        found = roll_out(assistant.model, assistant.tokenizer, assistant.template, asked, *how, rng=rng).answers
        return [found[i : i + n] for i in range(0, len(found), n)]

    return sample


def conversation(prompt: Text) -> list[dict[str, str]]:
    """A prompt as messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(each) for each in prompt]


def by_reward(
    rankings: Rankings,
    prompts: Sequence[Row],
    sample: Sample,
    reward: Reward,
    noise: float = 0.0,
    seed: int = 123,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Judge the answers to the prompts that are left by a reward, a batch at a time. `report` is given how many are judged."""
    left = rankings.left(prompts)
    for start in range(0, len(left), _BATCH):
        places = left[start : start + _BATCH]
        rows = [prompts[i] for i in places]
        asked = [row["prompt"] for row in rows]
        answers = sample(places[0], asked)
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        ranked = label(asked, answers, reward, noise, Generator(seed + places[0]), columns)
        rankings.add([_judged(*each) for each in zip(asked, answers, ranked, strict=True)])
        report(len(prompts) - len(left) + start + len(rows), len(prompts))


def by_person(
    rankings: Rankings,
    prompts: Sequence[Row],
    sample: Sample,
    ask: Callable[[], str | None],
    show: Callable[[str], None],
    repeat: float = 0.1,
    seed: int = 123,
) -> None:
    """Have a person judge the answers to the prompts that are left, until all are or `ask` gives None.

    Each is written at once. The answers stand in random order, equal ones once; where all are equal, nobody is asked. A share
    `repeat` of what was judged comes again a little later.
    """
    check_number("repeat", repeat, most=1)
    rng = Generator(seed + len(rankings.rows))
    queue = deque(_Item(prompts[i]["prompt"], i) for i in rankings.left(prompts))
    while queue:
        item = queue.popleft()
        if not item.responses:
            item.responses = sample(item.place, [item.prompt])[0]
        distinct = list(dict.fromkeys(item.responses))
        if len(distinct) == 1:
            rankings.add([_judged(item.prompt, item.responses, [1] * len(item.responses))])
            continue
        shown = [distinct[i] for i in rng.randperm(len(distinct)).tolist()]
        show("\n" + "\n".join([_told(item.prompt), "", *(_numbered(i, text) for i, text in enumerate(shown, 1))]))
        while (line := ask()) is not None and (word := line.strip().lower()) != "q":
            if word == "s":
                break
            if word == "u":
                taken = _take_back(rankings)
                if not taken:
                    show("nothing was judged yet")
                    continue
                again = [one for one in queue if not (one.repeat and one.responses == taken[0].responses)]
                queue = deque([*taken, item, *again])
                break
            try:
                ranks = dict(zip(shown, read_order(word, len(shown)), strict=True))
            except ConfigError as error:
                show(f"{error} ({HELP})")
                continue
            rankings.add([_judged(item.prompt, item.responses, [ranks[one] for one in item.responses], item.repeat)])
            if not item.repeat and float(rng.rand(1)[0]) < repeat:
                queue.insert(_LATER, _Item(item.prompt, item.place, item.responses, True))
            break
        else:
            return


@dataclass
class _Item:
    """What is still to be judged."""

    prompt: Text
    place: int = 0
    responses: list[str] | None = None  # None: not written yet
    repeat: bool = False


def _take_back(rankings: Rankings) -> list[_Item]:
    """The last that a person was asked about, and what was judged since without asking; none if there is none."""
    asked = [i for i, row in enumerate(rankings.rows) if len(set(row["responses"])) > 1]
    taken: list[_Item] = []
    while asked and len(rankings.rows) > asked[-1]:
        row = rankings.undo()
        taken.insert(0, _Item(row["prompt"], 0, row["responses"], bool(row.get("repeat"))))
    return taken


def read_order(line: str, n: int) -> list[int]:
    """The ranks of `n` answers from how a person puts them in order, best first: "2 1=3" -> [2, 1, 2].

    Those that are left out share the last place. ConfigError for what is no order.
    """
    groups = [group.split("=") for group in re.sub(r"\s*=\s*", "=", line).replace(">", " ").replace(",", " ").split()]
    named = [word for group in groups for word in group]
    if not named or not all(word in map(str, range(1, n + 1)) for word in named) or len({*named}) < len(named):
        raise ConfigError(f"{line!r:.40} is no order: numbers from 1 to {n}, each once")
    ranks = {word: rank for rank, group in enumerate(groups, 1) for word in group}
    return [ranks.get(str(i), len(groups) + 1) for i in range(1, n + 1)]


def rows_of(prompts: Prompts) -> list[Row]:
    """Prompts with their further columns, a row each; a question alone is a text."""
    rows = []
    for i, messages in enumerate(prompts.prompts):
        alone = len(messages) == 1 and messages[0].keys() == {"role", "content"}
        row: Row = {"prompt": messages[0]["content"] if alone else messages}
        rows.append(row | {name: column[i] for name, column in prompts.columns.items()})
    return rows


def _judged(prompt: Text, responses: Sequence[str], ranking: Sequence[int], repeat: bool = False) -> Row:
    again = {"repeat": True} if repeat else {}
    return {"prompt": prompt, "responses": list(responses), "ranking": list(ranking), **again}


def _row(where: str, line: bytes) -> Row:
    """A row of the file of rankings."""
    try:
        row = json.loads(line)
        if len(row["responses"]) != len(row["ranking"]) or not all(isinstance(one, str) for one in row["responses"]):
            raise ValueError("not a rank for each response")
        _sign(sum(row["ranking"])), _key(row)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{where}: no ranking of responses to a prompt ({error}): choose another file") from None
    return row


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _key(row: Row, *more: Any) -> str:
    return json.dumps([conversation(row["prompt"]), *more], sort_keys=True)


def _sign(x: int) -> int:
    return (x > 0) - (x < 0)


def _told(prompt: Text) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(
        f"{one['role']}: {one['content']}" + (f"\n{one['input']}" if one.get("input") else "") for one in prompt
    )


def _numbered(i: int, text: str) -> str:
    """With further lines set in, so that none of them can look like the next answer."""
    return f"{i}  " + text.replace("\n", "\n   ")
