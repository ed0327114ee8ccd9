"""One driver for a thread: who else wants to run it is told who does.

The lock is one of the operating system's, on a small file beside the database. It ends with the process that holds it,
however that ends; a dead one is taken over at once. The file says who holds it, and is removed with the lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from icrl_graph.errors import ThreadBusy

_held: set[tuple[int, Path]] = set()
"""The locks of this process: the system's tell processes apart, not threads. With its id, for a fork copies it."""
_held_lock = threading.Lock()


@contextmanager
def driving(path: str | os.PathLike[str], thread_id: str) -> Iterator[None]:
    """Be the only one who drives a thread.

    Args:
        path: the SQLite file that the thread is saved in. Its other threads are not concerned.
        thread_id: the thread.

    Raises:
        ThreadBusy: another process drives it, or another task or thread of this one.
    """
    file = Path(path).resolve()
    name = f"{file.name}.{hashlib.sha256(thread_id.encode()).hexdigest()[:8]}.lock"
    key, what = (os.getpid(), file.with_name(name)), f"thread {thread_id!r} of {path}"
    with _held_lock:
        if key in _held:
            raise ThreadBusy(f"{what} is driven by this process already; wait for that run, or give another thread_id")
        _held.add(key)
    try:
        with _locked(key[1], what):
            yield
    finally:
        with _held_lock:
            _held.discard(key)


@contextmanager
def _locked(lock: Path, what: str) -> Iterator[None]:
    """Keep other processes out, where the system supports it and the folder can be written to at all."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    while True:
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            if os.access(lock.parent, os.W_OK):
                raise
            yield  # nobody can write there: it is only read
            return
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 1000)
            os.close(file)
            if not isinstance(error, BlockingIOError | PermissionError):
                raise
            raise ThreadBusy(f"{what} is driven by {named(holder)}; wait for it, or give another thread_id") from None
        if _is_file(file, lock):
            break
        os.close(file)  # the one who held it has just removed it
    try:
        os.ftruncate(file, 0)
        os.write(file, json.dumps(this_process()).encode())
        yield
    finally:
        with suppress(OSError):  # its folder may have been removed
            if _is_file(file, lock):
                lock.unlink()
        os.close(file)


def _is_file(file: int, path: Path) -> bool:
    """Whether an open file is the one that stands at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def this_process() -> dict[str, Any]:
    """Who drives a thread from now on."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def named(driver: bytes | str) -> str:
    """Who drives a thread, from JSON, in words."""
    try:
        values: dict[str, Any] = json.loads(driver)
        return f"process {values['pid']} on {values['host']} since {values['since']}"
    except (ValueError, KeyError, TypeError):  # it has just taken the lock
        return "another process"
