"""What an error tells: its HTTP status, and its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from typing import Any


def status_of(error: Exception) -> int | None:
    """The HTTP status of an error, wherever its client puts it; None where it has none."""
    told = error.args[0] if error.args and isinstance(error.args[0], Mapping) else {}  # an error within a 200
    places = (
        (error, "status_code"),
        (getattr(error, "response", None), "status_code"),
        (error, "status"),
        (error, "code"),
    )
    attributes = (
        getattr(holder, name, None) for holder, name in places
    )  # not all at once: some warn when they are read
    values = map(str, chain(attributes, [told.get("code")]))
    return next((int(status) for status in values if re.fullmatch("[45][0-9][0-9]", status)), None)


def words_of(error: Any) -> str:
    """All that an error tells, its fields included."""
    names = ("type", "body") if hasattr(error, "status") else ("code", "type", "body")  # aiohttp's `code` warns
    told = [str(error), *(str(getattr(error, name, "")) for name in names)]
    with suppress(Exception):  # of a response that was not read
        told.append(error.response.text)
    return "\n".join(told)
