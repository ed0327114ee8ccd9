"""The simulator as an `Environment`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from icrl_graph.environments import Outcome
from icrl_graph.environments.java import Worker
from icrl_graph.environments.scienceworld.matching import Embed, closest, memoized, nearest
from icrl_graph.environments.scienceworld.simulator import PATIENCE, UNKNOWN, Simulator, Snapshot
from icrl_graph.environments.scienceworld.tasks import Spec, as_spec, one_of
from icrl_graph.environments.scienceworld.templates import allowed
from icrl_graph.errors import ModelError, NoEpisode

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

Failure = Literal["penalty", "keep_best", "zero"]
EPISODES = 200
"""Episodes after which an environment replaces its JVM, which keeps its memory bounded."""
REFUSED = "This action is not available."
"""The observation of an agent that tries to reset its task."""


@dataclass
class _Episode:
    """The state of a running episode."""

    snapshot: Snapshot
    value: int
    actions: int = 0


class ScienceWorld:
    """ScienceWorld as an `Environment`: `reset`, `step` and `close` are coroutines, done in one thread per environment.

    One agent acts in it at a time. From code without an event loop: `asyncio.run(environment.step(action))`; each
    call may have another loop. If the simulator has died, the next `reset` starts another one; the actions before
    it can be repeated (`icrl_graph.environments.replay`). One that is no longer referred to ends its process.

    Rewards are points: what an action adds to the score, so that an episode's return is its score. Something wrong
    that is focused on ends an episode with the score -100, and with the reward that makes the return -100
    ("penalty"), what it was before ("keep_best") or 0 ("zero").

    An `Outcome.info` holds `score` (the simulator's, -100 after a failure), `final` (the same, at least 0: what papers
    report), `moves` (the simulator's time), `actions` (how many there were) and `action` (the one done: the text, or
    the action it was matched to); with `details` also `look`, `inventory`, `objects` and, if they are shown, `valid`.

    Args:
        max_actions: the number of actions after which an episode ends, whatever they were.
        failure: what a failure does to the return.
        similarity: how alike a text that the simulator can't read must be to an action to be matched to it (see
            `nearest`), from 0 to 1; None: no text is matched by its spelling.
        embeddings: makes vectors of texts. With it, a text that is spelt like no action is matched to the valid one
            closest in meaning (see `closest`): thousands are valid in some rooms, and each is embedded once.
        closeness: the least cosine for that, from 0 to below 1; 0.8 is that of arXiv 2506.06303.
        show_objects: whether hints list the objects that can be named.
        show_valid: whether hints list all valid actions: hundreds, at less than half the speed.
        details: whether `info` holds everything known, some 2 KB at each step.
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
        self._simulator_options = (patience, java)
        self._worker: Worker | None = None
        self._simulator: Simulator | None = None
        self._episode: _Episode | None = None
        self._no_episode = "no episode has begun"
        self._closed, self._owner = False, os.getpid()

    @property
    def pid(self) -> int | None:
        """The process id of the simulator; None while there is none."""
        return self._simulator.jvm.pid if self._simulator is not None and self._simulator.jvm.alive() else None

    async def reset(self, task_data: Mapping[str, Any]) -> Outcome:
        """Begin an episode; the observation is the task in words, then the surroundings.

        Args:
            task_data: the arguments of `Spec`.

        Raises:
            ValueError: there is no such episode.
            NoEpisode: the environment is closed.
            SimulatorError: the simulator does not start, has died or failed.
        """
        spec = as_spec(task_data)
        if self._closed:
            raise NoEpisode("this environment is closed")
        return cast(Outcome, await self._run(self._begin, spec))

    async def step(self, action: str) -> Outcome:
        """Act.

        Raises:
            TypeError: the action is not a text.
            NoEpisode: there is none, it has ended, or the environment is closed.
            SimulatorDied: the simulator is gone or silent.
            SimulatorError: an exception within it.
            ModelError: the embeddings failed; the episode has ended with that, and can be replayed.
        """
        if not isinstance(action, str):
            raise TypeError(f"an action must be a text, got {action!r}")
        if self._episode is None:
            raise NoEpisode(
                f"{self._no_episode}; reset begins one" if not self._closed else "this environment is closed"
            )
        return cast(Outcome, await self._run(self._act, self._episode, action))

    async def close(self) -> None:
        """End the simulator; may be called twice."""
        self._closed, self._episode = True, None
        if self._worker is not None and os.getpid() == self._owner:
            self._kill()
            worker, self._worker = self._worker, None
            ended = worker.submit(self._end)
            worker.end()
            await asyncio.wrap_future(ended)

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the environment's thread. If the caller is cancelled, the simulator ends."""
        if os.getpid() != self._owner:
            raise NoEpisode(
                "this environment belongs to the process that created it; create another one in a forked process"
            )
        self._worker = self._worker or Worker("scienceworld")
        future = self._worker.submit(function, *args)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._no_episode, self._episode = "the episode was cut short", None
            self._kill()
            raise

    def _kill(self) -> None:
        if self._simulator is not None:
            self._simulator.jvm.kill()

    # The methods below run in the environment's thread.

    def _begin(self, spec: Spec) -> Outcome:
        self._episode, self._no_episode = None, "no episode has begun"
        simulator = self._ready()
        with self._guarded():
            snapshot = simulator.load(spec, self._show_valid)
            description = simulator.description()
        self._episode = _Episode(snapshot, 0)
        observation = f"{description}\n\n{snapshot.observation}"
        return Outcome(observation, hint=self._hint(snapshot), info=self._info(snapshot, 0))

    def _act(self, episode: _Episode, action: str) -> Outcome:
        if self._episode is not episode:
            raise NoEpisode(f"{self._no_episode}; reset begins one")
        text = action.encode(errors="replace").decode()  # half a character can't be sent
        if allowed(text):
            with self._guarded():
                snapshot, text = self._step_or_match(text, episode.snapshot.objects)
        else:
            snapshot = episode.snapshot._replace(observation=REFUSED)
        before, episode.value = episode.value, self._value(episode.value, snapshot.score)
        episode.snapshot, episode.actions = snapshot, episode.actions + 1
        done = snapshot.completed or snapshot.score < 0 or episode.actions >= self._max_actions
        if done:
            self._episode, self._no_episode = None, "the episode has ended"
        info = {"action": text, **self._info(snapshot, episode.actions)}
        reward, success = float(episode.value - before), snapshot.completed and snapshot.score == 100
        return Outcome(snapshot.observation, reward, done, success, info, "" if done else self._hint(snapshot))

    def _step_or_match(self, action: str, objects: Sequence[str]) -> tuple[Snapshot, str]:
        """The snapshot after an action, or after the matching one if the simulator can't read it; and which it was."""
        simulator = self._simulator
        assert simulator is not None
        snapshot = simulator.step(action, self._show_valid)
        if snapshot.observation != UNKNOWN:
            return snapshot, action
        match = None if self._similarity is None else nearest(action, objects, self._similarity)
        if match is None and self._embed is not None:
            match = self._closest(action, simulator.valid() if snapshot.valid is None else snapshot.valid, self._embed)
        return (snapshot, action) if match is None else (simulator.step(match, self._show_valid), match)

    def _closest(self, text: str, valid: Sequence[str], embed: Embed) -> str | None:
        try:
            return closest(text, valid, embed, self._closeness)
        except Exception as error:  # of a provider; unwrapped, a graph would count it as the agent's failed attempt
            raise ModelError(f"the embeddings failed: {type(error).__name__}: {error}") from error

    def _value(self, before: int, score: int) -> int:
        """The return so far."""
        return score if score >= 0 else {"penalty": score, "keep_best": before, "zero": 0}[self._failure]

    def _info(self, snapshot: Snapshot, actions: int) -> dict[str, Any]:
        score = snapshot.score
        info = {"score": score, "final": max(0, score), "moves": snapshot.moves, "actions": actions}
        names = ("look", "inventory", "objects", *(["valid"] if self._show_valid else []))
        return {**info, **{name: getattr(snapshot, name) for name in names if self._details}}

    def _hint(self, snapshot: Snapshot) -> str:
        objects = [f"Objects here: {', '.join(snapshot.objects)}"] if self._show_objects else []
        actions = [] if snapshot.valid is None else [f"Valid actions: {', '.join(snapshot.valid)}"]
        return "\n".join([*objects, *actions])

    def _ready(self) -> Simulator:
        """A running simulator: the present one, or a new one if it has died or has served `EPISODES`."""
        if self._simulator is None or self._simulator.episodes >= EPISODES or not self._simulator.jvm.alive():
            self._end()
            self._simulator = Simulator(*self._simulator_options)
            with self._guarded():
                self._simulator.connect()
        return self._simulator

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """An exception in this context ends the episode and the simulator, whose state is unknown after it.

        Embeddings that fail end the episode alone: the simulator has drawn random numbers for an action never done.
        """
        try:
            yield
        except ModelError:
            self._episode, self._no_episode = None, "the embeddings failed"
            raise
        except BaseException:
            self._episode, self._no_episode = None, "the simulator failed"
            self._end()
            raise

    def _end(self) -> None:
        simulator, self._simulator = self._simulator, None
        if simulator is not None:
            simulator.jvm.end()
