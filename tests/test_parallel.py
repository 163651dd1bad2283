"""Threads change where lines run, never what they compute."""

import gc
import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import parallel
from tinygrad_llm.engine import _composing, _recording
from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import SGD, AdamW
from tinygrad_llm.training.step import loss_and_gradients, shard_batch, train_step


def make_model(drop_rate=0.0, **changes):
    tg.manual_seed(7)
    sizes = {"vocab_size": 50, "context_length": 32, "emb_dim": 24, "n_heads": 2, "n_layers": 2} | changes
    return GPTModel(GPTConfig(**sizes, drop_rate=drop_rate))


def make_batch(b, t, vocab_size=50):
    ids = np.random.default_rng(1).integers(0, vocab_size, (b, t + 1))
    return ids[:, :-1], ids[:, 1:]


def test_spread_keeps_the_order_and_uses_other_threads():
    seen = set()

    def task(i):
        seen.add(threading.get_ident())
        barrier.wait(timeout=10)  # passes only when two tasks run at once
        return i * i

    barrier = threading.Barrier(2)
    with parallel.threads(2):
        assert parallel.spread(task, range(6)) == [0, 1, 4, 9, 16, 25]
    assert len(seen) == 2


def test_spread_with_one_thread_runs_here():
    with parallel.threads(1):
        assert parallel.spread(lambda _: threading.get_ident(), range(3)) == [threading.get_ident()] * 3


@pytest.mark.parametrize("failing", [0, 1, 5])
def test_spread_raises_the_error_of_a_task(failing):
    def task(i):
        if i == failing:
            raise KeyError(f"task {i}")
        return i

    with parallel.threads(2), pytest.raises(KeyError, match=f"task {failing}"):
        parallel.spread(task, range(6))
    with parallel.threads(2):  # and the pool still works
        assert parallel.spread(abs, [-1, -2]) == [1, 2]


def test_tasks_do_not_share_out_their_own_work():
    def outer(_):
        return parallel.spread(lambda _: threading.get_ident(), range(4))

    with parallel.threads(2):
        for idents in parallel.spread(outer, range(4)):
            assert len(set(idents)) == 1


def test_no_grad_and_composed_reach_the_workers():
    def modes(_):
        barrier.wait(timeout=10)
        return _recording.get(), _composing.get()

    barrier = threading.Barrier(2)
    with parallel.threads(2), tg.no_grad(), tg.composed():
        assert parallel.spread(modes, range(2)) == [(False, True)] * 2


def test_blas_runs_with_one_thread_inside_and_as_before_outside():
    before = [library.num_threads for library in parallel._blas()]
    with parallel.threads(2):
        assert all(library.num_threads == 1 for library in parallel._blas())
    assert [library.num_threads for library in parallel._blas()] == before


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none(n):
    with pytest.raises(ConfigError, match="positive integer"), parallel.threads(n):
        pass


def test_the_environment_decides_the_default(monkeypatch):
    monkeypatch.setenv("TINYGRAD_LLM_THREADS", "3")
    assert parallel.default_threads() == 3
    monkeypatch.setenv("TINYGRAD_LLM_THREADS", "many")
    with pytest.raises(ConfigError, match="TINYGRAD_LLM_THREADS is 'many'"):
        parallel.default_threads()


@pytest.mark.parametrize(
    ("shape", "shards"), [((1, 1024), 1), ((2, 8), 2), ((12, 64), 2), ((3, 32), 2), ((12, 1024), 8)]
)
def test_shards_cover_the_batch_and_depend_on_its_size_only(shape, shards):
    slices = shard_batch(np.zeros(shape, int))
    assert len(slices) == shards
    assert [i for s in slices for i in range(*s.indices(shape[0]))] == list(range(shape[0]))


