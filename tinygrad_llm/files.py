"""Files and folders that are whole or not there, at whatever instant the process or the machine dies.

Everything is written under another name beside its place, flushed to the disk, and renamed into place; then the folder around it
is flushed, so that the new name lasts too. The other name holds the id of the process: `.step-000100.4711.tmp`. What a
process leaves behind that is killed can be told from what a living one is writing, and is removed by the next.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .checks import byte_size
from .errors import CheckpointError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a new file and flush it to the disk; it may be half there when this fails."""
    with open(path, "xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file whole, in place of the one there may be. StorageError, with the old one untouched."""
    unfinished = _temporary(path)
    try:
        with storing(path):
            unfinished.unlink(missing_ok=True)
            write_file(unfinished, parts)
            os.replace(unfinished, path)
            sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path, n_bytes: int = 0) -> Iterator[Path]:
    """A folder to write files into, which takes its place when the block ends, instead of the one there may be.

    On an error nothing is left of it, and the old one is untouched. `n_bytes` are about to be written, for the message.
    """
    unfinished, old = _temporary(path), _temporary(path.with_name(f"{path.name}.old"))
    try:
        with storing(path, n_bytes):
            shutil.rmtree(unfinished, ignore_errors=True)
            os.mkdir(unfinished)
            yield unfinished
            sync_folder(unfinished)
            if path.exists():
                os.rename(path, old)
            try:
                os.rename(unfinished, path)
            except BaseException:
                if old.exists():
                    os.rename(old, path)
                raise
            sync_folder(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder; if that is cut short, what is left of it does not have its name."""
    going = _temporary(path)
    with storing(path):
        os.rename(path, going)
    shutil.rmtree(going, ignore_errors=True)


def remove_stale(folder: Path) -> None:
    """Remove what processes that are no more left unfinished in `folder`."""
    for path in list(folder.iterdir()):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def append(path: Path, content: str | bytes) -> None:
    """Add text or bytes to a file; it is there even if the process dies, and after `sync_file` even if the machine does."""
    with storing(path), path.open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def truncate(path: Path, n_bytes: int) -> None:
    """Cut a file after so many bytes. CheckpointError, and no change, if it has fewer."""
    there = path.stat().st_size if path.exists() else 0
    if there < n_bytes:
        raise CheckpointError(
            f"{path}: has {there:,} bytes, it had {n_bytes:,} when the checkpoint was written: put it back as it was"
        )
    with storing(path):
        os.truncate(path, n_bytes)


def sync_file(path: Path) -> None:
    """Flush to the disk what was appended to a file."""
    with storing(path), path.open("ab") as file:
        os.fsync(file.fileno())


def check_writable(folder: Path) -> None:
    """StorageError if no file can be written in `folder`."""
    path = _temporary(folder / "test")
    with storing(folder):
        try:
            write_file(path, [b"x"])
        finally:
            path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Have the folder to oneself; StorageError if another process has it. The system lets go when the process ends.

    Where the system or its file system has no such locks, there are none.
    """
    if fcntl is None:
        yield
        return
    with storing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{folder}: another process is training in this folder: wait for it, or choose another folder"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def room(folder: Path) -> int:
    """Free bytes on the disk that holds `folder`, or will when it is made."""
    folder = folder.absolute()
    while not os.path.exists(folder):  # False, too, for a name that cannot be
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def storing(path: Path, n_bytes: int = 0) -> Iterator[None]:
    """Inside, an OSError becomes a StorageError that names `path`, what is wrong, and what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        what = f"{path}: cannot be written: {error.strerror or error}"
        try:
            there = f", {byte_size(room(path))} are free on this disk"
        except OSError:
            there = ""
        needed = f" ({byte_size(n_bytes)} are needed{there})" if n_bytes else ""
        problem = StorageError(f"{what}{needed}: free space there, or choose another folder")
        problem.errno = error.errno
        raise problem from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
