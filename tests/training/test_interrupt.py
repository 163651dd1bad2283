import signal
import threading

import pytest

from tinygrad_llm.training.interrupt import InterruptAfterStep

SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_the_first_signal_waits_and_the_second_does_not(number, error):
    before = signal.getsignal(number)
    with InterruptAfterStep() as interrupt:
        assert interrupt.requested is None
        signal.raise_signal(number)
        assert interrupt.requested == number
        with pytest.raises(error) as caught:
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    if error is SystemExit:
        assert caught.value.code == 143


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
