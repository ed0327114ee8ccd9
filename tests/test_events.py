"""What a run tells while it runs, and who hears it: whose events are, functions that watch, errors that end a run."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from icrl_graph import aimprove, create_icrl, improve, llm_judge
from icrl_graph.environments import episode_return, rollout
from icrl_graph.environments.games import Games, game, task
from icrl_graph.environments.games.players import as_model
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import TOPOLOGIES, build
from icrl_graph.topologies.programs import foreign

TASK = {"task": "Write a pangram."}
SOURCE = {"run", "thread", "topology", "task"}


def score(response: str) -> float:
    return len(set(response)) / 26


def play(graph: Graph, is_async: bool, inputs: Any = TASK, **kwargs: Any) -> Any:
    compiled = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    if is_async:
        return asyncio.run(compiled.ainvoke(inputs, config, **kwargs))
    return compiled.invoke(inputs, config, **kwargs)


def create_once(host: Any) -> str:
    """A program that answers once."""
    host.score("abc")
    return "abc"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("topology", [*TOPOLOGIES, "foreign"])
def test_each_event_says_whose_it_is(topology: str, is_async: bool) -> None:
    heard: list[Any] = []
    name, create = ("once", foreign("json")(create_once)) if topology == "foreign" else (topology, topology)
    play(build(create, lambda: "abc", score, watch=heard.append, max_calls=30), is_async)
    assert {event["type"] for event in heard} >= {"episode", "budget", "done"}
    assert len({event["run"] for event in heard}) == 1
    assert {(event["thread"], event["topology"], event["task"]) for event in heard} == {("t", name, "Write a pangram.")}


def test_the_steps_of_an_episode_say_whose_they_are_too() -> None:
    heard: list[Any] = []
    player = as_model(game("mastermind").references["random"])
    graph = create_icrl(rollout(player, Games, max_steps=2), episode_return, rounds=1, watch=heard.append)
    graph.compile().invoke(task("mastermind", seed=7, split="test"))
    steps = [event for event in heard if event["type"] == "step"]
    assert steps
    assert all(event.keys() >= SOURCE and event["thread"] is None for event in steps)


def test_of_a_long_task_an_event_says_the_beginning() -> None:
    heard: list[Any] = []
    improve("x" * 1000, score, model=lambda: "abc", rounds=1, watch=heard.append)
    assert {event["task"] for event in heard} == {"x" * 200}


def test_runs_side_by_side_are_told_apart_by_one_function() -> None:
    heard: list[Any] = []

    async def both() -> None:
        await asyncio.gather(
            *(aimprove(each, score, model=lambda: "abc", rounds=2, watch=heard.append) for each in ("one", "two"))
        )

    asyncio.run(both())
    runs = {(event["run"], event["task"]) for event in heard}
    assert len(runs) == len({run for run, _ in runs}) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_on_episode_and_the_stream_say_the_same_as_who_watches(is_async: bool) -> None:
    watched: list[Any] = []
    told: list[Any] = []
    options: Any = {"model": lambda: "abc", "rounds": 3, "watch": watched.append, "on_episode": told.append}
    if is_async:
        asyncio.run(aimprove("t", score, **options))
    else:
        improve("t", score, **options)
    assert told == [event for event in watched if event["type"] == "episode"]
    graph = create_icrl(lambda: "abc", score, rounds=3, watch=(watched := []).append)
    assert list(graph.compile().stream(TASK, stream_mode="custom")) == watched


class State(TypedDict, total=False):
    task: str
    answer: str


@pytest.mark.parametrize("is_async", [False, True])
def test_a_graph_within_a_larger_one_is_heard_without_a_stream(is_async: bool) -> None:
    heard: list[Any] = []
    parent = StateGraph(State)
    parent.add_node("solve", create_icrl(lambda: "abc", score, rounds=2, watch=[heard.append, heard.append]).compile())
    parent.add_edge(START, "solve")
    parent.add_edge("solve", END)
    compiled = parent.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "the parent's"}}
    asyncio.run(compiled.ainvoke({"task": "t"}, config)) if is_async else compiled.invoke({"task": "t"}, config)
    assert [event["type"] for event in heard[::2]] == ["round", "response", "episode"] * 2 + ["done"]
    assert heard[::2] == heard[1::2]
    assert {event["thread"] for event in heard} == {"the parent's"}


@pytest.mark.parametrize("error", [ConnectionError("no tracker"), SystemExit(3)])
def test_what_a_function_that_watches_raises_is_logged_and_ends_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Any) -> None:
        event.clear()  # and what it does to an event changes no other's
        raise error

    heard: list[Any] = []
    with caplog.at_level(logging.WARNING):
        result = improve("t", score, model=lambda: "abc", rounds=1, watch=[fail, heard.append])
    assert (result.stopped, [event["type"] for event in heard]) == ("rounds", ["round", "response", "episode", "done"])
    assert type(error).__name__ in caplog.text


async def acoroutine(event: Any) -> None: ...


@pytest.mark.parametrize("watch", [acoroutine, 3, [3], [acoroutine], "abc"])
def test_who_watches_is_a_plain_function(watch: Any) -> None:
    with pytest.raises(ValueError, match="watch is a plain function of an event, or several, got"):
        create_icrl(lambda: "abc", score, watch=watch)


# ------------------------------------------------------------------------------------------------- what ends a run


class LimitReached(Exception):
    """Another library's."""


def limited() -> str:
    if len(limited_calls) >= 2:
        raise LimitReached("of 2 calls")
    limited_calls.append(None)
    return "abc"


limited_calls: list[None] = []


def limited_score(response: str) -> float:
    return float(bool(limited()))


def judge(model: Any) -> Any:
    return llm_judge(model, "Good?")