@pytest.mark.parametrize("b", [1, 2, 5])
def test_gradients_of_shards_equal_those_of_the_whole_batch(b):
    model = make_model().astype(np.float64)
    ids, targets = make_batch(b, 32)
    targets = np.where(
        np.arange(32) % (np.arange(b)[:, None] + 2) == 0, -100, targets
    )  # each sequence counts other tokens
    expected = tg.ops.cross_entropy(model(ids), targets=targets)
    expected.backward()
    with parallel.threads(2):
        loss, gradients = loss_and_gradients(model, list(model.parameters()), (ids, targets), shard_batch(ids))
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(gradients[parameter], parameter.grad, rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("accumulate", [1, 3, 5])
def test_accumulated_gradients_equal_those_of_the_whole_batch(accumulate):
    model = make_model().astype(np.float64)
    ids, targets = make_batch(5, 32)
    targets = np.where(
        np.arange(32) < 6 * np.arange(5)[:, None], -100, targets
    )  # parts count different numbers of tokens
    expected = tg.ops.cross_entropy(model(ids), targets=targets)
    expected.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    loss = train_step(model, SGD(model.parameters(), lr=0.1), ids, targets, accumulate=accumulate)
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad, gradients[name], rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("accumulate", [0, 6, 1.5, True])
def test_parts_that_the_batch_does_not_have(accumulate):
    model = make_model()
    with pytest.raises(ConfigError, match="from 1 to the batch's 5 sequences"):
        train_step(model, SGD(model.parameters(), lr=0.1), *make_batch(5, 32), accumulate=accumulate)


@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_one_thread_and_many_give_the_same_bits(b, drop_rate):
    ids, targets = make_batch(b, 32)
    runs = []
    for threads in (1, 2, 3):
        model = make_model(drop_rate)
        optimizer = AdamW(model.parameters(), lr=1e-2)
        losses = [train_step(model, optimizer, ids, targets, threads=threads) for _ in range(4)]
        runs.append((losses, {name: array.copy() for name, array in model.state_dict().items()}))
    for losses, weights in runs[1:]:
        assert losses == runs[0][0]
        for name, array in weights.items():
            assert array.tobytes() == runs[0][1][name].tobytes(), name
    assert len(set(runs[0][0])) == 4  # it learned, so the equality says something


def test_gradients_are_added_in_the_order_of_the_shards_whichever_is_ready_first():
    class SlowAtFirst(GPTModel):
        def forward(self, ids):
            if ids[0, 0] == 0:
                time.sleep(0.1)
            return super().forward(ids)

    ids, targets = make_batch(3, 32)
    ids[0, 0], ids[1:, 0] = 0, 1
    weights = []
    for threads in (1, 3):
        tg.manual_seed(7)
        model = SlowAtFirst(make_model().config)
        optimizer = SGD(model.parameters(), lr=1.0)
        train_step(model, optimizer, ids, targets, max_norm=1e-3, accumulate=3, threads=threads)
        weights.append(model.state_dict())
    for name, array in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], array, err_msg=name)


def test_gradients_are_handed_over_as_soon_as_they_are_complete():
    model, (ids, targets) = make_model(), make_batch(1, 32)
    loss, into, seen = tg.ops.cross_entropy(model(ids), targets=targets), {}, []
    for step in loss.backward_steps(into=into):
        seen.append((step.op, len(into)))
        if step.op == "attention":
            assert model.out_head.weight in into
            assert model.tok_emb.weight not in into
    assert len(into) == sum(1 for _ in model.parameters())
    counts = [n for _, n in seen]
    assert counts == sorted(counts)
    assert counts[-1] >= len(into) - 2  # all but the embeddings


def test_shared_rows_give_the_same_bits_and_the_right_gradients(monkeypatch):
    monkeypatch.setattr(parallel, "_PRODUCT", 1)
    monkeypatch.setattr(parallel, "_BLOCK", 64)
    ids, targets = make_batch(1, 32)
    gradients = []
    for threads in (1, 2):
        model = make_model()
        optimizer = SGD(model.parameters(), lr=0.0)
        train_step(model, optimizer, ids, targets, threads=threads)
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    model = make_model()
    tg.ops.cross_entropy(model(ids), targets=targets).backward()
    for name, parameter in model.named_parameters():
        assert gradients[0][name].tobytes() == gradients[1][name].tobytes(), name
        np.testing.assert_allclose(gradients[0][name], parameter.grad, rtol=2e-4, atol=1e-6, err_msg=name)


