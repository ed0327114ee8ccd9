"""What a language model read and wrote in a trial, by tokens: what its trainer learns from.

A trial is a chat that grows. The tokens that were sampled are kept as they were sampled, for the same text may be cut
into other tokens; only what is new in a prompt is encoded. Where a prompt does not begin with all that came before it
(a template that drops earlier thoughts, a layout or a memory that writes the history anew), a new sample begins: each
sample is a sequence that the model has really read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from icrl_graph.state.episode import Message

Odds = Mapping[int, float]
"""Probabilities of tokens."""


@dataclass(frozen=True)
class Answer:
    """An answer within a sample."""

    start: int
    """Where its tokens begin."""
    stop: int
    """Where they end: the place after the last."""
    episode: int
    """The number of the episode that it belongs to, from 0."""
    logprobs: tuple[float, ...] = ()
    """The log-probability of each token as it was sampled, in nats, 0 or less; none where a teacher wrote it."""
    targets: tuple[Odds, ...] = ()
    """By token, what a teacher would write in its place; empty where it would write nothing that begins like this."""


@dataclass
class Sample:
    """A sequence of tokens, and the answers in it: those are trained, and all else is read."""

    ids: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def places(self) -> list[tuple[int, int]]:
        """(place of the token before, episode) for each token of the answers, in their order."""
        return [(at - 1, answer.episode) for answer in self.answers for at in range(answer.start, answer.stop)]


class Recorder:
    """Records a trial.

    Args:
        encode: makes tokens of a text that begins at a boundary of tokens.
        render: makes the text of a prompt, up to where the answer begins.

    Attributes:
        samples: what was read and written so far; one, if every prompt continued the one before.
        chat: the latest prompt and its answer.
    """

    def __init__(self, encode: Callable[[str], list[int]], render: Callable[[Sequence[Message]], str]) -> None:
        self._encode, self._render = encode, render
        self._text = ""
        self.samples: list[Sample] = []
        self.chat: list[Message] = []

    def read(self, messages: Sequence[Message]) -> Sample:
        """The sample that a prompt continues, or a new one; its tokens end where the answer begins."""
        text = self._render(messages)
        if not self.samples or not text.startswith(self._text):
            self.samples.append(Sample())
            self._text = ""
        self.samples[-1].ids += self._encode(text[len(self._text) :])
        self._text, self.chat = text, list(messages)
        return self.samples[-1]

    def wrote(
        self,
        text: str,
        ids: Sequence[int],
        episode: int,
        *,
        end: str = "",
        logprobs: Sequence[float] = (),
        targets: Sequence[Odds] = (),
    ) -> None:
        """Add an answer to the latest sample.

        Args:
            text: the answer as prompts will show it.
            ids: its tokens, with those that mark its end.
            episode: its number, from 0.
            end: what marks its end as text, if that was written.
            logprobs: of its tokens, where they were sampled.
            targets: of its tokens, where a teacher tells them.
        """
        sample = self.samples[-1]
        start = len(sample.ids)
        sample.ids += ids
        sample.answers.append(Answer(start, len(sample.ids), episode, tuple(logprobs), tuple(targets)))
        self._text += text + end
        self.chat = [*self.chat, {"role": "assistant", "content": text}]
