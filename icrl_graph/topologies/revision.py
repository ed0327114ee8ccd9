"""Change something at a round of a thread, and resume from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from icrl_graph.evaluators.human import VETOED, without_value
from icrl_graph.execution.langgraph_internals import next_ids_after_config
from icrl_graph.prompts import ablations
from icrl_graph.prompts.plan import latest_round
from icrl_graph.state.episode import Episode, is_reflected_on, upsert
from icrl_graph.state.reward import Reward, as_reward, unscored
from icrl_graph.state.unicode import cleaned
from icrl_graph.topologies.nodes.parts import Parts, check_schema_version, random_of
from icrl_graph.topologies.nodes.prepare import check_settings
from icrl_graph.topologies.settings import SavedSettings, overrides
from icrl_graph.topologies.stopping import stop_reason


def revise(
    graph: Any,
    config: RunnableConfig,
    round: int | None = None,
    *,
    candidate: int = 0,
    reward: float | Reward | EllipsisType | None = ...,
    comment: str | None = None,
    instruction: str | None = None,
    **changed: Any,
) -> RunnableConfig:
    """Change something at a round of a thread, and have the run resumed from there.

        branch = revise(graph, config, 3, reward=0.2, schedule="explore")
        graph.invoke(None, branch)

    What was played after that round stays in the thread's history, so that branches can be compared.

    Args:
        graph: a topology, compiled with a checkpointer.
        config: names the thread, or a checkpoint of the branch that is meant.
        round: from 0; default the latest that was judged.
        candidate: which of its attempts.
        reward: its value instead, or a whole `Reward`; None vetoes it, which leaves the attempt unscored.
        comment: words for the model, shown with the attempt as feedback.
        instruction: what the next round asks for, as a text.
        changed: settings that differ from here on.

    Returns:
        The config of the branch; `invoke(None, it)` resumes it.

    Raises:
        ValueError: the thread has no such round or attempt, or a setting or the reward is wrong.
        ThreadMismatch: another version wrote the thread.
    """
    parts = _parts_of(graph)
    head = graph.get_state(config).config
    snapshot = graph.get_state(_at(graph.get_state_history(_thread(config)), head, round))
    update = _revision(parts, snapshot, candidate, reward, comment, instruction, changed)
    next_ids_after_config(graph.get_state(_thread(config)).config)
    branch: RunnableConfig = graph.update_state(snapshot.config, update, as_node="evaluate")
    return branch


async def arevise(
    graph: Any,
    config: RunnableConfig,
    round: int | None = None,
    *,
    candidate: int = 0,
    reward: float | Reward | EllipsisType | None = ...,
    comment: str | None = None,
    instruction: str | None = None,
    **changed: Any,
) -> RunnableConfig:
    """`revise` for async code; takes the same arguments."""
    parts = _parts_of(graph)
    head = (await graph.aget_state(config)).config
    history = [each async for each in graph.aget_state_history(_thread(config))]
    snapshot = await graph.aget_state(_at(history, head, round))
    update = _revision(parts, snapshot, candidate, reward, comment, instruction, changed)
    next_ids_after_config((await graph.aget_state(_thread(config))).config)
    branch: RunnableConfig = await graph.aupdate_state(snapshot.config, update, as_node="evaluate")
    return branch


def _parts_of(graph: Any) -> Parts:
    parts = getattr(getattr(graph, "builder", None), "parts", None)
    if not isinstance(parts, Parts):
        raise ValueError(
            f"what is revised is a topology of icrl_graph, compiled with a checkpointer; got {graph!r:.80}"
        )
    return parts


def _thread(config: RunnableConfig) -> RunnableConfig:
    """The thread of a config as a whole, not one of its checkpoints."""
    thread = {name: value for name, value in config["configurable"].items() if name != "checkpoint_id"}
    return {**config, "configurable": thread}


def _at(history: Iterable[StateSnapshot], head: RunnableConfig, round: int | None) -> RunnableConfig:
    """The newest checkpoint of the head's branch at which a round was the latest, judged, and the run not over.

    It is one before its reflections: they are written on the new reward, those on the other attempts are found.
    """
    wanted: Any = head["configurable"].get("checkpoint_id")
    for snapshot in history:  # of all branches, the newest first; parents come after their children
        if snapshot.config["configurable"]["checkpoint_id"] != wanted:
            continue
        episodes = snapshot.values.get("episodes") or []
        is_judged = snapshot.next and episodes and "reward" in episodes[-1]
        is_wanted = is_judged and round in (None, episodes[-1]["round"])
        if is_wanted and not any(map(is_reflected_on, latest_round(episodes))):
            return snapshot.config
        if snapshot.parent_config is None:
            break
        wanted = snapshot.parent_config["configurable"]["checkpoint_id"]
    which = "any round" if round is None else f"round {round}"
    raise ValueError(f"the thread holds no state in which {which} was just judged")


def _revision(
    parts: Parts,
    snapshot: StateSnapshot,
    candidate: int,
    reward: float | Reward | EllipsisType | None,
    comment: str | None,
    instruction: str | None,
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """The update, as of `evaluate`."""
    saved, episodes = snapshot.values["settings"], snapshot.values["episodes"]
    check_schema_version(saved)
    number = episodes[-1]["round"]
    saved = {**saved, **overrides(parts.schema, {parts.schema.namespace: changed})}
    if reward is not ...:
        saved["revised"] = True
    if instruction is not None:
        saved["said"] = {"round": number + 1, "text": cleaned(instruction)}
    check_settings(parts, saved)
    settings = SavedSettings.of(saved)
    patches: list[Episode] = []
    if reward is not ... or comment is not None:
        patches = [_patch(parts, settings, _attempt(episodes, number, candidate), reward, comment)]
    ahead, is_enough = parts.calls_ahead(settings, episodes), parts.is_enough(settings)
    stopped = stop_reason(settings, upsert(episodes, [patches]), ahead, is_enough)
    return {"episodes": patches, "settings": saved, "stopped": stopped}


def _attempt(episodes: Sequence[Episode], number: int, candidate: int) -> Episode:
    for episode in episodes:
        if (episode["round"], episode["candidate"]) == (number, candidate):
            return episode
    raise ValueError(f"round {number} has no attempt {candidate}")


def _patch(parts: Parts, settings: SavedSettings, episode: Episode, reward: Any, comment: str | None) -> Episode:
    """The attempt with another reward, and what prompts may see of it."""
    revised = episode["reward"] if reward is ... else _instead(episode["reward"], reward)
    if comment is not None:
        revised = {**revised, "feedback": cleaned(comment)}
    shown = ablations.show(revised, parts.pick("show", settings), random_of(settings, episode, "show"))
    return Episode(round=episode["round"], candidate=episode["candidate"], reward=revised, shown=shown)


def _instead(old: Reward, reward: float | Reward | None) -> Reward:
    """A whole reward in place of the old one; a number or a veto in place of its value."""
    new = unscored(VETOED) if reward is None else as_reward(reward)
    if reward is not None and "error" in new:
        raise ValueError(new["error"])
    return new if isinstance(reward, Mapping) else {**without_value(old), **new}