def test_one_sequence_shares_out_its_rows(monkeypatch):
    monkeypatch.setattr(parallel, "_PRODUCT", 1)
    monkeypatch.setattr(parallel, "_BLOCK", 64)
    shared = []
    spread = parallel.spread
    monkeypatch.setattr(
        parallel, "spread", lambda task, items: shared.append(task.func.__name__) or spread(task, items)
    )
    model = make_model()
    with parallel.threads(2, sharing_rows=True):
        tg.ops.cross_entropy(model(make_batch(1, 32)[0]), targets=make_batch(1, 32)[1]).backward()
    assert {"_product_rows", "_attend", "_attend_backward", "_losses", "_gradient"} <= set(shared)


def test_two_hundred_steps_keep_memory_flat_without_the_garbage_collector():
    model = make_model(drop_rate=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    ids, targets = make_batch(4, 32)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(200):
            train_step(model, optimizer, ids, targets, max_norm=1.0, threads=2)
            sizes.append(tracemalloc.get_traced_memory()[0])
        kept = model(ids)
        tape = tracemalloc.get_traced_memory()[0] - sizes[-1]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept.node is not None
    assert (
        sizes[-1] - sizes[99] < tape / 4
    )  # what grows is Python's own free lists; a tape kept once in 100 steps would show


def test_a_frozen_parameter_over_somebody_elses_memory_stays_read_only():
    model = make_model()
    frozen = model.tok_emb.weight
    frozen.requires_grad = False
    frozen.data = np.frombuffer(frozen.data.tobytes(), np.float32).reshape(frozen.shape)
    others = [p for p in model.parameters() if p is not frozen]
    train_step(model, SGD(others, lr=0.1), *make_batch(2, 32))
    assert not frozen.data.flags.writeable
    assert frozen.grad is None
    assert all(p.grad is not None for p in others)


def test_parameters_can_be_written_again_after_a_step_that_failed():
    model = make_model()
    ids, targets = make_batch(2, 32)
    with pytest.raises(DataError):
        train_step(model, SGD(model.parameters(), lr=0.1), ids + 50, targets)
    assert all(parameter.data.flags.writeable for parameter in model.parameters())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told to fill freed memory")
@pytest.mark.parametrize("debug", [True, False])
def test_debug_memory_fills_what_is_freed_with_nan(debug):
    program = """
        import ctypes, numpy as np
        from tinygrad_llm import parallel
        parallel.recycle_memory()
        array, after, found = np.ones(100_000, np.float32), np.ones(100_000, np.float32), np.ones(1000, bool)
        freed = np.ctypeslib.as_array((ctypes.c_float * 1000).from_address(array.ctypes.data + 200_000))  # amidst
        del array
        print(np.isnan(freed, out=found).all())
    """
    environment = {key: value for key, value in os.environ.items() if key != "TINYGRAD_LLM_DEBUG_MEMORY"}
    if debug:
        environment["TINYGRAD_LLM_DEBUG_MEMORY"] = "1"
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(debug)


# ---- children of os.fork and multiprocessing. Python warns of forks beside threads, and a child that hangs must be killed, so
# each test is a process of its own; the alarm of a child ends it, and is not inherited by what it forks.

FORKING = """
import hashlib, multiprocessing, os, signal, sys, threading
import numpy as np
import tinygrad_llm as tg
from tinygrad_llm import parallel
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import AdamW
from tinygrad_llm.training.step import train_step

def make():
    tg.manual_seed(7)
    model = GPTModel(GPTConfig(vocab_size=50, context_length=32, emb_dim=24, n_heads=2, n_layers=2, drop_rate=0.1))
    return model, AdamW(model.parameters(), lr=1e-2)

ids = np.random.default_rng(1).integers(0, 50, (4, 33))

def step(model, optimizer):
    loss = train_step(model, optimizer, ids[:, :-1], ids[:, 1:], threads=2)
    return repr(loss) + " " + hashlib.sha256(b"".join(model.state_dict()[n].tobytes() for n in model.state_dict())).hexdigest()

def child(task, *args):
    "What the task returns in a forked child, and how the child ended."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        os.write(write, str(task(*args)).encode())
        sys.exit(0)  # through the interpreter's own ending, which waits for threads
    os.close(write)
    said = open(read).read()
    return said, os.waitpid(pid, 0)[1]

def blas():
    return [library.num_threads for library in parallel._blas()]

for library in parallel._blas():
    library.set_num_threads(2)
"""


def in_a_process(program):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2"}  # so that a limit to one shows, on one core too
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", FORKING + textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork")