FAILING: dict[str, Callable[[], dict[str, Any]]] = {
    "model": lambda: {"model": limited, "evaluator": score},
    "evaluator": lambda: {"model": lambda: "abc", "evaluator": limited_score},
    "metric": lambda: {"model": lambda: "abc", "evaluator": score, "metric": limited_score},
    "judge": lambda: {"model": lambda: "abc", "evaluator": judge(ScriptedModel(["3", "3", LimitReached("of 2")]))},
}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("part", FAILING)
def test_an_error_named_by_end_on_ends_the_run_as_it_is(part: str, is_async: bool) -> None:
    limited_calls.clear()
    graph = create_icrl(**FAILING[part](), rounds=5, end_on=[LimitReached])
    with pytest.raises(LimitReached):
        play(graph, is_async)


@pytest.mark.parametrize("topology", [name for name in TOPOLOGIES if name != "best_of_n"])
def test_a_run_that_it_ended_keeps_its_attempts_and_can_be_resumed(topology: str, tmp_path: Any) -> None:
    answers: Any = iter(["a", "ab", "abc", LimitReached("now")] + ["abcd"] * 20)

    def model() -> str:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return str(answer)

    call: Any = {"model": model, "topology": topology, "rounds": 4, "end_on": [LimitReached], "path": tmp_path / "x"}
    with pytest.raises(LimitReached) as raised:
        improve("t", score, **call)
    assert "the same call resumes it" in str(raised.value.__notes__)
    result = improve("t", score, **call)
    assert (len(result.episodes), result.answer, result.episodes[0]["response"]) == (4, "abcd", "a")


def test_other_errors_stay_data() -> None:
    def fails() -> str:
        raise KeyError("x")

    assert improve("t", score, model=fails, end_on=[LimitReached]).stopped == "failures"


@pytest.mark.parametrize("wrong", [LimitReached, "LimitReached", [KeyboardInterrupt], [3]])
def test_end_on_takes_classes_of_errors(wrong: Any) -> None:
    with pytest.raises(ValueError, match="end_on is classes of errors, each an Exception"):
        create_icrl(lambda: "abc", score, end_on=wrong)


# ------------------------------------------------------------------------------------------------- nodes by name


@pytest.mark.parametrize("is_async", [False, True])
def test_nodes_can_be_played_one_by_one_within_another_graph(is_async: bool) -> None:
    graph = create_icrl(lambda: "abc", score)
    found: dict[str, Any] = {}

    def opened(state: State) -> Any:
        loop: Any = {**state, **graph.node("prepare").invoke(state)}
        loop |= graph.node("build_context").invoke(loop)
        found["prompt"] = graph.prompt(loop)
        return loop

    def play_round(state: State) -> State:
        loop = opened(state)
        loop["episodes"][0]["response"] = "abcdef"
        found["judged"] = graph.node("evaluate").invoke(loop)
        return {}

    async def aplay_round(state: State) -> State:
        loop = opened(state)
        loop["episodes"][0]["response"] = "abcdef"
        found["judged"] = await graph.node("evaluate").ainvoke(loop)
        return {}

    parent = StateGraph(State)
    parent.add_node("round", aplay_round if is_async else play_round)
    parent.add_edge(START, "round")
    compiled = parent.compile()
    inputs = State(task="Write a pangram.")
    asyncio.run(compiled.ainvoke(inputs)) if is_async else compiled.invoke(inputs)
    assert found["prompt"][0]["content"].startswith("Write a pangram.")
    assert found["judged"]["episodes"][0]["reward"]["value"] == 6 / 26


def test_a_node_that_is_not_there_is_told_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"unknown node 'judge'; the graph has 'prepare', 'build_context', .*'select'"):
        create_icrl(lambda: "abc", score).node("judge")


def test_the_prompt_of_any_attempt_is_made_again_from_what_is_saved() -> None:
    model = ScriptedModel(["a", "ab", "abc"])
    graph = create_icrl(model, score, rounds=3)
    compiled = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    compiled.invoke(TASK, config)
    state: Any = compiled.get_state(config).values
    assert [graph.prompt(state, at) for at in range(3)] == model.prompts
    assert graph.prompt(state) == model.prompts[-1]


# ------------------------------------------------------------------------------------------------- whose limits hold


@pytest.mark.parametrize(
    ("own", "context", "wished", "wanted"),
    [
        ({"max_calls": 5}, None, {"max_calls": 9}, {"max_calls": 5}),
        ({"max_calls": 5}, None, {"max_calls": 3}, {"max_calls": 3}),
        ({}, None, {"max_calls": 3, "max_usd": None}, {"max_calls": 3, "max_usd": None}),
        ({"rounds": 4}, None, {"rounds": 1000, "width": 8, "schedule": "exploit"}, {"rounds": 4, "width": 1}),
        ({"max_calls": 5}, {"icrl": {"max_calls": 7}}, {"max_calls": 9}, {"max_calls": 7}),
        ({"max_calls": 5}, {"icrl": {"max_calls": 7, "rounds": 9}}, {}, {"max_calls": 7, "rounds": 9}),
    ],
)
def test_of_two_limits_the_lower_one_holds(own: Any, context: Any, wished: Any, wanted: Any) -> None:
    settings = create_icrl(lambda: "abc", score, **own).settings_within(wished, context).model_dump()
    assert {name: settings[name] for name in wanted} == wanted


@pytest.mark.parametrize("wished", [{"rounds": 0}, {"max_calls": "many"}, {"turns": 3}])
def test_a_wrong_wish_is_told_in_our_words(wished: Any) -> None:
    (name,) = wished
    with pytest.raises(ValueError, match=name) as raised:
        create_icrl(lambda: "abc", score).settings_within(wished)
    assert "validation error" not in str(raised.value)
