"""Regex golf: a regular expression that matches all of some texts and none of others, the shorter the better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.verifier import Refused, Verifier, bound, read_block, require, texts
from icrl_graph.state.reward import Reward

LONGEST = 1000
"""Characters of a pattern."""
SECONDS = 2.0
"""For the search in one text. What a pattern costs before that, to be compiled, is bounded by the worker's limits."""


def regex_golf() -> BoundEvaluator:
    """An evaluator of regular expressions.

    The task data has lists of texts: `match`, in each of which the pattern is to be found (anywhere, unless it has
    anchors), and `avoid`, in none of which. With n texts, of which it treats r as it should, a pattern of length L
    earns (r + 1 - L / 1000) / n: so the texts count first, the length decides among equals, and all texts are right if
    and only if the reward is at least 1. The metric is 1 if all are right, else 0.

    The pattern is read by the package `regex`, in `<answer>...</answer>`, in a block of code or in backticks, or it is
    the whole answer. A pattern that is none, or that takes too long on a text, earns 0.

    Raises:
        MissingExtra: the package is not installed.
    """
    require("regex")
    return bound("regex_golf", Verifier(judge, read_pattern, LONGEST))


_CODE = re.compile(r"`([^`\n]+)`")


def read_pattern(text: str) -> str:
    """The pattern that an answer gives."""
    block = read_block(text)
    in_code = _CODE.findall(block)
    return (in_code[-1] if in_code else block).strip()


def judge(pattern: Any, task_data: Mapping[str, Any]) -> Reward:
    """What the worker does; see `verifier.Judge`."""
    import regex

    match, avoid = (texts(task_data, name, "a list of texts") for name in ("match", "avoid"))
    if both := set(match) & set(avoid):
        raise ValueError(f"task_data['match'] and task_data['avoid'] share {sorted(both)[0]!r:.200}")
    if pattern is None:
        return Reward(value=None)
    if not isinstance(pattern, str):
        raise Refused("The answer is no text.")
    try:
        compiled = regex.compile(pattern)
        found = [compiled.search(text, timeout=SECONDS) is not None for text in (*match, *avoid)]
    except TimeoutError:
        raise Refused("The pattern takes too long.") from None
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise Refused(f"This is no regular expression: {error}") from None
    matched, hit, total = sum(found[: len(match)]), sum(found[len(match) :]), len(found)
    right = matched + len(avoid) - hit
    return Reward(
        value=(right + 1 - len(pattern) / LONGEST) / total,
        metric=float(right == total),
        feedback=f"It matches {matched} of the {len(match)} texts that it should match, and {hit} of the {len(avoid)} "
        f"that it should not; it has {len(pattern)} characters.",
    )
