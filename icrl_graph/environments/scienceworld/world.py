"""The simulator as an `Environment`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from icrl_graph.environments import Outcome
from icrl_graph.environments.java import Lane
from icrl_graph.environments.scienceworld.matching import Embed, closest, memoized, nearest
from icrl_graph.environments.scienceworld.simulator import PATIENCE, UNKNOWN, Seen, Simulator
from icrl_graph.environments.scienceworld.tasks import Spec, as_spec, one_of
from icrl_graph.environments.scienceworld.templates import allowed
from icrl_graph.errors import ModelError, NoEpisode

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

Failure = Literal["penalty", "keep_best", "zero"]
EPISODES = 200
"""Episodes after which a world begins anew in another JVM, which keeps its memory bounded."""
REFUSED = "This action is not available."
"""What the agent is told that asks to reset its task."""


@dataclass
class _Episode:
    """What is kept of an episode while it runs."""

    seen: Seen
    value: int
    actions: int = 0


class ScienceWorld:
    """The world as an `Environment`: `reset`, `step` and `close` are coroutines, done in a thread of its own.

    One agent acts in it at a time. From code without an event loop: `asyncio.run(world.step(action))`; each call may
    have a loop of its own. A world whose simulator has died begins anew at its next `reset`; what was done before can
    be done again (`icrl_graph.environments.replay`). One that is no longer referred to ends its process by itself.

    Rewards are points: what an action adds to the score, so that an episode's return is its score. Something wrong
    that is focused on ends an episode with the score -100, and with the reward that makes the return -100
    ("penalty"), what it was before ("keep_best") or 0 ("zero").

    An `Outcome.info` holds `score` (the simulator's, -100 after a failure), `final` (the same, at least 0: what papers
    report), `moves` (the simulator's time), `actions` (how many there were) and `action` (what was done: the text, or
    what it was taken for); with `details` also `look`, `inventory`, `objects` and, if they are shown, `valid`.

    Args:
        max_actions: after how many actions an episode ends, whatever they were.
        failure: what a failure does to the return.
        similarity: how alike a text that the simulator can't read must be to an action to be taken for it (see
            `nearest`), from 0 to 1; None: no text is taken for one that is spelt like it.
        embeddings: makes vectors of texts. With it, a text that is like no action is taken for the valid one that says
            most nearly the same (see `closest`): thousands are valid in some rooms, and each is embedded once.
        closeness: the cosine that it takes for that, from 0 to below 1; 0.8 is that of arXiv 2506.06303.
        show_objects: whether hints tell the objects that can be named.
        show_valid: whether hints tell all valid actions: hundreds, at less than half the speed.
        details: whether `info` holds all there is to know, some 2 KB at each step.
        patience: seconds for the simulator's start, and for one call.
        java: the command.

    Raises:
        ValueError: an option is wrong.
        MissingExtra: the package `scienceworld` is not installed; when an episode begins, as the errors below.
        SimulatorUnavailable: there is no Java, or it does not start.
    """

    def __init__(
        self,
        *,
        max_actions: int = 100,
        failure: Failure = "penalty",
        similarity: float | None = 0.85,
        embeddings: Embeddings | None = None,
        closeness: float = 0.8,
        show_objects: bool = True,
        show_valid: bool = False,
        details: bool = False,
        patience: float = PATIENCE,
        java: str = "java",
    ) -> None:
        one_of("failure", failure, get_args(Failure))
        if type(max_actions) is not int or max_actions < 1:
            raise ValueError(f"max_actions must be an integer from 1, got {max_actions!r}")
        if similarity is not None and not 0 < similarity <= 1:
            raise ValueError(f"similarity must be above 0 and at most 1, or None; got {similarity!r}")
        if embeddings is not None and not hasattr(embeddings, "embed_documents"):
            raise ValueError(f"embeddings must be LangChain's, with embed_documents; got {embeddings!r:.80}")
        if not 0 <= closeness < 1:
            raise ValueError(f"closeness must be from 0 to below 1, got {closeness!r}")
        if not patience > 0:
            raise ValueError(f"patience must be above 0 seconds, got {patience!r}")
        self._max_actions, self._failure = max_actions, failure
        self._similarity, self._closeness = similarity, closeness
        self._embed = None if embeddings is None else memoized(embeddings.embed_documents)
        self._show_objects, self._show_valid, self._details = show_objects, show_valid, details
        self._start = (patience, java)
        self._lane: Lane | None = None
        self._simulator: Simulator | None = None
        self._episode: _Episode | None = None
        self._why = "no episode has begun"
        self._closed, self._owner = False, os.getpid()

    @property
    def pid(self) -> int | None:
        """The process of the simulator; None while there is none."""
        return self._simulator.jvm.pid if self._simulator is not None and self._simulator.jvm.alive() else None

    async def reset(self, task_data: Mapping[str, Any]) -> Outcome:
        """Begin an episode; observed are the task in words, and what there is to see.

        Args:
            task_data: the arguments of `Spec`.

        Raises:
            ValueError: there is no such episode.
            NoEpisode: the world is closed.
            SimulatorError: the simulator does not start, has died or failed.
        """
        spec = as_spec(task_data)
        if self._closed:
            raise NoEpisode("this world is closed")
        return cast(Outcome, await self._done(self._begin, spec))

    async def step(self, action: str) -> Outcome:
        """Act.

        Raises:
            TypeError: the action is no text.
            NoEpisode: there is none, it has ended, or the world is closed.
            SimulatorDied: the simulator is gone or silent.
            SimulatorError: it failed by itself.
            ModelError: the embeddings failed; the episode has ended with that, and can be replayed.
        """
        if not isinstance(action, str):
            raise TypeError(f"an action is a text, got {action!r}")
        if self._episode is None:
            raise NoEpisode(f"{self._why}; reset begins one" if not self._closed else "this world is closed")
        return cast(Outcome, await self._done(self._act, self._episode, action))

    async def close(self) -> None:
        """End the simulator; may be called twice."""
        self._closed, self._episode = True, None
        if self._lane is not None and os.getpid() == self._owner:
            self._kill()
            lane, self._lane = self._lane, None
            ended = lane.do(self._end)
            lane.end()
            await asyncio.wrap_future(ended)

    async def _done(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have something done in this world's thread. One that is no longer waited for ends the simulator."""
        if os.getpid() != self._owner:
            raise NoEpisode("this world belongs to the process that made it; make another one in a fork")
        self._lane = self._lane or Lane("scienceworld")
        future = self._lane.do(function, *args)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._why, self._episode = "the episode was cut short", None
            self._kill()
            raise

    def _kill(self) -> None:
        if self._simulator is not None:
            self._simulator.jvm.kill()

    # What follows is done in the world's thread.

    def _begin(self, spec: Spec) -> Outcome:
        self._episode, self._why = None, "no episode has begun"
        simulator = self._ready()
        with self._guarded():
            seen = simulator.load(spec, self._show_valid)
            description = simulator.description()
        self._episode = _Episode(seen, 0)
        return Outcome(f"{description}\n\n{seen.observation}", hint=self._hint(seen), info=self._info(seen, 0))

    def _act(self, episode: _Episode, action: str) -> Outcome:
        if self._episode is not episode:
            raise NoEpisode(f"{self._why}; reset begins one")
        text = action.encode(errors="replace").decode()  # half a character can't be sent
        if allowed(text):
            with self._guarded():
                seen, text = self._stepped(text, episode.seen.objects)
        else:
            seen = episode.seen._replace(observation=REFUSED)
        before, episode.value = episode.value, self._value(episode.value, seen.score)
        episode.seen, episode.actions = seen, episode.actions + 1
        done = seen.completed or seen.score < 0 or episode.actions >= self._max_actions
        if done:
            self._episode, self._why = None, "the episode has ended"
        info = {"action": text, **self._info(seen, episode.actions)}
        reward, success = float(episode.value - before), seen.completed and seen.score == 100
        return Outcome(seen.observation, reward, done, success, info, "" if done else self._hint(seen))

    def _stepped(self, action: str, objects: Sequence[str]) -> tuple[Seen, str]:
        """What an action led to, or the one that was meant where the simulator can't read it; and which it was."""
        simulator = self._simulator
        assert simulator is not None
        seen = simulator.step(action, self._show_valid)
        if seen.observation != UNKNOWN:
            return seen, action
        meant = None if self._similarity is None else nearest(action, objects, self._similarity)
        if meant is None and self._embed is not None:
            meant = self._closest(action, simulator.valid() if seen.valid is None else seen.valid, self._embed)
        return (seen, action) if meant is None else (simulator.step(meant, self._show_valid), meant)

    def _closest(self, text: str, valid: Sequence[str], embed: Embed) -> str | None:
        try:
            return closest(text, valid, embed, self._closeness)
        except Exception as error:  # of a provider; as it is, a graph would hold the agent's attempt to have failed
            raise ModelError(f"the embeddings failed: {type(error).__name__}: {error}") from error

    def _value(self, before: int, score: int) -> int:
        """The return so far."""
        return score if score >= 0 else {"penalty": score, "keep_best": before, "zero": 0}[self._failure]

    def _info(self, seen: Seen, actions: int) -> dict[str, Any]:
        info = {"score": seen.score, "final": max(0, seen.score), "moves": seen.moves, "actions": actions}
        names = ("look", "inventory", "objects", *(["valid"] if self._show_valid else []))
        return {**info, **{name: getattr(seen, name) for name in names if self._details}}

    def _hint(self, seen: Seen) -> str:
        objects = [f"Objects here: {', '.join(seen.objects)}"] if self._show_objects else []
        return "\n".join([*objects, *([] if seen.valid is None else [f"Valid actions: {', '.join(seen.valid)}"])])

    def _ready(self) -> Simulator:
        """A simulator that runs: the one at hand, or another if it has died or was used for long."""
        if self._simulator is None or self._simulator.episodes >= EPISODES or not self._simulator.jvm.alive():
            self._end()
            self._simulator = Simulator(*self._start)
            with self._guarded():
                self._simulator.connect()
        return self._simulator

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What fails in here ends the episode, and the simulator, which is not to be trusted after it.

        Embeddings that fail end the episode alone: the simulator has drawn random numbers for an action never done.
        """
        try:
            yield
        except ModelError:
            self._episode, self._why = None, "the embeddings failed"
            raise
        except BaseException:
            self._episode, self._why = None, "the simulator failed"
            self._end()
            raise

    def _end(self) -> None:
        simulator, self._simulator = self._simulator, None
        if simulator is not None:
            simulator.jvm.end()
