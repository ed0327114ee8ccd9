"""`improve`: the one call for people who want a better answer and no graphs.

    result = improve("Write a pangram.", score=lambda response: len(set(response.lower())) / 27, model="openai:...")

With `path` a run is saved in an SQLite file or a PostgreSQL database, checkpoints and journal together. The same call
after a crash resumes it, and pays for nothing twice but the call that was in flight; after the end it gives the saved
result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.runtime import RunControl
from langgraph.types import StateSnapshot
from typing_extensions import TypedDict

from icrl_graph.errors import IcrlError
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.execution.calls import contained
from icrl_graph.execution.event_loop import event_loop
from icrl_graph.execution.langgraph_internals import next_ids_after_config
from icrl_graph.execution.run_file import async_saver_of, is_postgres, saver_of
from icrl_graph.prompts.templates import label
from icrl_graph.prompts.text import number
from icrl_graph.state import notebook
from icrl_graph.state.checks import check_control, check_function
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.episode import (
    Episode,
    Message,
    Usage,
    outgrown,
    plain,
    spent_by_model,
    told_switch,
    value_of,
    warnings_of,
)
from icrl_graph.state.events import EpisodeEvent, episode_event
from icrl_graph.state.formatting import cost, shorten
from icrl_graph.state.loading import absolute
from icrl_graph.state.selection import why_unreported
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import build
from icrl_graph.topologies.nodes import check_task, check_task_data
from icrl_graph.topologies.nodes.telling import source_of
from icrl_graph.topologies.resuming import next_step
from icrl_graph.topologies.settings import SavedSettings

OnEpisode = Callable[[EpisodeEvent], None]


class Made(TypedDict):
    """When and by what a result was made."""

    at: str
    """When it was saved, in ISO 8601."""
    parts: Mapping[str, str]
    """The names of its models, evaluator and others."""
    code: Mapping[str, str]
    """Fingerprints of their code (see `icrl_graph.state.fingerprint`)."""
    options: Mapping[str, str]
    """Those of the options that it was made with."""


@dataclass(frozen=True, repr=False)
class Result:
    """What a run came to; printed, or shown by a notebook, it shows its attempts, of many the first and the last."""

    answer: Any
    """The answer of the episode that the method chose; None if no attempt gave one."""
    reward: float | None
    """Its reward; None if no attempt was scored."""
    metric: float | None
    """Its metric, where there is one; else the reward."""
    regret: float | None
    """How much higher the best metric of all attempts is than that of the answer."""
    rewarded_by: str | None
    """The source of the rewards: "oracle" (a function or tool), "judged" (what may hold a model), "self-judged" or
    "human"."""
    stopped: str
    """Why it ended: rounds, success, plateau, gain, calls, tokens, usd, time, failures (of the model), evaluator or
    error (a program of another library has raised)."""
    usage: Usage
    """What all of it cost."""
    episodes: Sequence[Episode]
    """Every attempt, in order."""
    lost_rounds: int = 0
    """Rounds that are not counted, because they ended a run whose model gave no answer, and that was resumed."""
    made: Made | None = field(default=None, compare=False)
    """When and by what; None of a run that an earlier version saved."""

    @property
    def rewards(self) -> list[float | None]:
        """The reward of every attempt, in order; None where unscored."""
        return [value_of(episode) for episode in self.episodes]

    @property
    def usage_by_model(self) -> dict[str, Usage]:
        """What each of several models cost: "model" and, after a switch, "switch_model".

        Judges and writers of reflections stand by themselves: evaluate, select, reflector, critic.
        """
        parts = self.made["parts"] if self.made is not None else {}
        return spent_by_model(self.episodes, next((name for name in ("reflector", "critic") if name in parts), None))

    def to_pandas(self) -> Any:
        """Its attempts as a pandas DataFrame, a row each; rounds and candidates are counted from 1.

        Raises:
            MissingExtra: pandas is not installed (extra `pandas`).
        """
        return notebook.data_frame([notebook.attempt_row(episode) for episode in self.episodes])

    def plot(self, axes: Any = None) -> Any:
        """Draw the reward of each attempt, and the best so far.

        Args:
            axes: of matplotlib, where it is drawn; default those of a new figure.

        Returns:
            The axes.

        Raises:
            MissingExtra: matplotlib is not installed (extra `report`).
        """
        return notebook.plot_attempts(self.episodes, axes)

    @property
    def _headline(self) -> str:
        reason, warnings = why_unreported(self.episodes), warnings_of(self.episodes)
        return (
            f"reward {number(self.reward)} ({self.rewarded_by}), stopped: {self.stopped}, {cost(self.usage)}, "
            f"{self.usage.get('seconds', 0):.1f} s"
            + (f"; no reward: {shorten(reason)}" if reason else "")
            + "".join(f"; warning: {shorten(warning, 300)}" for warning in warnings)
            + "".join(f"; {note}" for note in (told_switch(self.episodes), outgrown(self.episodes)) if note)
        )

    def __repr__(self) -> str:
        attempts, models = [], {episode.get("model", "") for episode in self.episodes}
        for episode in self.episodes:
            asked = f"{episode['round'] + 1:3} {label(episode['plan']['instruction'])[:10]:10}"
            by = f" {episode.get('model', ''):{max(map(len, models))}}" if len(models) > 1 else ""
            attempts.append(f"  {asked}{by} {number(value_of(episode)):>8}  {notebook.attempt_line(episode)}")
        first, last = notebook.ends(len(attempts))
        attempts[first : len(attempts) - last] = [f"  ... {len(attempts) - first - last} more ..."] if last else []
        return "\n".join([f"Result({self._headline})", f"  answer: {shorten(self.answer)}", *attempts])

    def _repr_html_(self) -> str:
        return notebook.result_html(self._headline, self.answer, self.episodes, label)


def improve(
    task: str | Sequence[Message],
    score: Evaluator,
    *,
    model: Any,
    topology: str | Callable[..., Graph] = "icrl",
    task_data: Mapping[str, Any] | None = None,
    path: str | PathLike[str] | None = None,
    thread_id: str | None = None,
    on_episode: OnEpisode | None = None,
    control: RunControl | None = None,
    **options: Any,
) -> Result:
    """Improve an answer by its rewards.

    Args:
        task: text, or chat messages in OpenAI's format.
        score: gives the reward: a callable, LangChain tool or Runnable, called with the arguments that it names among
            task, response, answer, steps, task_data and history; sync or async. Or its name, as "path.py:score".
        model: a chat model, "provider:name", a Runnable, a compiled graph that takes `messages`, or a function.
        topology: "icrl", "reflexion", "self_refine" or "best_of_n"; or a custom one, as "path.py:create_mine",
            "module:create_mine", an entry point, or the function itself.
        task_data: for the score only; never shown to the model.
        path: an SQLite file that saves the run, or the address of a PostgreSQL database, postgresql://... (extra
            `postgres`).
        thread_id: the run's name within the file or database; by default made of topology, task and task data.
        on_episode: called with each episode as soon as it is judged.
        control: its `request_drain()`, called from a signal handler or another thread, ends the run after the step that
            it is in.
        options: what the function of the topology takes, such as rounds, memory, schedule, target, max_calls.

    Returns:
        The best answer, and every attempt.

    Raises:
        ValueError: an argument is wrong.
        ThreadMismatch: the file holds another run under this thread id.
        ThreadBusy: somebody else is making the same call.
        ModelError: the model can't answer at all, because of its key or name, say.
        GraphDrained: the run was ended through `control`; with `path`, the same call resumes it.
    """
    _check_call(thread_id, on_episode, control)
    graph, inputs = build(topology, model, score, **options), check_inputs(task, task_data)
    return play(graph, inputs, path, thread_id or name_of(topology, inputs), on_episode, control)


async def aimprove(
    task: str | Sequence[Message],
    score: Evaluator,
    *,
    model: Any,
    topology: str | Callable[..., Graph] = "icrl",
    task_data: Mapping[str, Any] | None = None,
    path: str | PathLike[str] | None = None,
    thread_id: str | None = None,
    on_episode: OnEpisode | None = None,
    control: RunControl | None = None,
    **options: Any,
) -> Result:
    """`improve` for async code; takes the same arguments."""
    _check_call(thread_id, on_episode, control)
    graph, inputs = build(topology, model, score, **options), check_inputs(task, task_data)
    return await aplay(graph, inputs, path, thread_id or name_of(topology, inputs), on_episode, control)


def play(
    graph: Graph,
    inputs: Mapping[str, Any],
    path: str | PathLike[str] | None,
    thread_id: str,
    on_episode: OnEpisode | None = None,
    control: RunControl | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """`improve` with a graph that is built already, and that many runs may share.

    Args:
        graph: what to run.
        inputs: the task and its data.
        path: the file or database that the run is saved in, or None.
        thread_id: its name within the file.
        on_episode: called with each episode.
        control: ends it early.
        settings: of this run, where they differ from those of the graph.
    """
    context, whole = graph.settings(settings), False
    with event_loop(), saver_of(path, thread_id) as saver:
        compiled, config = graph.saved_by(saver), _config(thread_id)
        while not whole:
            stored = compiled.get_state(config)
            step = next_step(graph, stored, inputs, context)
            if step is None:
                break
            next_ids_after_config(stored.config)
            with _hint(path):
                if step.update is not None:
                    compiled.update_state(config, step.update, as_node="evaluate")
                events: Any = compiled.stream(step.input, config, context=context, **_streaming(path, control))
                tell = _teller(graph, thread_id, on_episode, stored)
                with closing(events):  # whatever ends it, it writes no more once the file is closed
                    for values in events:
                        tell(values)
            whole = step.is_last
        return _result(compiled.get_state(config))


async def aplay(
    graph: Graph,
    inputs: Mapping[str, Any],
    path: str | PathLike[str] | BaseCheckpointSaver[Any] | None,
    thread_id: str,
    on_episode: OnEpisode | None = None,
    control: RunControl | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """`play` for async code; in place of a path, also an open checkpointer, whose thread the caller drives."""
    context, whole = graph.settings(settings), False
    async with async_saver_of(path, thread_id) as saver:
        compiled, config = graph.saved_by(saver), _config(thread_id)
        while not whole:
            stored = await compiled.aget_state(config)
            step = next_step(graph, stored, inputs, context)
            if step is None:
                break
            next_ids_after_config(stored.config)
            with _hint(path, awaits=True):
                if step.update is not None:
                    await compiled.aupdate_state(config, step.update, as_node="evaluate")
                events: Any = compiled.astream(step.input, config, context=context, **_streaming(path, control))
                tell = _teller(graph, thread_id, on_episode, stored)
                async with aclosing(events):
                    async for values in events:
                        tell(values)
            whole = step.is_last
        return _result(await compiled.aget_state(config))


async def arounds(graph: Graph, saver: BaseCheckpointSaver[Any], thread_id: str) -> int:
    """How many rounds a saved run was given at most; 0 of one that has not begun."""
    stored = await graph.saved_by(saver).aget_state(_config(thread_id))
    saved = stored.values.get("settings")
    return SavedSettings.of(saved).rounds if saved else 0


def check(
    task: Any,
    score: Evaluator,
    *,
    model: Any,
    topology: str | Callable[..., Graph] = "icrl",
    task_data: Any = None,
    **options: Any,
) -> None:
    """Raise what `improve` would raise of wrong arguments, without asking a model anything."""
    check_inputs(task, task_data)
    build(topology, model, score, **options).check_names()


def name_of(topology: str | Callable[..., Graph], inputs: Mapping[str, Any]) -> str:
    """A thread id of a run's own: the same for the same topology, task and task data."""
    name = absolute(topology) if isinstance(topology, str) else f"{topology.__module__}:{name_of_part(topology)}"
    source = json.dumps([name, inputs["task"], inputs["task_data"]], sort_keys=True)
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def check_inputs(task: Any, task_data: Any) -> dict[str, Any]:
    """What a graph takes, checked.

    Raises:
        ValueError: the task is empty or neither text nor messages, or the task data is not a mapping of JSON values.
    """
    return {"task": check_task(task), "task_data": plain(check_task_data(task_data), "task_data")}


