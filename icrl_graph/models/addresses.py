"""Addresses of models' servers: what of them is secret, and which of them may get a key.

A run or comparison is resumed from a folder, which may come from somebody else: an address that is read there may be
any server's. Prompts go there, as whoever resumes it wants; a key of this environment does not.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

OPENAI = "https://api.openai.com/v1"
Credentials = tuple[str, str]
"""A user name and a password."""
_USER = re.compile(r"^(?:(postgres(?:ql)?://)[^/]*|([a-z][a-z0-9+.-]*://)?[^/?#]*)@", re.IGNORECASE)
"""To libpq, ? and # may be part of a password; of another URL they end the server."""
_PASSWORD = re.compile(r"&?(?<=[?&])((ssl)?password|oauth_client_secret)=[^&]*", re.IGNORECASE)


class FolderAddress(str):
    """An address that was read from a folder: no key goes there, unless the environment names the same address."""

    __slots__ = ()


def without_credentials(address: str | None) -> str | None:
    """An address without `user:password@`, and without `password=` of a database, as it may be saved and shown."""
    return None if address is None else _PASSWORD.sub("", _USER.sub(r"\1\2", address)).replace("?&", "?").rstrip("?")


def split_credentials(address: str) -> tuple[str, Credentials | None]:
    """An address without its user name and password, and these.

    Raises:
        ValueError: its port is no number, as where a password holds a "/" that is not encoded.
    """
    parts = urlsplit(address)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(
            "the port in the address of the model's server is no number; in user:password@, write / ? # @ as "
            "%2F %3F %23 %40"
        ) from None
    credentials = unquote(parts.username or ""), unquote(parts.password or "")
    return _USER.sub(r"\1\2", address), credentials if any(credentials) else None


def server_of(address: str | None) -> tuple[str | None, bool]:
    """The address that is asked, and whether a key of the environment may be sent there.

    Args:
        address: as it was given or read; None for that of the environment.

    Returns:
        The address, None for OpenAI's; whether a person gave it here or the environment names it.
    """
    own = os.environ.get("OPENAI_BASE_URL") or None
    if not isinstance(address, FolderAddress):
        return address or own, True
    if _comparable(address) == _comparable(own or OPENAI):
        return own, True
    return address, False


def server_of_further(name: str, own: str | None, model: str, base_url: str | None) -> str | None:
    """The address of a judge or another model beside the main one; None for that of the environment.

    Args:
        name: of that model, as "provider:name".
        own: its own address, if one was given.
        model: the name of the main model.
        base_url: the main model's address, which is its own, too, where it speaks the same protocol.
    """
    return own or (base_url if name.partition(":")[0] in ("openai", model.partition(":")[0]) else None)


def _comparable(address: str) -> str:
    scheme, _, rest = (without_credentials(address) or "").rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}".lower() + slash + path
