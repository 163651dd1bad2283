"""Where lines run, never what they compute: threads over shards of a batch, or over blocks of rows.

A training step is fastest when each thread takes its own part of the batch through forward and backward, with plain NumPy lines
and matrix products of one thread. Where there is only one sequence, the large ops share out blocks of rows instead. The borders
of shards and blocks depend on sizes alone, so that any number of threads gives the same bits, and `threads=1` runs the same
lines in order, for the debugger.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

import numpy as np

from .checks import check_integer
from .errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

_BLOCK = 2**18  # elements in a block of rows: temporaries of this size stay in the cache of a core
_PRODUCT = 2**27  # multiplications from which a matrix product is worth sharing out


class _Here(threading.local):
    """What the current thread may share out; an op sees it whatever context it runs in."""

    threads = 1
    rows = False  # whether blocks of rows are what is shared
    depth = 0  # in how many `with threads(...)` it stands


_here = _Here()


def default_threads() -> int:
    """`TINYGRAD_LLM_THREADS`, or the number of cores this process may use."""
    setting = os.environ.get("TINYGRAD_LLM_THREADS")
    if setting is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not setting.isdecimal() or int(setting) < 1:
        raise ConfigError(f"TINYGRAD_LLM_THREADS is {setting!r}: it must be a positive integer")
    return int(setting)


@contextmanager
def threads(n: int | None = None, *, sharing_rows: bool = False) -> Iterator[None]:
    """Inside, work is shared among n threads (None: `default_threads()`), and BLAS runs each matrix product in one.

    With `sharing_rows`, the blocks of rows of the large ops are what is shared. The limit of BLAS holds for the whole
    process, until the last thread inside has left.
    """
    if type(n) is not int or n < 1:
        n = default_threads() if n is None else check_integer("threads", n)
    outside = _here.threads, _here.rows
    _one_blas_thread.enter()
    _here.threads, _here.rows = n, sharing_rows
    try:
        yield
    finally:
        _here.threads, _here.rows = outside
        _one_blas_thread.leave()


def available() -> int:
    """How many threads may share what comes next."""
    return _here.threads


def debugged() -> bool:
    """Whether a debugger follows this thread: it would pass the breakpoints in others, and two prompts would share one stdin."""
    if sys.gettrace() is not None:
        return True
    monitoring = getattr(sys, "monitoring", None)  # what debuggers may use from Python 3.12 on
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None


def spread(task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """[task(item) for item in items], by the threads there are; the results in order, and the first error raised."""
    n = 1 if debugged() else min(_here.threads, len(items))
    if n <= 1:
        return list(map(task, items))
    results: list[Any] = [None] * len(items)
    queue = iter(range(len(items)))  # next() on it is atomic
    others = [_pool().submit(copy_context().run, _work, task, items, results, queue) for _ in range(n - 1)]
    try:
        _work(task, items, results, queue)
    finally:
        for _ in queue:  # after an error there is nothing left to do for the others
            pass
        errors = [error for error in (other.exception() for other in others) if error is not None]
    if errors:
        raise errors[0]
    return results


def _work(task: Callable[[Any], Any], items: Sequence[Any], results: list[Any], queue: Iterator[int]) -> None:
    outside = _here.threads
    _here.threads = 1  # what runs in a shard or block is not shared out again
    try:
        for i in queue:
            results[i] = task(items[i])
    finally:
        _here.threads = outside


def blocks(x: np.ndarray) -> list[Any]:
    """Indices that cut an array along its first axis into parts that fit into the cache."""
    if x.size <= _BLOCK or x.ndim == 0:
        return [...]
    rows = max(1, _BLOCK * len(x) // x.size)
    return [slice(i, i + rows) for i in range(0, len(x), rows)]


def each(task: Callable[[Item], Any], blocks: Sequence[Item]) -> None:
    """task(block) for every block, shared among threads where rows are what is shared."""
    if _here.rows:
        spread(task, blocks)
    else:
        for block in blocks:
            task(block)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of two matrices; where rows are shared and both are large, each thread makes some rows of it."""
    if not _here.rows or len(a) * a.shape[1] * b.shape[1] < _PRODUCT:
        return a @ b
    out = np.empty((len(a), b.shape[1]), a.dtype)
    rows = -(-len(a) // 4)
    spread(functools.partial(_product_rows, a, b, out), [slice(i, i + rows) for i in range(0, len(a), rows)])
    return out


def _product_rows(a: np.ndarray, b: np.ndarray, out: np.ndarray, rows: slice) -> None:
    np.matmul(a[rows], b, out=out[rows])


@functools.cache
def recycle_memory() -> None:
    """Keep freed memory for the next array instead of giving it back to the system, which would zero it page by page again.

    Once, for the whole process, where the C library is glibc; elsewhere nothing. With `TINYGRAD_LLM_DEBUG_MEMORY` set, freed
    memory is filled with NaN, so that a use after free shows.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    if os.environ.get("TINYGRAD_LLM_DEBUG_MEMORY"):
        mallopt(_M_PERTURB, 0xFF)  # a float of nothing but ones is a NaN


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_PERTURB = -1, -3, -6  # from glibc's malloc.h


class _OneBlasThread:
    """The limit of BLAS, which is the process's own: the first thread to enter sets it, the last one to leave takes it away."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held during a fork, so that the child finds everything between two changes
        self.depth = 0  # of all threads together
        self.outside: list[tuple[Any, int]] = []  # the libraries, and in how many threads each ran before

    def enter(self) -> None:
        libraries = _blas()
        with self.lock:
            for library in libraries:
                if self.depth == 0:
                    self.outside.append((library, library.num_threads))
                _set_threads(library, 1)
            self.depth += 1
            _here.depth += 1

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            _here.depth -= 1
            self._restore()

    def after_fork(self) -> None:
        """In a child there is one thread, the one that forked; those that stood inside beside it will not leave."""
        self.depth = _here.depth
        self._restore()
        self.lock.release()

    def _restore(self) -> None:
        if self.depth == 0:
            for library, n in self.outside:
                _set_threads(library, n)
            self.outside = []


def _set_threads(library: Any, n: int) -> None:
    """From threadpoolctl 3.8 on, OpenBLAS hears only the first thread that gave it a number; here a lock keeps threads apart."""
    forget_the_first = getattr(library, "clear_controlling_thread", lambda force: None)
    forget_the_first(force=True)
    library.set_num_threads(n)
    forget_the_first(force=True)


_one_blas_thread = _OneBlasThread()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="tinygrad_llm")


@functools.cache
def _blas() -> list[Any]:
    """The BLAS libraries in the process, whose numbers of threads can be read and set."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_blas_thread.lock.acquire,
        after_in_parent=_one_blas_thread.lock.release,
        after_in_child=_one_blas_thread.after_fork,
    )
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the child has none of its threads, and would wait for them
