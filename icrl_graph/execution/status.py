"""The HTTP status of an error."""

from __future__ import annotations

import re


def status_of(error: Exception) -> int | None:
    """The HTTP status of an error, wherever its client puts it; None where it has none."""
    places = (
        (error, "status_code"),
        (getattr(error, "response", None), "status_code"),
        (error, "status"),
        (error, "code"),
    )
    values = (str(getattr(holder, name, None)) for holder, name in places)
    return next((int(status) for status in values if re.fullmatch("[45][0-9][0-9]", status)), None)
