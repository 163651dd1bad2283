"""Files and folders that are whole or not there, at whatever instant the process or the machine dies.

Everything is written under another name beside its place, flushed to the disk, and renamed into place; then the folder around it
is flushed, so that the new name lasts too. The other name holds the id of the process: `.step-000100.4711.tmp`. What a
process leaves behind that is killed can be told from what a living one is writing, and is removed by the next.

A folder may come from anybody, and a link in it may lead anywhere: through a link, a second name or a pipe nothing is written.
What is renamed into place takes their place, to append to them is refused.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .checks import byte_size
from .errors import CheckpointError, StorageError, UnsafeFile

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A link is not followed, and a pipe that nobody reads is not waited for; Windows has neither.
_OWN = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_OWN |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
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
            _remove(unfinished)
            write_file(unfinished, parts)
            os.replace(unfinished, path)
            sync_folder(path.parent)
    except BaseException:
        _remove(unfinished)
        raise


@contextmanager
def new_folder(path: Path, n_bytes: int = 0) -> Iterator[Path]:
    """A folder to write files into, which takes its place when the block ends, instead of the one there may be.

    On an error nothing is left of it, and the old one is untouched. `n_bytes` are about to be written, for the message.
    """
    unfinished, old = _temporary(path), _temporary(path.with_name(f"{path.name}.old"))
    try:
        with storing(path, n_bytes):
            _remove(unfinished)
            os.mkdir(unfinished)
            yield unfinished
            sync_folder(unfinished)
            if os.path.lexists(path):
                os.rename(path, old)
            try:
                os.rename(unfinished, path)
            except BaseException:
                if os.path.lexists(old):
                    os.rename(old, path)
                raise
            sync_folder(path.parent)
    finally:
        _remove(unfinished)
        if os.path.lexists(path):
            _remove(old)


def remove_folder(path: Path) -> None:
    """Remove a folder, or a link to one; if that is cut short, what is left of it does not have its name."""
    going = _temporary(path)
    with storing(path):
        os.rename(path, going)
    _remove(going)


def remove_stale(folder: Path) -> None:
    """Remove what processes that are no more left unfinished in `folder`."""
    for path in list(folder.iterdir()):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            _remove(path)


def append(path: Path, content: str | bytes) -> None:
    """Add text or bytes to a file; it is there even if the process dies, and after `sync_file` even if the machine does.

    UnsafeFile, here and below, for what is no file with this one name.
    """
    with storing(path), _open_own(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def truncate(n_bytes: Mapping[Path, int]) -> None:
    """Cut each file after so many bytes. CheckpointError, and no change, if one has fewer."""
    with ExitStack() as opened:
        files: dict[Path, BinaryIO] = {}
        for path, n in n_bytes.items():
            there = 0
            if n == 0 or os.path.lexists(path):
                with storing(path):
                    files[path] = opened.enter_context(_open_own(path))
                    there = os.fstat(files[path].fileno()).st_size
            if there < n:
                raise CheckpointError(
                    f"{path}: has {there:,} bytes, it had {n:,} when the checkpoint was written: put it back as it was"
                )
        for path, n in n_bytes.items():
            with storing(path):
                os.truncate(files[path].fileno(), n)


def sync_file(path: Path) -> None:
    """Flush to the disk what was appended to a file."""
    with storing(path), _open_own(path) as file:
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder, and those around it, that last; it may be there."""
    path = path.absolute()
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync_folder(folder.parent)


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
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # a pipe would be waited for
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


def _open_own(path: Path) -> BinaryIO:
    """A file to append to, made if need be. UnsafeFile unless it is a regular one that has no other name."""
    with suppress(FileNotFoundError):
        _check_own(path, os.lstat(path))  # for the message, and because devices do things when they are opened
    descriptor = os.open(path, _OWN, 0o666)
    file = os.fdopen(descriptor, "ab")
    try:
        _check_own(path, os.fstat(descriptor))  # nobody can exchange this one
    except BaseException:
        file.close()
        raise
    return file


def _check_own(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        what = "a link"
    elif stat.S_ISDIR(found.st_mode):
        what = "a folder"
    elif not stat.S_ISREG(found.st_mode):
        what = "a device or pipe"
    elif found.st_nlink > 1:
        what = "a file that has another name too"
    else:
        return
    raise UnsafeFile(f"{path}: is {what}, and only a file of the folder's own is written to: put a copy in its place")


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


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
