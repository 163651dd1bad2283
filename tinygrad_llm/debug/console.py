"""A console that walks through a backward pass; what `tinygrad-llm step` opens."""

from __future__ import annotations

import cmd
import sys
from collections.abc import Iterator
from typing import IO

from ..engine import Tensor
from ..errors import TinygradLLMError
from ..tape.display import in_words, norm
from ..tape.node import recorded
from ..tape.step import Step, names_of
from .breakpoints import named
from .report import report


class Console(cmd.Cmd):
    """Commands over `loss.backward_steps()`; the graph is kept, and every `.grad` is left alone until the walk is done."""

    prompt = "(step) "

    def __init__(self, loss: Tensor, stdin: IO[str] | None = None, stdout: IO[str] | None = None) -> None:
        super().__init__(stdin=stdin, stdout=stdout)
        self.use_rawinput = stdin is None
        self.loss = loss
        self.names = list(reversed(names_of(recorded(loss.node)).values()))
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
            if not self._advance():
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
            for node in recorded(self.loss.node):
                for leaf in node.parents:
                    if isinstance(leaf, Tensor):
                        found[leaf.name or f"leaf {leaf.shape}"] = leaf.grad
        elif step := self._current():
            found = {"g": step.grad_out, **step.inputs}
        else:
            return
        chosen = {name: g for name, g in found.items() if not line or named(name, line)}
        for name, g in chosen.items():
            self.say(f"{name}: {in_words(g)}")
        if not chosen:
            self.say(f"no gradient is named {line!r}: there are {', '.join(found)}")

    def do_saved(self, line: str) -> None:
        """saved: what the forward of this op kept for its backward."""
        if step := self._current():
            for name, value in step.saved.items():
                self.say(f"{name}: {in_words(value)}")

    def do_list(self, line: str) -> None:
        """list [NAME]: the steps, or those whose name matches; > marks this one."""
        here = len(self.names) if self.done else self.step.i if self.step else -1
        for i, name in enumerate(self.names):
            if not line or named(name, line):
                self.say(f"{'>' if i == here else ' '} {i + 1:4} {name}")

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
        self.say(f"{step.i + 1}/{step.n}  {step.name}")
        self.say(f"  {step.formula}")
        self.say(f"  g {step.grad_out.shape}, |g| {norm(step.grad_out):.4g}")
        for name, gradient in step.inputs.items():
            self.say(f"  -> {name}: {in_words(gradient)}")


def _completions(words: list[str], line: str, begin: int) -> list[str]:
    """What follows `begin`, where readline cuts words at dots, of the words that go on from the last one typed."""
    typed = line.split(" ")[-1]
    start = len(typed) - (len(line) - begin)
    return sorted({word[max(0, start) :] for word in words if word.startswith(typed)})


def open_console(loss: Tensor) -> None:
    """Read commands from the terminal, or from a pipe."""
    Console(loss, None if sys.stdin.isatty() else sys.stdin).cmdloop()
