"""Whether a server refused the order of a prompt's roles: no wait helps against that, whatever the status.

Many chat templates want an optional system message, then the user and the assistant in turn, and servers hand their
complaint on: as a 400, a 422, or a 500 of an older llama.cpp (`icrl_graph/testing/dialects.py` has their words).
"""

from __future__ import annotations

import re

_WORDS = "|".join(
    (
        r"roles must alternate",
        r"successive user or assistant messages",
        r"unexpected role|expected last role|invalid_request_message_order",
        r"system role (?:is )?not supported|system message must be (?:at the beginning|the first)",
        r"only user(?:, system)? and assistant roles are supported",
    )
)


def is_about_roles(told: str) -> bool:
    """Whether the words of a refusal are about the roles of messages."""
    return re.search(_WORDS, told, re.IGNORECASE) is not None
