"""evaluate: the rewards of a round, what prompts may see of them, and whether the run is over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.runnables import Runnable
from langgraph.errors import GraphBubbleUp

from icrl_graph.errors import BudgetExceeded, IcrlError
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow, Meter, single
from icrl_graph.execution.retry import is_of_a_provider
from icrl_graph.models.responses import failure
from icrl_graph.prompts import ablations
from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Episode, LoopState, Usage, add_usage, answer_of, spent, upsert
from icrl_graph.state.events import BudgetEvent, episode_event
from icrl_graph.state.reward import UNSCORED, Reward, as_reward, data_in, unscored
from icrl_graph.topologies.nodes.parts import Parts, costs, identity, node, random_of
from icrl_graph.topologies.nodes.telling import teller
from icrl_graph.topologies.settings import SavedSettings
from icrl_graph.topologies.stopping import stop_reason


def evaluate_node(parts: Parts) -> Runnable[Any, Any]:
    """Judge what the round has answered, decide what later prompts may see of it, and whether the run is over."""

    def evaluate(state: LoopState, settings: SavedSettings, _: Budget) -> Flow:
        episodes = state["episodes"]
        todo = [episode for episode in episodes if "reward" not in episode]
        if unanswered := sum("response" not in each and "error" not in each for each in todo):
            raise ValueError(
                f"{unanswered} of the {len(todo)} attempts that build_context opened were sent to no node that answers "
                "them: where a round has several, add_fan_out sends each on"
            )
        flows = [score(parts, settings, state, episode) for episode in todo]
        judged = yield from all_of(flows, parts.evaluator, parts.metric)
        ablation = parts.pick("show", settings)
        patches: list[Episode] = []
        for episode, (found, usage) in zip(todo, judged, strict=True):
            patch: Episode = {**identity(episode), **found}
            patch["shown"] = ablations.show(patch["reward"], ablation, random_of(settings, episode, "show"))
            patch["costs"] = costs(episode, "evaluate", usage)
            patches.append(patch)
        episodes = upsert(episodes, [patches])
        emit(parts, settings, {**state, "episodes": episodes}, len(patches))
        over = stop_reason(settings, episodes, parts.calls_ahead(settings, episodes), parts.is_enough(settings))
        return {"episodes": patches, "stopped": state.get("stopped") or over}

    return node("evaluate", evaluate, parts.evaluator.part, parts)


def score(parts: Parts, settings: SavedSettings, state: LoopState, episode: Episode) -> Flow:
    """The reward of an attempt, with its metric; returns the fields of its episode that say so, and what that cost."""
    if "response" not in episode:
        return Episode(reward=unscored(episode.get("error", "no response"))), Usage()
    if "answer" in episode and episode["answer"] is None:
        return Episode(reward=unscored(episode["error"])), Usage()
    reward, passes, usage = yield from _confirmed(parts, settings, state, episode)
    if parts.metric is not None:
        measured, more = yield from ask(parts.metric, state, episode, None, parts.timeout)
        reward, usage = {**reward, "metric": measured["value"]}, add_usage(usage, more)
        if "error" in measured:
            reward.setdefault("error", f"metric: {measured['error']}")
    found = Episode(reward=reward)
    if len(passes) > 1:
        found["passes"] = passes
    return found, usage


def _confirmed(parts: Parts, settings: SavedSettings, state: LoopState, episode: Episode) -> Flow:
    """The reward; of an attempt that reaches the target, the lowest of as many passes as must confirm it.

    A pass without a score leaves it unscored: neither a success nor a failure is known.

    Returns:
        The reward, what each pass gave, and what all of them cost.
    """
    reward, usage = yield from ask(parts.evaluator, state, episode, parts.bounds, parts.timeout)
    passes = [reward["value"]]
    wanted = settings.confirmations or 1
    for number in range(2, wanted + 1):
        if settings.target is None or reward["value"] is None or reward["value"] < settings.target:
            break
        again, more = yield from ask(parts.evaluator, state, episode, parts.bounds, parts.timeout)
        usage = add_usage(usage, more)
        passes.append(again["value"])
        if again["value"] is None:
            reward = unscored(f"pass {number} of {wanted}: {again.get('error', 'no score')}")
        elif again["value"] < reward["value"]:
            reward = again
    return reward, passes, usage


def ask(
    evaluator: BoundEvaluator,
    state: LoopState,
    episode: Episode,
    bounds: tuple[float, float] | None,
    timeout: float | None,
) -> Flow:
    """One evaluator on one episode; whatever goes wrong leaves it unscored, or gives what `on_error` says.

    Returns:
        The reward and what it cost.
    """
    arguments = evaluator.arguments(  # copies: an evaluator that writes into them must not change the run
        **deepcopy(state["inputs"]),
        response=episode["response"],
        answer=deepcopy(answer_of(episode)),
        steps=_steps(episode),
        history=_history(state, episode) if "history" in evaluator.names else None,
        siblings=_siblings(state, episode) if "siblings" in evaluator.names else None,
        bounds=bounds,
    )
    if evaluator.flow:
        flow = evaluator.part(**arguments)
    else:
        paid = evaluator.calls > 0
        flow = single(Call(evaluator.part, arguments, lambda value: as_reward(value, bounds), paid=paid))
    meter = Meter()
    try:
        reward = yield from meter.read(flow, timeout)
    except BudgetExceeded as over:
        return unscored(str(over)), meter.usage
    except (IcrlError, GraphBubbleUp):  # a flow may ask a person
        raise
    except Exception as error:
        message = _where_to_run(error) + failure(error, episode["round"], episode["candidate"])
        if not _raised_by_itself(evaluator, error, meter.usage):
            return unscored(message), meter.usage
        on_error = SavedSettings.of(state["settings"]).on_error if evaluator.on_error is None else evaluator.on_error
        if on_error is None:
            return unscored(message), meter.usage
        value = None if on_error == UNSCORED else on_error
        raised = Reward(value=value, feedback=_as_feedback(error, state["inputs"], episode["response"]), error=message)
        return as_reward(raised, bounds), meter.usage
    return as_reward(reward, bounds), meter.usage


_WANTS_ANOTHER_PLACE = re.compile(
    r"main thread|signal\.alarm|no current event loop|a running event loop|loop is already running"
)
"""What Python and others say of code that wants the main thread, or one without an event loop that runs."""


def _where_to_run(error: Exception) -> str:
    """How an evaluator can run that may not run here, ahead of its error; "" if it has raised for another reason."""
    return "give isolated(...), a main thread of its own: " if _WANTS_ANOTHER_PLACE.search(str(error)) else ""


def _raised_by_itself(evaluator: BoundEvaluator, error: Exception, usage: Usage) -> bool:
    """Whether the evaluator has raised because of the answer: no judge, no provider and no worker has failed.

    Of a paid one that is certain only while no model has answered.
    """
    if evaluator.flow and usage.get("calls"):
        return False
    if evaluator.calls == 0 and isinstance(error, TimeoutError):  # a function that takes too long on this answer
        return True
    parser = evaluator.calls > 0 and isinstance(error, OutputParserException)
    return not (usage.get("output") or parser or is_of_a_provider(error))


FEEDBACK_CHARACTERS = 500
"""Of an exception's message that the model sees, at most."""


