"""People in the loop: who gives a reward, looks over one, or steps in between two rounds.

    graph = create_icrl(model, human_reward(bounds=(0, 10))).compile(checkpointer=saver)
    graph.invoke({"task": "Write a haiku."}, config)                # stops at the first question
    graph.invoke(Command(resume={"reward": 7, "comment": "More frogs."}), config)

A question is LangGraph's `interrupt`: the run is kept and costs nothing while it waits, for a day as for a second; an
answer that can't be read is asked for again. To stop after each round, compile with `interrupt_after=["evaluate"]`;
then `revise` changes what there is, and `invoke(None, config)` goes on. `revise` also goes back to any round of a
thread: it begins a branch there, and what was played behind it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from numbers import Real
from types import EllipsisType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot, interrupt

from icrl_graph import ablations, settings
from icrl_graph.calls import Call
from icrl_graph.driver import one
from icrl_graph.nodes import Parts, check_form, random_of
from icrl_graph.rewards import Evaluator, Reward, as_reward, as_scorer, unscored
from icrl_graph.state import Episode, upsert
from icrl_graph.stops import why_stop

Bounds = tuple[float, float]
VETOED = "vetoed by a person"


def human_reward(bounds: Bounds | None = None, question: str = "How good is this response?") -> Evaluator:
    """An evaluator that asks a person.

    The interrupt's value has the `question`, `task`, `response`, the `steps` of an episode of many turns, the earlier
    attempts as `history` (response, reward, feedback) and the `bounds`. It is resumed with a number, or with
    `{"reward": a number, "comment": words}`, whose words reach the model as feedback; the reward None leaves the
    attempt unscored.

    Args:
        bounds: lowest and highest reward; default those of the graph.
        question: what to ask.
    """
    own = bounds

    def ask(task: Any, response: str, steps: Any, history: Any, bounds: Any) -> Reward:
        asked = {"question": question, "task": task, "response": response, "steps": steps, "history": history}
        within = own or bounds
        return _answered({**asked, "bounds": within and list(within)}, lambda said: _read(said, within))

    ask.rewarded_by = "human"  # type: ignore[attr-defined]
    return ask


def reviewed(evaluator: Evaluator, question: str = "Is this reward right?") -> Evaluator:
    """An evaluator whose rewards a person looks over.

    The interrupt's value is as that of `human_reward`, with the proposed `reward`, `metric` and `feedback`. It is
    resumed with True, which keeps the reward; with another one, as for `human_reward`; or with False, a veto, which
    leaves the attempt unscored. The metric stays what the evaluator said.

    Args:
        evaluator: gives the rewards. One that is paid is not paid again once the person has answered; a function is
            called again then, and so has to say the same again.
        question: what to ask.

    Raises:
        ValueError: it is no evaluator.
    """
    scorer = as_scorer(evaluator)

    def review(
        task: Any, response: str, answer: Any, steps: Any, task_data: Any, history: Any, bounds: Any
    ) -> Generator[Any, Any, Reward]:
        offered = {"task": task, "response": response, "answer": answer, "steps": steps, "task_data": task_data}
        given = scorer.arguments(**offered, history=history, bounds=bounds)
        if scorer.flow:
            found = as_reward((yield from scorer.part(**given)))
        else:
            found = yield from one(Call(scorer.part, given, as_reward, paid=scorer.calls > 0))
        asked = {"question": question, "task": task, "response": response, "steps": steps, "history": history}
        proposed = {"reward": found["value"], "metric": found.get("metric"), "feedback": found.get("feedback")}
        within = {"bounds": bounds and list(bounds)}
        return _answered({**asked, **proposed, **within}, lambda said: _decided(said, found, bounds))

    review.calls, review.asks, review.rewarded_by = scorer.calls, True, "human"  # type: ignore[attr-defined]
    if judges := getattr(scorer.part, "judges", ()):
        review.judges = judges  # type: ignore[attr-defined]
    return review


def _answered(question: Mapping[str, Any], read: Callable[[Any], Reward]) -> Reward:
    """Ask until the answer can be read."""
    error: str | None = None
    while True:
        said = interrupt({**question, "error": error})
        try:
            return read(said)
        except ValueError as wrong:
            error = str(wrong)


def _read(said: Any, bounds: Bounds | None) -> Reward:
    """The reward that a person has given.

    Raises:
        ValueError: it can't be read; says what would do.
    """
    form = 'answer with a number, or with {"reward": a number or None, "comment": words}'
    if isinstance(said, Mapping):
        if "reward" not in said or said.keys() - {"reward", "comment"}:
            raise ValueError(f"{form}; got {dict(said)!r:.200}")
        reward = _read(said["reward"], bounds)
        return {**reward, "feedback": str(said["comment"])} if said.get("comment") else reward
    if said is None:
        return unscored("the person gave no reward")
    if isinstance(said, str):
        try:
            said = float(said)
        except ValueError:
            raise ValueError(f"{form}; got {said!r:.200}") from None
    if isinstance(said, bool) or not isinstance(said, Real):
        raise ValueError(f"{form}; got {said!r:.200}")
    found = as_reward(said, bounds)
    if "error" in found:
        raise ValueError(found["error"])
    return found


def _decided(said: Any, found: Reward, bounds: Bounds | None) -> Reward:
    """What a person has made of a reward."""
    if said is True:
        return found
    return {**_apart(found), **(unscored(VETOED) if said is False else _read(said, bounds))}


def _apart(reward: Reward) -> Reward:
    """A reward apart from its value."""
    kept: Any = {name: told for name, told in reward.items() if name not in ("value", "error", "spread")}
    return kept  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------ between rounds


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
    """Change something at a round of a thread, and have the run go on from there.

        branch = revise(graph, config, 3, reward=0.2, schedule="explore")
        graph.invoke(None, branch)

    What was played behind that round stays in the thread's history, so that branches can be compared.

    Args:
        graph: a topology, compiled with a checkpointer.
        config: names the thread, or a checkpoint of the branch that is meant.
        round: from 0; default the latest that was judged.
        candidate: which of its attempts.
        reward: its value instead, or a whole `Reward`; None vetoes it, which leaves the attempt unscored.
        comment: words for the model, shown with the attempt as feedback.
        instruction: what the next round asks for, in words of your own.
        changed: settings that are others from here on.

    Returns:
        The config of the branch; `invoke(None, it)` goes on.

    Raises:
        ValueError: the thread has no such round or attempt, or a setting or the reward is wrong.
        ThreadMismatch: another version wrote the thread.
    """
    parts = _parts_of(graph)
    head = graph.get_state(config).config
    found = graph.get_state(_at(graph.get_state_history(_thread(config)), head, round))
    update = _revision(parts, found, candidate, reward, comment, instruction, changed)
    branch: RunnableConfig = graph.update_state(found.config, update, as_node="evaluate")
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
    history = [snapshot async for snapshot in graph.aget_state_history(_thread(config))]
    found = await graph.aget_state(_at(history, head, round))
    update = _revision(parts, found, candidate, reward, comment, instruction, changed)
    branch: RunnableConfig = await graph.aupdate_state(found.config, update, as_node="evaluate")
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
    named = {name: told for name, told in config["configurable"].items() if name != "checkpoint_id"}
    return {**config, "configurable": named}


def _at(history: Iterable[StateSnapshot], head: RunnableConfig, round: int | None) -> RunnableConfig:
    """The newest checkpoint of the head's branch at which a round was the latest, judged, and the run not over."""
    wanted: Any = head["configurable"].get("checkpoint_id")
    for snapshot in history:  # of all branches, the newest first; parents come after their children
        if snapshot.config["configurable"]["checkpoint_id"] != wanted:
            continue
        episodes = snapshot.values.get("episodes") or []
        if snapshot.next and episodes and "reward" in episodes[-1] and round in (None, episodes[-1]["round"]):
            return snapshot.config
        if snapshot.parent_config is None:
            break
        wanted = snapshot.parent_config["configurable"]["checkpoint_id"]
    which = "any round" if round is None else f"round {round}"
    raise ValueError(f"the thread holds no state in which {which} was just judged")