def _check_call(thread_id: Any, on_episode: Any, control: Any) -> None:
    """Raise ValueError for what is neither None nor what it should be, before anything is paid."""
    if not isinstance(thread_id, str | None):
        raise ValueError(f"thread_id is a text, got {thread_id!r:.80}")
    check_function("on_episode", on_episode, "event")
    check_control(control)


def _config(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}, "recursion_limit": 1_000_000_000}  # the rounds are the limit


def _streaming(path: Any, control: RunControl | None) -> dict[str, Any]:
    # not "custom": for its events LangGraph runs every node in a thread, and users' code may want to be in the caller's
    return {"stream_mode": "values", "durability": "exit" if path is None else "sync", "control": control}


def _teller(
    graph: Graph, thread_id: str, on_episode: OnEpisode | None, stored: StateSnapshot
) -> Callable[[Mapping[str, Any]], None]:
    """A function of the states that a run comes to, which tells who listens of each attempt that is judged."""
    known = _judged(stored.values)

    def tell(values: Mapping[str, Any]) -> None:
        nonlocal known
        before, known = known, _judged(values)
        for place, at in known.items():
            if on_episode is not None and place not in before:
                event = episode_event(values["episodes"], at)
                on_episode({**event, **source_of(values, graph.parts.name, thread_id)})

    return tell


