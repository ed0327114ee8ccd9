"""One process works in a folder at a time."""

from __future__ import annotations

from pathlib import Path
from typing import IO


def lock_folder(file: IO[bytes], folder: Path) -> None:
    """Keep other processes out of a folder until a file in it is closed, where the system supports it.

    Raises:
        BlockingIOError: another process works there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"another process works in {folder}; wait for it, or give another folder") from None
