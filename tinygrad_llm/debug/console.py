"""A console that walks through a backward pass; what `tinygrad-llm step` opens."""

from __future__ import annotations

import cmd
import linecache
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from ..engine import Tensor
from ..errors import TinygradLLMError
from ..tape.display import in_words, norm
from ..tape.node import recorded
from ..tape.step import Step, Walk
from .attention import heads, matrices
from .breakpoints import named
from .report import report


class Console(cmd.Cmd):
    """Commands over `loss.backward_steps()`; the graph is kept, and every `.grad` is left alone until the walk is done."""

    prompt = "(step) "

    def __init__(self, loss: Tensor, stdin: IO[str] | None = None, stdout: IO[str] | None = None) -> None:
        super().__init__(stdin=stdin, stdout=stdout)
        self.use_rawinput = stdin is None
        self.loss = loss
        self.nodes = recorded(loss.node)[::-1]
        walk = Walk(self.nodes[::-1], loss.data)
        self.names, self.variables, self.groups = [walk.names[node] for node in self.nodes], walk.variables, walk.groups
        self.sent: defaultdict[Any, list[tuple[str, str]]] = defaultdict(list)  # to a node or leaf: by whom, and what
        self.steps: Iterator[Step] = loss.backward_steps(retain_graph=True)
        self.step: Step | None = None
        self.done = False
        self.intro = (
            f"Loss {loss.item():.6g}, {len(self.names)} steps back from it. `next` begins, `help` lists the commands."
        )

    def onecmd(self, line: str) -> bool:
        try:
            return super().onecmd(line)
        except TinygradLLMError as error:
            self.say(str(error))
            return False

    def say(self, text: str) -> None:
        print(text, file=self.stdout)

    def do_next(self, line: str) -> None:
        """next [N]: the next step of the backward, or the N-th from here. An empty line does the same."""
        if line and (not line.isdecimal() or int(line) < 1):
            self.say(f"next {line}: a number of steps, from 1 on, is needed")
            return
        for _ in range(int(line or 1)):
            passed = []
            while (more := self._advance()) and self.step is not None and self.step.idle:
                passed.append(self.step.name)
            if passed:
                self.say(f"passed over, as nothing but zeros is passed on: {', '.join(passed)}")
            if not more:
                return
        self._show()

    def do_until(self, line: str) -> None:
        """until NAME: go on to the next step whose name matches, for example `until *.att.attention`."""
        remaining = self.names[self.step.i + 1 if self.step else 0 :]
        if self.done or not any(named(name, line) for name in remaining):
            self.say(f"no step to come is named {line!r}: `list` shows them")
            return
        while self._advance():
            if self.step is not None and named(self.step.name, line):
                self._show()
                return

    def do_check(self, line: str) -> None:
        """check: compare the gradients of this step with finite differences."""
        if step := self._current():
            self.say(str(step.check()))

    def do_grad(self, line: str) -> None:
        """grad [NAME]: the gradients of this step in numbers, or of one input; after the last step those of the leaves."""
        if self.done:
            found: dict = {}
            sums = {}
            for node in self.nodes[::-1]:
                for leaf in node.parents:
                    if isinstance(leaf, Tensor):
                        name = self._name(leaf) or f"leaf {leaf.shape}"
                        found[name], sums[name] = leaf.grad, self._sum(leaf)
        elif step := self._current():
            found, sums = {"g": step.grad_out, **step.inputs}, {"g": self._sum(step.node)}
        else:
            return
        chosen = {name: g for name, g in found.items() if not line or named(name, line)}
        for name, g in chosen.items():
            self.say(f"{name}: {in_words(g)}{sums.get(name, '')}")
        if not chosen:
            self.say(f"no gradient is named {line!r}: there are {', '.join(found)}")

    def do_saved(self, line: str) -> None:
        """saved: what the forward of this op kept for its backward, of attention also the matrices P, dP and dS."""
        if step := self._current():
            found = matrices(step)
            for name, value in {**step.saved, **found}.items():
                if not (found and isinstance(value, dict)):  # P in blocks
                    self.say(f"{name}: {in_words(value)}")

    def do_attention(self, line: str) -> None:
        """attention [HEAD]: P, dP and dS of a head in the first row of the batch, by default head 0, as matrices."""
        if (step := self._current()) is None:
            return
        found = heads(step)
        if not found or (line and (not line.isdecimal() or int(line) >= len(found))):
            self.say(
                f"{step.name} has no head {line}" if found else f"{step.name} is no attention, or too large to be shown"
            )
            return
        for name, matrix in found[int(line or 0)].items():
            self.say(f"{name} {matrix.shape}")
            self.say(np.array2string(matrix, precision=3, suppress_small=True, threshold=400, max_line_width=200))

    def do_list(self, line: str) -> None:
        """list [NAME]: the steps, or those whose name matches; > marks this one."""
        here = len(self.names) if self.done else self.step.i if self.step else -1
        n_steps, last = Counter(self.groups.values()), None
        for i, (name, node) in enumerate(zip(self.names, self.nodes, strict=True)):
            if not line or named(name, line):
                group, variable = self.groups.get(node), self.variables.get(node)
                if group and group != last:
                    self.say(f"       {group}: {n_steps[group]} steps")
                last = group
                self.say(f"{'>' if i == here else ' '} {i + 1:4} {name}{f', {variable}' if variable else ''}")

    def do_html(self, line: str) -> None:
        """html [FILE]: the whole walk as a page for a browser, by default report.html; this walk stays where it is."""
        self.say(str(report(self.loss, line or "report.html")))

    def do_quit(self, line: str) -> bool:
        """quit: leave; so does the end of the input."""
        return True

    def do_EOF(self, line: str) -> bool:
        """The end of the input: leave."""
        self.say("")
        return True

    def emptyline(self) -> bool:
        self.do_next("")
        return False

    def default(self, line: str) -> None:
        self.say(f"there is no command {line.split()[0]!r}: `help` lists them")

    def complete_until(self, text: str, line: str, begin: int, end: int) -> list[str]:
        return _completions(self.names[self.step.i + 1 if self.step else 0 :], line, begin)

    def complete_list(self, text: str, line: str, begin: int, end: int) -> list[str]:
        return _completions(self.names, line, begin)

    def complete_grad(self, text: str, line: str, begin: int, end: int) -> list[str]:
        return _completions(["g", *self.step.inputs] if self.step and not self.done else [], line, begin)

    def _current(self) -> Step | None:
        if self.step is None or self.done:
            self.say("the backward is through: `quit`, or start again" if self.done else "`next` makes the first step")
            return None
        return self.step

    def _advance(self) -> bool:
        if not self.done:
            if self.step is not None:
                for parent, dx in zip(self.step.node.parents, self.step.gradients, strict=True):
                    if parent is not None and dx is not None:
                        number = f"{dx.item():.4g}" if dx.size == 1 else ""
                        self.sent[parent].append((self.step.name, number))
            following = next(self.steps, None)
            if following is not None:
                self.step = following
                return True
            self.done = True
        self.say("The backward is through: `grad` shows the gradients of the leaves.")
        return False

    def _show(self) -> None:
        if (step := self._current()) is None:
            return
        self.say(f"{step.i + 1}/{step.n}  {step.described()[0]}")
        self.say(f"  {step.worked}")
        if step.group is not None and step.node.twin_site is not None:
            place = step.node.twin_site.rpartition(" in ")[0]
            file, _, number = place.rpartition(":")
            self.say(f"  in {step.group}, {step.described()[-1]}: {linecache.getline(file, int(number)).strip()}")
        if step.walk.repeats:
            known = {step.argument(k): self._name(parent) for k, parent in enumerate(step.node.parents)}
            for name, array in step.args.items():
                self.say(f"  {name}{f' = {known[name]}' if known[name] not in ('', name) else ''}: {in_words(array)}")
            self.say(f"  out: {in_words(step.out)}")
        self.say(f"  g {step.grad_out.shape}, |g| {norm(step.grad_out):.4g}{self._sum(step.node)}")
        for name, gradient in step.inputs.items():
            self.say(f"  -> {name}: {in_words(gradient)}")

    def _sum(self, to: Any) -> str:
        """`, 4 + 4 from multiply#1 and add#2`: what more than one use sent to a node or a leaf, where it is numbers."""
        sent = self.sent[to]
        if len(sent) < 2:
            return ""
        numbers = " + ".join(number for _, number in sent) if sent[0][1] else "summed"
        return f", {numbers} from {' and '.join(dict.fromkeys(name for name, _ in sent))}"

    def _name(self, parent: Any) -> str:
        """What the user calls what a parent holds; empty where that is not known."""
        return self.variables.get(parent) or getattr(parent, "name", None) or ""


def _completions(words: list[str], line: str, begin: int) -> list[str]:
    """What follows `begin`, where readline cuts words at dots, of the words that go on from the last one typed."""
    typed = line.split(" ")[-1]
    start = len(typed) - (len(line) - begin)
    return sorted({word[max(0, start) :] for word in words if word.startswith(typed)})


def open_console(loss: Tensor) -> None:
    """Read commands from the terminal, or from a pipe."""
    Console(loss, None if sys.stdin.isatty() else sys.stdin).cmdloop()
