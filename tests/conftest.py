"""Hypothesis' profile for the suite, an alarm for what may hang, and the table of mutants at the end of a run."""

import os
import signal

import hypothesis
import pytest

import _tinygrad_llm_hypothesis

_tinygrad_llm_hypothesis.register_profiles()
hypothesis.settings.load_profile("tinygrad-llm-" + os.environ.get("HYPOTHESIS_PROFILE", "ci"))  # dev, ci or nightly


@pytest.fixture
def alarm():
    """Whatever waits for a pipe, or loops, fails."""

    def ring(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_terminal_summary(terminalreporter):
    """One line an op: how many wrong backwards were planted, and which check noticed how many."""
    tables = [
        (report.nodeid.split("[")[-1].rstrip("]"), dict(report.user_properties)["killed by"])
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call" and "killed by" in dict(getattr(report, "user_properties", ()))
    ]
    if not tables:
        return
    terminalreporter.section("mutants: wrong backwards planted, and the check that killed them")
    for name, killed in sorted(tables):
        checks = ", ".join(f"{check or 'SURVIVED'} {n}" for check, n in sorted(killed.items(), key=lambda k: -k[1]))
        terminalreporter.write_line(f"{name:14} {sum(killed.values()):3}  {checks}")
    planted = sum(sum(killed.values()) for _, killed in tables)
    survived = sum(killed.get("", 0) for _, killed in tables)
    terminalreporter.write_line(f"{planted} mutants of {len(tables)} ops, {survived} survived")