def _judged(values: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """Where in a state the attempts are that are judged, by round and candidate."""
    episodes = values.get("episodes", [])
    return {(each["round"], each["candidate"]): at for at, each in enumerate(episodes) if "reward" in each}


def _result(stored: StateSnapshot) -> Result:
    """The result of a thread.

    Raises:
        IcrlError: it has not ended.
    """
    values = stored.values
    if values.get("stopped") is None:
        waits = "; it waits for a person's answer, which the graph takes by its own invoke" if stored.interrupts else ""
        raise IcrlError(f"the run has not ended{waits}")
    saved, made = values["settings"], None
    if "code" in saved:
        at = stored.created_at or ""
        made = Made(at=at, parts=saved["parts"], code=saved["code"], options=saved["options"])
    return Result(
        answer=values.get("answer"),
        reward=values.get("reward"),
        metric=values.get("metric"),
        regret=values.get("regret"),
        rewarded_by=values.get("rewarded_by"),
        stopped=values["stopped"],
        usage=values.get("usage", {}),
        episodes=values["episodes"],
        lost_rounds=SavedSettings.of(saved).lost_rounds,
        made=made,
    )


@contextmanager
def _hint(path: Any, awaits: bool = False) -> Iterator[None]:
    """Add to an error that nothing is lost; also to one of a callback that would end the process."""
    try:
        with contained(awaits):
            yield
    except Exception as error:
        if path is not None and not isinstance(path, BaseCheckpointSaver):
            where = "the database" if is_postgres(path) else path
            error.add_note(f"Progress is saved in {where}; the same call resumes it.")
        raise