@needs_fork
@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
def test_a_child_forked_after_a_step_takes_the_next_one_with_the_same_bits(how):
    said = in_a_process(f"""
        def in_pool_of_one(task, *args):
            context = multiprocessing.get_context("fork")
            results = context.Queue()
            def put():
                signal.alarm(30)
                results.put(task(*args))
            process = context.Process(target=put, daemon=True)
            process.start()
            process.join(120)
            return (results.get(timeout=1) if process.exitcode == 0 else ""), process.exitcode

        model, optimizer = make()
        step(model, optimizer)
        ours, status = {"child" if how == "os.fork" else "in_pool_of_one"}(step, model, optimizer)
        assert status == 0, status
        print(ours)
        print(step(model, optimizer))
    """).splitlines()
    assert said[0] == said[1] != ""
    assert len(said[0].split()) == 2


@needs_fork
def test_a_child_runs_blas_in_as_many_threads_as_its_parent_outside_of_a_step():
    in_a_process("""
        entered, leave = threading.Event(), threading.Event()
        def stand_inside():
            with parallel.threads(2):
                entered.set()
                leave.wait(60)
        beside = threading.Thread(target=stand_inside)
        beside.start()
        entered.wait(60)
        def look():
            before = blas()
            with parallel.threads(2):
                inside = blas()
            return before, inside, blas()
        many, one = [2] * len(blas()), [1] * len(blas())
        assert blas() == one  # the limit is the process's own
        assert child(look) == (str((many, one, many)), 0), child(look)  # the thread inside is not in the child
        leave.set()
        beside.join()
        assert blas() == many

        with parallel.threads(2):
            def go_on():
                "From inside, as the parent does."
                return blas(), parallel.available(), parallel.spread(abs, [-1, -2])
            assert child(go_on) == (str((one, 2, [1, 2])), 0), child(go_on)
        assert blas() == many
    """)


@needs_fork
def test_a_fork_while_another_thread_enters_and_leaves_finds_nothing_half_done():
    in_a_process("""
        done = threading.Event()
        def come_and_go():
            while not done.is_set():
                with parallel.threads(2):
                    pass
        def come_once():
            with parallel.threads(2):
                inside = blas()
            return inside, blas()
        beside = threading.Thread(target=come_and_go)
        beside.start()
        try:
            for _ in range(20):
                expected = [1] * len(blas()), [2] * len(blas())
                assert child(come_once) == (str(expected), 0)
        finally:
            done.set()
        beside.join()
        assert blas() == [2] * len(blas())
    """)


def test_of_two_threads_that_overlap_the_last_one_to_leave_takes_the_limit_of_blas_away():
    before = [library.num_threads for library in parallel._blas()]
    one, two = parallel.threads(2), parallel.threads(2)
    first, second = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    with first, second:
        first.submit(one.__enter__).result()
        second.submit(two.__enter__).result()
        first.submit(one.__exit__, None, None, None).result()
        assert all(library.num_threads == 1 for library in parallel._blas())
        second.submit(two.__exit__, None, None, None).result()
    assert [library.num_threads for library in parallel._blas()] == before
