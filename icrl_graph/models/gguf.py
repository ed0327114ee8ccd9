"""What a GGUF file says of itself at its beginning, and whether it is the file that an adapter was trained on.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 2 and 3, little-endian).
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import BinaryIO

Fact = str | int | float | bool
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT = 8

BASE_HASH = "adapter.base.sha256"
"""The fact of an adapter that names the file that it was trained on."""


def facts(path: Path) -> dict[str, Fact]:
    """The texts and numbers that stand before the first list, such as `general.type`.

    Raises:
        ValueError: the file can't be read, or it is no GGUF file.
    """
    try:
        with open(path, "rb") as opened:
            magic = opened.read(4)
            if magic != b"GGUF":
                raise ValueError(f"{str(path)!r} is no GGUF file: it begins with {magic!r}")
            return _facts(opened)
    except OSError as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is a damaged GGUF file: its header ends early, or is none") from error


def _facts(opened: BinaryIO) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    _, _, count = struct.unpack("<IQQ", opened.read(20))
    for _ in range(count):
        name = _text(opened)
        kind = _number(opened, "<I")
        if kind == _TEXT:
            found[name] = _text(opened)
        elif (form := _NUMBERS.get(int(kind))) is not None:
            found[name] = _number(opened, form)
        else:
            break
    return found


def _number(opened: BinaryIO, form: str) -> Fact:
    value: Fact = struct.unpack(form, opened.read(struct.calcsize(form)))[0]
    return value


def _text(opened: BinaryIO) -> str:
    length = int(_number(opened, "<Q"))
    if length > 1 << 20:
        raise struct.error("longer than any text of a header")
    return opened.read(length).decode()


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
