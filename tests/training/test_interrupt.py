import signal
import threading

import pytest

from tinygrad_llm.training.interrupt import InterruptAfterStep

SIGNALS = [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
SIGNALS += [(signal.SIGHUP, SystemExit, 129)] if hasattr(signal, "SIGHUP") else []


@pytest.mark.parametrize(("number", "error", "code"), SIGNALS)
def test_the_first_signal_waits_and_the_second_does_not(number, error, code):
    outside = signal.signal(number, signal.default_int_handler)
    try:
        with InterruptAfterStep() as interrupt:
            assert interrupt.requested is None
            signal.raise_signal(number)
            assert interrupt.requested == number
            with pytest.raises(error) as caught:
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, outside)
    assert getattr(caught.value, "code", None) == code


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="SIGHUP")
def test_a_hang_up_that_is_ignored_still_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        with InterruptAfterStep() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.requested is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_touched():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with InterruptAfterStep() as interrupt:
            seen.append((interrupt.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
    assert signal.getsignal(signal.SIGINT) is before
