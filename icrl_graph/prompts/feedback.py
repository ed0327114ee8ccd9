"""Feedback in words: how much of it a prompt shows.

What a compiler, a test run or a trace says of one attempt may be longer than all attempts together. With a limit, long
feedback loses its middle: how it begins and how it ends stay. That of the latest round may be longer, or whole. It is
cut where a prompt is made, so the whole of it stays with the attempt, for reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from icrl_graph.prompts.templates import LEFT_OUT, fill
from icrl_graph.prompts.text import CHARACTERS
from icrl_graph.state.episode import Episode

SHORTEST = 16
"""Tokens of the smallest limit: the mark takes about ten of them."""


class FeedbackLimits(NamedTuple):
    """Tokens of an attempt's feedback in a prompt, at most, four characters each; None for no limit."""

    earlier: int | None = None
    latest: int | None = None
    """For the latest round among those that a prompt shows."""

    def apply(self, episodes: Sequence[Episode]) -> Sequence[Episode]:
        """The episodes as a prompt that shows them has them; those with short feedback are the very same."""
        if self.earlier is None or not episodes:
            return episodes
        newest = episodes[-1]["round"]
        return [_limited(each, self.latest if each["round"] == newest else self.earlier) for each in episodes]

    def settled(self, episodes: Sequence[Episode]) -> int:
        """How many of the episodes, from the first on, later prompts are sure to show as this one does.

        Those of the latest round are not where its limit is another one, whether or not their feedback is long: a
        prompt cache finds only what was marked, so what is marked grows by a round at a time.
        """
        if self.earlier in (None, self.latest) or not episodes:
            return len(episodes)
        newest = episodes[-1]["round"]
        return next(i for i, each in enumerate(episodes) if each["round"] == newest)


def check_limits(earlier: int | None, latest: int | None) -> None:
    """Raise `ValueError` if the limit of the latest round is below that of earlier ones, or stands alone."""
    if latest is not None and (earlier is None or latest < earlier):
        raise ValueError(
            f"latest_feedback_limit={latest} is for a feedback_limit of as many tokens or fewer, which is {earlier}"
        )


def shorten(text: str, tokens: int) -> str:
    """A text without its middle, so that with the mark in its place it has so many tokens; a short one as it is.

    Args:
        text: any.
        tokens: `SHORTEST` or more.
    """
    limit = tokens * CHARACTERS
    if len(text) <= limit:
        return text
    mark = fill(LEFT_OUT, tokens=-(-len(text) // CHARACTERS) - tokens)
    room = limit - len(mark)
    return f"{text[: room - room // 2]}{mark}{text[len(text) - room // 2 :]}"


def _limited(episode: Episode, tokens: int | None) -> Episode:
    shown = episode.get("shown", {})
    if tokens is None or len(feedback := shown.get("feedback", "")) <= tokens * CHARACTERS:
        return episode
    return {**episode, "shown": {**shown, "feedback": shorten(feedback, tokens)}}
