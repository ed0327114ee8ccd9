"""Text as it may be stored and sent: a database and a provider refuse what Python lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def cleaned(value: Value) -> Value:
    """The value, with U+FFFD in place of what no text may hold: surrogates without their other half, and NUL.

    JSON can carry both. UTF-8 can't encode the one, so that no later request could be sent; PostgreSQL refuses the
    other, so that a run that was paid for could not end.

    Args:
        value: a text, or lists and mappings that hold some; anything else stays what it is.

    Returns:
        The same object, if nothing was to be replaced.
    """
    return _cleaned(value)  # type: ignore[no-any-return]


def _cleaned(value: Any) -> Any:
    clean: Any
    if isinstance(value, str):
        return value if _is_clean(value) else _replaced(value)
    if isinstance(value, Mapping):
        clean = {_cleaned(name): _cleaned(held) for name, held in value.items()}
        changed = any(a is not b or c is not d for (a, c), (b, d) in zip(clean.items(), value.items(), strict=False))
        return clean if changed or len(clean) != len(value) else value
    if isinstance(value, list | tuple):
        clean = [_cleaned(held) for held in value]
        changed = any(a is not b for a, b in zip(clean, value, strict=True))
        return (clean if isinstance(value, list) else tuple(clean)) if changed else value
    return value


def _is_clean(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replaced(text: str) -> str:
    """Halves that belong together, as a stream may tear them, become the character that they are."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")