def _revision(
    parts: Parts,
    found: StateSnapshot,
    candidate: int,
    reward: float | Reward | EllipsisType | None,
    comment: str | None,
    instruction: str | None,
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """The update, as of `evaluate`."""
    frozen, episodes = found.values["settings"], found.values["episodes"]
    check_form(frozen)
    number = episodes[-1]["round"]
    now: dict[str, Any] = {**frozen, **settings.told(parts.schema, {parts.schema.namespace: changed})}
    parts.by(parts.policy, now)
    if reward is not ...:
        now["revised"] = True
    if instruction is not None:
        now["said"] = {"round": number + 1, "text": instruction}
    patches: list[Episode] = []
    if reward is not ... or comment is not None:
        patches = [_patch(parts, now, _attempt(episodes, number, candidate), reward, comment)]
    stopped = why_stop(now, upsert(episodes, [patches]), parts.calls_each)
    return {"episodes": patches, "settings": now, "stopped": stopped}


def _attempt(episodes: Sequence[Episode], number: int, candidate: int) -> Episode:
    for episode in episodes:
        if (episode["round"], episode["candidate"]) == (number, candidate):
            return episode
    raise ValueError(f"round {number} has no attempt {candidate}")


def _patch(parts: Parts, frozen: Mapping[str, Any], episode: Episode, reward: Any, comment: str | None) -> Episode:
    """The attempt with another reward, and what prompts may see of it."""
    told = episode["reward"] if reward is ... else _instead(episode["reward"], reward)
    if comment is not None:
        told = {**told, "feedback": comment}
    shown = ablations.show(told, parts.pick("show", frozen), random_of(frozen, episode, "show"))
    return Episode(round=episode["round"], candidate=episode["candidate"], reward=told, shown=shown)


def _instead(old: Reward, reward: float | Reward | None) -> Reward:
    """A whole reward in place of the old one; a number or a veto in place of its value."""
    found = unscored(VETOED) if reward is None else as_reward(reward)
    if reward is not None and "error" in found:
        raise ValueError(found["error"])
    return found if isinstance(reward, Mapping) else {**_apart(old), **found}