def _as_feedback(error: Exception, inputs: Mapping[str, Any], response: str) -> str:
    """What the model sees of an exception: its type and its message, or its type alone where that shows task data."""
    name, message = type(error).__name__, str(error)
    known = f"{text_of(inputs['task'])}\n{response}"
    if not message or data_in(message, inputs["task_data"], known) is not None:
        return name
    return (
        f"{name}: {message}" if len(message) <= FEEDBACK_CHARACTERS else f"{name}: {message[:FEEDBACK_CHARACTERS]}..."
    )


def _steps(episode: Episode) -> list[dict[str, Any]] | None:
    """The steps of an attempt, as an evaluator may see them: without the model's reasoning."""
    if (steps := episode.get("steps")) is None:
        return None
    return [{name: deepcopy(told) for name, told in step.items() if name != "reasoning"} for step in steps]


def _history(state: LoopState, episode: Episode) -> list[dict[str, Any]]:
    """The attempts of the rounds before, as an evaluator may see them."""
    before = ((e, e.get("reward", {})) for e in state["episodes"] if e["round"] < episode["round"])
    return [{"response": e.get("response"), "reward": r.get("value"), "feedback": r.get("feedback")} for e, r in before]


def _siblings(state: LoopState, episode: Episode) -> list[dict[str, Any]]:
    """The other attempts of its round, as an evaluator may see them."""
    of_round = (each for each in state["episodes"] if each["round"] == episode["round"])
    return [{"response": each.get("response")} for each in of_round if each["candidate"] != episode["candidate"]]


def all_of(flows: list[Flow], *evaluators: BoundEvaluator | None) -> Flow:
    """Side by side where all evaluators are paid; else one by one.

    Functions may ask a person by `interrupt`, and LangGraph hands out the answers in the order of the questions.
    """
    if all(each.calls and not each.asks for each in evaluators if each is not None):
        return (yield flows)
    judged, waited = [], 0.0
    for flow in flows:
        [(reward, usage)] = yield [flow]
        waited += usage.get("seconds", 0.0)
        judged.append((reward, {**usage, "seconds": waited}))  # each has waited for those before
    return judged


def emit(parts: Parts, settings: SavedSettings, state: LoopState, new: int) -> None:
    """Tell who listens of the newest attempts, which were judged, and of what is spent of the caps."""
    tell, episodes, caps = teller(parts, state), state["episodes"], settings.caps
    for at in range(len(episodes) - new, len(episodes)):
        tell(episode_event(episodes, at))
    if caps:
        tell(BudgetEvent(type="budget", spent=spent(episodes), caps=caps))
