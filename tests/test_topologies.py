"""Whole graphs: what a run does, whatever it is made of."""

import asyncio
import json
import re
import threading
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from icrl_graph.api import improve
from icrl_graph.errors import ModelError, ThreadMismatch
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.execution.rate_limit import RateLimit
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.prompts.layouts import parse
from icrl_graph.state.episode import value_of
from icrl_graph.state.events import is_episode
from icrl_graph.state.reward import Reward
from icrl_graph.state.selection import metric_of
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES, create_best_of_n, create_icrl, create_reflexion
from icrl_graph.topologies.nodes import prompt
from tests.helpers import GAME, climber, digest, nearness, play, thread, without_cost


def test_an_evaluator_that_raises_stop_iteration_is_unscored_with_its_words() -> None:
    def score() -> float:
        raise StopIteration("nothing left")

    _, episodes = play(create_icrl(climber, score, rounds=1))
    assert "nothing left" in episodes[0]["reward"]["error"]


def test_icrl_finds_the_number_by_its_rewards_and_says_what_it_took() -> None:
    output, episodes = play(create_icrl(climber, nearness, target=1.0))
    assert output["answer"] == "42"
    assert output["reward"] == 1.0
    assert output["stopped"] == "success"
    assert output["rounds_done"] == len(episodes) == 2
    assert output["usage"]["calls"] == 2


def test_async_gives_the_same_as_sync() -> None:
    graph = create_icrl(digest, nearness, rounds=5).compile(checkpointer=InMemorySaver())
    asyncio.run(graph.ainvoke(GAME, thread("async")))
    graph.invoke(GAME, thread("sync"))
    both = [graph.get_state(thread(name)).values["episodes"] for name in ("async", "sync")]
    assert without_cost(both[0]) == without_cost(both[1])


def test_every_prompt_shows_all_earlier_attempts_with_their_rewards() -> None:
    model = ScriptedModel(["10", "20", "30"])
    play(create_icrl(model, nearness, rounds=3))
    seen = [[(a.response, a.value) for a in parse(prompt).attempts] for prompt in model.prompts]
    assert seen == [[], [("10", 0.68)], [("10", 0.68), ("20", 0.78)]]


def test_prompt_k_is_a_prefix_of_prompt_k_plus_1_over_200_rounds() -> None:
    model = ScriptedModel(digest)
    play(create_icrl(model, nearness, rounds=200))
    flat = ["".join(f"<{m['role']}>{m['content']}" for m in prompt) for prompt in model.prompts]
    assert len(flat) == 200
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(flat))


def test_best_of_n_shows_no_history_and_selects_by_reward() -> None:
    model = ScriptedModel(lambda rng: str(rng.randrange(100)))
    output, episodes = play(create_best_of_n(model, nearness, n=6, seed=1))
    assert model.prompts == [[{"role": "user", "content": "Find the number."}]] * 6
    assert output["reward"] == max(value_of(episode) or 0.0 for episode in episodes)
    assert [episode["candidate"] for episode in episodes] == list(range(6))
    assert len({episode["response"] for episode in episodes}) > 1


def test_best_of_n_asks_side_by_side() -> None:
    together = threading.Barrier(5, timeout=30)

    def meet() -> str:
        together.wait()
        return "1"

    output, _ = play(create_best_of_n(meet, nearness, n=5))
    assert output["usage"]["calls"] == 5


@pytest.mark.parametrize("how", ["sync", "async"])
def test_one_failing_candidate_does_not_lose_its_siblings(how: str) -> None:
    with OpenAIServer(lambda: "40", faults={2: "empty"}) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        graph = create_best_of_n(model, nearness, n=4).compile(checkpointer=InMemorySaver())
        output = graph.invoke(GAME, thread()) if how == "sync" else asyncio.run(graph.ainvoke(GAME, thread()))
    assert output["reward"] == 0.98
    episodes = graph.get_state(thread()).values["episodes"]
    assert sorted(episode.get("response", "failed") for episode in episodes) == ["40", "40", "40", "failed"]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_all_nodes_and_edges_are_drawn(name: str) -> None:
    edges = {(e.source, e.target) for e in TOPOLOGIES[name](climber, nearness).compile().get_graph().edges}
    reflecting = {("evaluate", "reflect"), ("reflect", "build_context"), ("reflect", "select"), ("prepare", "reflect")}
    loop = {"icrl": {("evaluate", "build_context")}, "best_of_n": set()}.get(name, reflecting)
    assert edges == loop | {
        ("__start__", "prepare"),
        ("prepare", "build_context"),
        ("build_context", "generate"),
        ("generate", "evaluate"),
        ("evaluate", "select"),
        ("select", "__end__"),
    }


# ---------------------------------------------------------------------------------------------------------- evaluators


@tool
def near(response: str, task_data: dict[str, Any]) -> float:
    """How near a guess is."""
    return nearness(response, task_data)


async def near_async(response: str, task_data: dict[str, Any]) -> float:
    return nearness(response, task_data)


class NearObject:
    async def __call__(self, response: str, task_data: dict[str, Any]) -> float:
        return nearness(response, task_data)


@tool
async def near_async_tool(response: str, task_data: dict[str, Any]) -> float:
    """How near a guess is."""
    return nearness(response, task_data)


async def _from(given: Any) -> float:
    return nearness(given["response"], given["task_data"])


near_async_chain: Any = RunnableLambda(_from).with_retry() | RunnableLambda(lambda reward: reward)
near_runnable_later: Any = RunnableLambda(lambda given: _from(given))
near_later: Any = lambda response, task_data: near_async(response, task_data)  # noqa: E731
near_runnable: Any = RunnableLambda(lambda given: nearness(given["response"], given["task_data"]))


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "evaluator",
    [
        *(nearness, near, near_async, near_runnable, near_async_tool, NearObject()),
        *(near_later, near_async_chain, near_runnable_later),
    ],
)
def test_an_evaluator_is_a_function_a_coroutine_a_tool_or_a_runnable(evaluator: Any, how: str) -> None:
    graph = create_icrl(climber, evaluator, rounds=2).compile()
    output = graph.invoke(GAME) if how == "sync" else asyncio.run(graph.ainvoke(GAME))
    assert output["reward"] == 1.0


def test_the_metric_is_reported_and_steers_nothing() -> None:
    model = ScriptedModel(["10", "42", "20"])
    metric = {"10": 1.0, "42": 0.0, "20": 0.5}
    output, _ = play(
        create_icrl(model, nearness, metric=lambda response: metric[response], rounds=3, target=5.0, patience=9)
    )
    assert (output["answer"], output["reward"], output["metric"]) == ("42", 1.0, 0.0)
    assert "0.5" not in repr(model.prompts)


def test_task_data_never_reaches_a_prompt() -> None:
    model = ScriptedModel(["10", "20"])
    play(create_icrl(model, lambda: 0.5, rounds=2), {"task": "Find it.", "task_data": {"secret": "MARKER"}})
    assert "MARKER" not in repr(model.prompts)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "broken", [lambda: 1 / 0, lambda: next(iter(())), lambda: float("nan"), lambda: "good", lambda: None]
)
def test_an_attempt_that_cannot_be_judged_is_unscored_and_the_run_goes_on(broken: Any, how: str) -> None:
    model = ScriptedModel(["10", "20"])
    graph = create_icrl(model, broken, rounds=2).compile(checkpointer=InMemorySaver())
    output = graph.invoke(GAME, thread()) if how == "sync" else asyncio.run(graph.ainvoke(GAME, thread()))
    episodes = graph.get_state(thread()).values["episodes"]
    assert [value_of(episode) for episode in episodes] == [None, None]
    assert output["reward"] is None
    assert output["answer"] == "20"
    assert "Reward: unscored" in repr(model.prompts[1])


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_task_that_an_evaluator_cancels_itself_does_not_end_the_run(how: str) -> None:
    async def score() -> float:
        task = asyncio.create_task(asyncio.sleep(9))
        task.cancel()
        await task
        return 1.0

    graph = create_icrl(climber, score, rounds=2).compile()
    output = graph.invoke(GAME) if how == "sync" else asyncio.run(graph.ainvoke(GAME))
    assert (output["rounds_done"], output["reward"]) == (2, None)


def test_an_answer_that_could_not_be_stored_is_unscored() -> None:
    _, episodes = play(create_icrl(lambda: "9" * 30, lambda answer: 1.0, rounds=1, extract=int))
    assert "64 bits" in episodes[0]["error"]


def test_a_loop_inside_a_loops_evaluator_has_settings_of_its_own() -> None:
    inner: Any = create_icrl(climber, nearness, rounds=3).compile()
    judge: Any = RunnableLambda(lambda given: inner.invoke(GAME)["rounds_done"])
    output, _ = play(create_icrl(climber, judge, rounds=9), context={"rounds": 2})
    assert (output["rounds_done"], output["reward"]) == (2, 3)


def test_why_an_attempt_is_unscored_is_kept_but_not_shown_to_the_model() -> None:
    def leak() -> float:
        raise ValueError("expected 42")

    model = ScriptedModel(["10", "20"])
    _, episodes = play(create_icrl(model, leak, rounds=2))
    assert "expected 42" in episodes[0]["reward"]["error"]
    assert "expected 42" not in repr(model.prompts)


def test_an_evaluation_that_hangs_is_unscored() -> None:
    released = threading.Event()
    _, episodes = play(create_icrl(climber, lambda: released.wait(60), rounds=1, timeout=0.05))
    released.set()
    assert "0.05 s" in episodes[0]["reward"]["error"]


def test_a_reward_outside_the_declared_range_is_unscored() -> None:
    _, episodes = play(create_icrl(climber, lambda: 11, rounds=1, bounds=(0, 10)))
    assert "outside" in episodes[0]["reward"]["error"]


def test_feedback_and_step_rewards_reach_the_prompt_in_both_layouts() -> None:
    for layout in ("turns", "transcript"):
        model = ScriptedModel(["a", "b"])
        score = Reward(value=0.5, feedback="warmer", steps=[1.0, 0.0])
        play(create_icrl(model, lambda score=score: score, rounds=2, layout=layout))
        assert parse(model.prompts[1]).attempts[0][1:4] == (0.5, (1.0, 0.0), "warmer")


def test_a_metric_that_fails_leaves_the_reward_and_says_why() -> None:
    _, episodes = play(create_icrl(climber, nearness, metric=lambda: 1 / 0, rounds=1))
    assert value_of(episodes[0]) == pytest.approx(0.68)
    assert episodes[0]["reward"]["metric"] is None
    assert "metric: ZeroDivisionError" in episodes[0]["reward"]["error"]


def test_an_evaluator_that_writes_into_the_task_data_does_not_change_the_run() -> None:
    def greedy(task_data: dict[str, Any]) -> float:
        task_data["secret"] += 1
        return float(task_data["secret"])

    _, episodes = play(create_icrl(climber, greedy, rounds=3))
    assert [value_of(episode) for episode in episodes] == [43, 43, 43]


ASK: Any = lambda response: interrupt(response)  # noqa: E731


@pytest.mark.parametrize(
    "judges",
    [{"evaluator": ASK}, {"evaluator": RunnableLambda(lambda given: 0.5), "metric": ASK}],
    ids=["reward", "metric"],
)
def test_a_person_can_judge_the_candidates_of_best_of_n_one_after_another(judges: Any) -> None:
    graph = create_best_of_n(ScriptedModel(["a", "b", "c"]), n=3, **judges)
    compiled: Any = graph.compile(checkpointer=InMemorySaver())
    answers = {"a": 0.1, "b": 0.2, "c": 0.3}
    output = compiled.invoke(GAME, thread())
    while "__interrupt__" in output:
        asked = output["__interrupt__"][0].value
        output = compiled.invoke(Command(resume=answers[asked]), thread())
    episodes = compiled.get_state(thread()).values["episodes"]
    assert {episode["response"]: metric_of(episode) for episode in episodes} == answers


@pytest.mark.parametrize(
    "wrong", [lambda reward, rng: None, lambda reward, rng: 0.5, lambda reward, rng: {"metric": 1}]
)
def test_an_ablation_that_returns_no_reward_is_told_so(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an ablation returns a Reward"):
        play(create_icrl(climber, nearness, show=wrong))


def test_a_layout_that_fails_is_an_error_and_not_a_failed_attempt() -> None:
    with pytest.raises(ZeroDivisionError):
        play(create_icrl(climber, nearness, layout=lambda *parts: 1 / 0))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------- models and prompts


def test_a_failed_generation_is_data_and_stands_in_the_history() -> None:
    model = ScriptedModel(["10", RuntimeError("down"), "42"])
    output, episodes = play(create_icrl(model, nearness, rounds=3))
    assert "down" in episodes[1]["error"]
    assert output["answer"] == "42"
    assert [a.response for a in parse(model.prompts[2]).attempts] == ["10", "(no answer)"]
    assert output["usage"]["calls"] == 3


def test_a_wrong_key_stops_the_run_at_once_and_loses_nothing() -> None:
    with OpenAIServer(climber, faults={2: "401"}) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        graph = create_icrl(model, nearness, rounds=4).compile(checkpointer=InMemorySaver())
        with pytest.raises(ModelError, match="401"):
            graph.invoke(GAME, thread())
        assert len(graph.get_state(thread()).values["episodes"]) == 2
        assert graph.invoke(None, thread())["rounds_done"] == 4  # mended meanwhile
        assert server.counts["calls"] == 5


@pytest.mark.parametrize("fault", ["429", "500", "reset", "truncated"])
def test_a_passing_fault_of_the_server_is_tried_again_by_the_client(fault: Any) -> None:
    with OpenAIServer(climber, faults={1: fault}) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        output, episodes = play(create_icrl(model, nearness, rounds=2))
    assert output["reward"] == 1.0
    assert not any("error" in episode for episode in episodes)


@pytest.mark.parametrize("fault", ["refused", "empty", "filtered"])
def test_a_reply_that_is_none_is_an_attempt_without_an_answer(fault: Any) -> None:
    with OpenAIServer(climber, faults={1: fault}) as server:
        output, episodes = play(create_icrl(chat_model("openai:any", base_url=server.base_url), nearness, rounds=3))
    assert "response" not in episodes[0]
    assert episodes[0]["error"]
    assert output["reward"] == 1.0


def test_a_server_that_hangs_is_given_up_on_in_the_clients_time() -> None:
    with OpenAIServer(climber, faults={1: "hang"}) as server:
        model = chat_model("openai:any", base_url=server.base_url, timeout=0.2, max_retries=0)
        _, episodes = play(create_icrl(model, nearness, rounds=1, rate_limit=RateLimit(max_attempts=1)))
    assert "Timeout" in episodes[0]["error"]


def test_system_prompt_and_few_shot_turns_stand_ahead_of_the_task() -> None:
    model = ScriptedModel(["10", "20"])
    examples = [{"role": "user", "content": "Find 1."}, {"role": "assistant", "content": "1"}]
    for layout in ("turns", "transcript"):
        play(create_icrl(model, nearness, rounds=1, system="Be brief.", examples=examples, layout=layout))
        assert [m["content"] for m in model.prompts[-1][:3]] == ["Be brief.", "Find 1.", "1"]
        assert model.prompts[-1][0]["role"] == "system"
        assert parse(model.prompts[-1]).attempts == ()


PICTURE: Any = [
    {"type": "text", "text": "Find it."},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}},
]


@pytest.mark.parametrize("layout", ["turns", "transcript"])
@pytest.mark.parametrize(
    "task",
    [
        [{"role": "user", "content": "Find it."}],
        [HumanMessage("Find it.")],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PICTURE}],
    ],
    ids=["dictionaries", "messages", "picture"],
)
def test_a_task_can_be_chat_messages(task: Any, layout: str) -> None:
    model = ScriptedModel(["10", "20", "30"])
    _, episodes = play(create_icrl(model, nearness, rounds=3, layout=layout), {**GAME, "task": task})
    assert [episode.get("error") for episode in episodes] == [None] * 3
    for number, asked in enumerate(model.prompts):
        assert [a.response for a in parse(asked).attempts] == ["10", "20"][:number]
        assert "Find it." in parse(asked).task
        assert parse(asked).instruction
        assert [m["role"] for m in asked].index("user") == (1 if len(task) == 2 else 0)


BAD_TASKS: list[Any] = [
    *(None, "", "  ", [], 3),
    *([{"content": "x"}], [{"role": "jester", "content": "x"}]),
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
]


@pytest.mark.parametrize("task", BAD_TASKS)
def test_a_task_that_is_none_is_refused(task: Any) -> None:
    with pytest.raises(ValueError, match="task"):
        create_icrl(climber, nearness).compile().invoke({"task": task})


def test_extract_makes_the_answer_that_evaluator_and_output_get() -> None:
    model = ScriptedModel(["I say <42>", "I say nothing", "I say <10>"])
    found = create_icrl(
        model,
        lambda answer: float(answer) / 100,
        rounds=3,
        extract=lambda text: text[text.index("<") + 1 : text.index(">")],
    )
    output, episodes = play(found)
    assert output["answer"] == "42"
    silent = create_icrl(
        ScriptedModel(["42", "none"]), lambda: None, rounds=2, extract=lambda t: t if t == "42" else None
    )
    assert play(silent)[0]["answer"] == "42"  # nothing was scored: the latest that has an answer
    assert [value_of(episode) for episode in episodes] == [0.42, None, 0.1]
    assert "extracted" in episodes[1]["error"]
    assert "I say <42>" in repr(model.prompts[1])


def test_instructions_and_schedule_of_ones_own() -> None:
    model = ScriptedModel(["10", "20", "30"])
    schedule = ["explore", "dream", "Say it in French."]
    graph = create_icrl(
        model,
        nearness,
        rounds=3,
        schedule=lambda round, past: schedule[round],
        instructions={"explore": "Go far.", "dream": "Dream."},
    )
    play(graph)
    assert [parse(prompt).instruction for prompt in model.prompts] == ["Go far.", "Dream.", "Say it in French."]


def test_warm_up_rounds_see_no_history() -> None:
    model = ScriptedModel(digest)
    play(create_icrl(model, nearness, rounds=4, warmup=2))
    assert [len(parse(prompt).attempts) for prompt in model.prompts] == [0, 0, 2, 3]


def test_what_a_memory_left_out_is_recorded_in_the_plan() -> None:
    model = ScriptedModel(digest)
    _, episodes = play(create_icrl(model, nearness, rounds=4, memory="last:1"))
    assert [episode["plan"]["left_out"] for episode in episodes] == [0, 0, 1, 2]
    assert [len(parse(prompt).attempts) for prompt in model.prompts] == [0, 1, 1, 1]


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def run(seed: int) -> Any:
        graph = create_icrl(lambda rng: str(rng.randrange(100)), nearness, show=shuffled([0.1, 0.2, 0.3]))
        return without_cost(play(graph, context={"seed": seed})[1])

    assert run(1) == run(1) != run(2)


def test_a_prompt_can_be_made_again_from_the_state() -> None:
    model = ScriptedModel(digest)
    built = create_icrl(model, nearness, rounds=4, memory="best:2", layout="transcript")
    graph = built.compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    state: Any = graph.get_state(thread()).values
    assert [prompt(state, built.parts, at) for at in range(4)] == model.prompts


# --------------------------------------------------------------------------------------------------------------- stops


def _constant(*values: float | None) -> Any:
    waiting = iter(values)
    return lambda: next(waiting)


@pytest.mark.parametrize(
    ("options", "rewards", "stopped", "rounds"),
    [
        ({"rounds": 3}, [0.1] * 3, "rounds", 3),
        ({"target": 0.5}, [0.1, 0.6], "success", 2),
        ({"target": -1.0}, [-2.0, -1.0], "success", 2),
        ({"patience": 2}, [0.1, 0.5, 0.5, 0.4], "plateau", 4),
        ({"patience": 2}, [None, None, 0.1, 0.1, 0.1], "plateau", 5),
        ({"stop": "gain:0.1", "target": 1.0}, [0.0, None, 0.5], "gain", 3),
        ({"stop": "gain:0.1", "target": 1.0}, [0.0, 1.0], "success", 2),
        ({"stop": "gain:0", "bounds": (0, 1)}, [0.0, 1.0], "gain", 2),
        ({"max_calls": 3}, [0.1] * 3, "calls", 3),
        ({"max_tokens": 30}, [0.1] * 3, "tokens", 3),
    ],
)
def test_stopped_says_which_stop_it_was(options: Any, rewards: Any, stopped: str, rounds: int) -> None:
    usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    output, episodes = play(create_icrl(ScriptedModel(digest, usage=usage), _constant(*rewards), **options))
    assert (output["stopped"], len(episodes)) == (stopped, rounds)


def test_time_is_a_budget_too() -> None:
    with OpenAIServer(climber, latency=0.05) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        output, _ = play(create_icrl(model, nearness, rounds=1000, max_seconds=0.15))
    assert output["stopped"] == "time"
    assert output["rounds_done"] < 1000


def test_best_of_n_counts_its_judge_in_its_budget() -> None:
    output, episodes = play(create_best_of_n(climber, near_runnable, n=8, max_calls=5))
    assert (len(episodes), output["usage"]["calls"], output["stopped"]) == (2, 4, "calls")
    assert output["reward"] is not None


def test_what_fails_counts_too() -> None:
    failing: Any = RunnableLambda(lambda given: 1 / 0)
    output, _ = play(create_icrl(climber, failing, rounds=9, max_calls=4))
    assert (output["stopped"], output["usage"]["calls"]) == ("calls", 4)


def test_a_judge_with_a_wrong_key_stops_the_run_at_once() -> None:
    class WrongKey(Exception):
        status_code = 401

    def judge(given: Any) -> float:
        raise WrongKey

    model = ScriptedModel(digest)
    with pytest.raises(ModelError):
        play(create_icrl(model, RunnableLambda(judge)))
    assert len(model.prompts) == 1


def test_a_model_that_never_answers_stops_the_run() -> None:
    model = ScriptedModel([RuntimeError("down")] * 9)
    output, episodes = play(create_icrl(model, nearness))
    assert (output["stopped"], output["answer"], len(episodes)) == ("failures", None, 3)


def test_a_runnable_evaluator_counts_as_a_call() -> None:
    output, _ = play(create_icrl(climber, near_runnable, rounds=9, max_calls=4))
    assert (output["stopped"], output["usage"]["calls"]) == ("calls", 4)


def test_best_of_n_makes_no_more_calls_than_its_budget() -> None:
    output, episodes = play(create_best_of_n(climber, nearness, n=8, max_calls=3))
    assert len(episodes) == output["usage"]["calls"] == 3
    assert output["stopped"] == "calls"


# ------------------------------------------------------------------------------------------------ LangGraph's own ways


def test_a_run_tells_each_round_response_reward_and_budget_and_its_end_in_the_custom_stream() -> None:
    graph = create_icrl(climber, nearness, rounds=2, max_calls=9).compile()
    events: list[Any] = list(graph.stream(GAME, stream_mode="custom"))
    assert [event["type"] for event in events] == [*["round", "response", "episode", "budget"] * 2, "done"]
    assert json.loads(json.dumps(events)) == events
    _, _, _, spent, begun, said, _, _, done = events
    assert (spent["spent"]["calls"], spent["caps"]) == (1, {"calls": 9})
    assert (begun["round"], begun["instruction"], begun["shown"], begun["attempts"]) == (1, "exploit", 1, 1)
    assert (said["round"], said["response"], said["error"]) == (1, "42", None)
    assert (done["stopped"], done["answer"], done["reward"], done["rounds"]) == ("rounds", "42", 1.0, 2)
    assert done["usage"]["calls"] == 2


def test_each_episode_is_an_event_in_the_custom_stream() -> None:
    graph = create_icrl(climber, nearness, rounds=2).compile()
    first, second = filter(is_episode, graph.stream(GAME, stream_mode="custom"))
    assert (first["round"], first["instruction"]) == (0, "explore")
    assert (second["response"], second["reward"], second["best"], second["error"]) == ("42", 1.0, 1.0, None)
    assert second["usage"]["calls"] == 1


def test_a_new_input_on_a_used_thread_starts_afresh() -> None:
    graph = create_icrl(climber, nearness, rounds=2).compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    with pytest.raises(ValueError, match="task"):
        graph.invoke({"task_data": {"secret": 13}}, thread())  # of the input before nothing is left
    output = graph.invoke({"task": "Find the number.", "task_data": {"secret": 13}}, thread())
    assert len(graph.get_state(thread()).values["episodes"]) == 2
    assert output["answer"] == "13"
    assert output["usage"]["calls"] == 2


def test_a_finished_thread_goes_on_for_so_many_rounds_more_with_all_that_it_has_seen() -> None:
    model = ScriptedModel(digest)
    graph = create_icrl(model, nearness, rounds=2).compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    output = graph.invoke({"more": 3}, thread())
    assert (output["rounds_done"], output["usage"]["calls"], output["stopped"]) == (5, 5, "rounds")
    assert [len(parse(asked).attempts) for asked in model.prompts] == [0, 1, 2, 3, 4]
    assert graph.invoke({"more": 1}, thread())["rounds_done"] == 6


def test_further_rounds_run_past_a_target_that_was_reached_and_may_have_other_settings() -> None:
    graph = create_icrl(climber, nearness, rounds=9, target=1.0).compile(checkpointer=InMemorySaver())
    reached = graph.invoke(GAME, thread())
    assert reached["stopped"] == "success"
    output = graph.invoke({"more": 2}, thread(), context={"schedule": "explore"})
    assert (output["stopped"], output["rounds_done"]) == ("rounds", reached["rounds_done"] + 2)
    episodes = graph.get_state(thread()).values["episodes"]
    assert [episode["plan"]["instruction"] for episode in episodes[-2:]] == ["explore", "explore"]
    assert graph.invoke({"more": 2}, thread(), context={"target": 1.0})["stopped"] == "success"


@pytest.mark.parametrize(
    ("begun", "asked", "context", "message"),
    [
        (False, {"more": 2}, {}, "no run on this thread"),
        (True, {"more": 0}, {}, "integer from 1; got 0"),
        (True, {"more": "two"}, {}, "integer from 1; got 'two'"),
        (True, {"more": 2, "task": "Another."}, {}, "give no other one"),
        (True, {"more": 2}, {"max_calls": 2}, "cap of calls is reached"),
        (True, {"more": 2}, {"colour": "red"}, "unknown setting 'colour'"),
    ],
)
def test_further_rounds_that_can_not_be_played_are_refused_and_change_nothing(
    begun: bool, asked: Any, context: Any, message: str
) -> None:
    graph = create_icrl(climber, nearness, rounds=2).compile(checkpointer=InMemorySaver())
    if begun:
        graph.invoke(GAME, thread())
    with pytest.raises(ValueError, match=message):
        graph.invoke(asked, thread(), context=context)
    assert len(graph.get_state(thread()).values.get("episodes", [])) == (2 if begun else 0)


def test_the_same_call_with_more_rounds_goes_on_with_the_run_that_is_kept(tmp_path: Path) -> None:
    model = ScriptedModel(digest)
    kept: Any = {**GAME, "score": nearness, "model": model, "path": tmp_path / "run.sqlite", "thread_id": "1"}
    assert improve(**kept, rounds=2).stopped == "rounds"
    longer = improve(**kept, rounds=5)
    assert (len(longer.episodes), len(model.prompts), longer.usage["calls"]) == (5, 5, 5)
    assert improve(**kept, rounds=5).answer == longer.answer
    with pytest.raises(ThreadMismatch, match="rounds 5 -> 3"):
        improve(**kept, rounds=3)
    with pytest.raises(ThreadMismatch, match="show"):
        improve(**kept, rounds=9, show="zero")
    assert len(model.prompts) == 5


def test_a_run_that_has_reached_its_target_plays_no_round_more(tmp_path: Path) -> None:
    kept: Any = {**GAME, "score": nearness, "model": climber, "path": tmp_path / "run.sqlite", "target": 1.0}
    reached = improve(**kept, rounds=9)
    again = improve(**kept, rounds=20)
    assert (again.stopped, again.episodes) == ("success", reached.episodes)


def test_with_more_rounds_the_attempt_that_was_the_last_is_reflected_on_first() -> None:
    graph = create_reflexion(lambda: "7", nearness, reflector=lambda: "Hm.", rounds=2).compile(InMemorySaver())
    graph.invoke(GAME, thread())
    graph.invoke({"more": 1}, thread())
    episodes = graph.get_state(thread()).values["episodes"]
    assert [episode.get("reflection") for episode in episodes] == ["Hm.", "Hm.", None]


def test_no_further_round_is_begun_that_could_not_be_judged() -> None:
    judge = ScriptedModel(lambda: "Fine.\nScore: 5")
    graph = create_icrl(lambda: "x", llm_judge(judge, "Good?"), rounds=9, max_calls=5).compile(InMemorySaver())
    assert graph.invoke(GAME, thread())["usage"]["calls"] == 4
    with pytest.raises(ValueError, match="cap of calls"):
        graph.invoke({"more": 2}, thread())


def test_what_retests_have_cost_before_is_still_counted_when_more_rounds_are_judged_again() -> None:
    judge = ScriptedModel(lambda: "Fine.\nScore: 5")
    graph = create_icrl(lambda: "x", llm_judge(judge, "Good?"), rounds=2, retests=2).compile(InMemorySaver())
    graph.invoke(GAME, thread())
    output = graph.invoke({"more": 1}, thread())
    assert output["usage"]["calls"] == len(judge.prompts) + 3


def test_an_empty_more_beside_a_task_is_none() -> None:
    graph = create_icrl(climber, nearness, rounds=1).compile()
    assert graph.invoke({**GAME, "more": None})["rounds_done"] == 1


def test_attempts_side_by_side_are_not_gone_on_with() -> None:
    graph = create_best_of_n(climber, nearness, n=2).compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    with pytest.raises(ValueError, match="larger n"):
        graph.invoke({"more": 2}, thread())


def test_a_run_may_name_another_model_than_the_graphs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ScriptedModel(lambda: "1")
    with OpenAIServer(lambda: "41") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        graph = create_icrl(own, nearness, rounds=2).compile()
        assert graph.invoke(GAME, context={"model": "openai:other"})["answer"] == "41"
        assert graph.invoke(GAME)["answer"] == "1"
        assert server.counts["calls"] == 2


def test_a_model_of_a_run_reflects_too_unless_another_one_was_named_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(lambda: "41") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        for reflector, asked in ((None, 3), (lambda: "Higher.", 2)):
            graph = create_reflexion(lambda: "1", nearness, reflector=reflector, rounds=2).compile()
            graph.invoke(GAME, context={"model": "openai:other"})
            assert server.counts["calls"] == asked
            server.counts.clear()


@pytest.mark.parametrize(
    ("model", "message"),
    [("openai:x", "OPENAI_API_KEY"), ("nobody", "provider:name"), ("learner:chess", "unknown learner 'chess'")],
)
def test_a_model_of_a_run_that_can_not_be_had_is_told_before_anything_is_paid(
    model: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    own = ScriptedModel(lambda: "1")
    with pytest.raises(ValueError, match=message):
        create_icrl(own, nearness).compile().invoke(GAME, context={"model": model})
    assert not own.prompts


def test_an_agent_of_ones_own_is_not_replaced_by_a_model() -> None:
    graph = create_icrl(RunnableLambda(lambda messages: "1"), nearness).compile()
    with pytest.raises(ValueError, match="not a chat model"):
        graph.invoke(GAME, context={"model": "learner:hidden-color"})


def test_a_graph_that_was_given_a_name_shows_it_as_the_models_default() -> None:
    fields = create_icrl("learner:hidden-color", nearness).parts.schema.model_json_schema()["properties"]
    assert fields["model"]["default"] == "learner:hidden-color"


def test_an_input_is_completed_the_same_way_for_the_same_seed() -> None:
    def inputs(given: Any, rng: Any) -> Any:
        return {"task": given["task"] or "Find it.", "task_data": given["task_data"] or {"secret": rng.randrange(100)}}

    graph = create_icrl(climber, nearness, rounds=1, inputs=inputs).compile(checkpointer=InMemorySaver())
    made = []
    for name, asked in (("a", {}), ("b", {}), ("c", {"task": "Mine.", "task_data": {"secret": 7}})):
        graph.invoke(asked, thread(name), context={"seed": 5})
        made.append(graph.get_state(thread(name)).values["inputs"])
    assert made[0] == made[1]
    assert made[0]["task"] == "Find it."
    assert made[2] == {"task": "Mine.", "task_data": {"secret": 7}}


def test_a_fork_with_another_reward_keeps_both_branches() -> None:
    graph = create_icrl(digest, nearness, rounds=4).compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    before = graph.get_state(thread()).values["episodes"]
    old = next(
        h for h in graph.get_state_history(thread()) if h.next == ("build_context",) and len(h.values["episodes"]) == 2
    )
    edited = {"round": 1, "candidate": 0, "reward": {"value": 0.99}, "shown": {"value": 0.99}}
    graph.invoke(None, graph.update_state(old.config, {"episodes": [edited]}, as_node="evaluate"))
    after = graph.get_state(thread()).values["episodes"]
    assert len(after) == 4
    assert after[0] == before[0]
    assert value_of(after[1]) == 0.99
    assert after[2]["response"] != before[2]["response"]
    assert any(h.values.get("episodes") == before for h in graph.get_state_history(thread()))


def test_the_output_is_small() -> None:
    graph = create_icrl(climber, nearness, rounds=2).compile()
    told = {"answer", "reward", "metric", "regret", "rewarded_by", "rounds_done", "stopped", "usage"}
    assert set(graph.invoke(GAME)) == told
    assert set(graph.get_input_jsonschema()["properties"]) == {"task", "task_data", "more"}


class _Parent(TypedDict, total=False):
    task: str
    task_data: dict[str, Any]
    answer: str
    answers: Annotated[list[str], lambda old, new: [*old, *new]]


def test_two_loops_run_in_parallel_inside_a_parent_that_shares_its_saver() -> None:
    first = create_icrl(climber, nearness, rounds=2).compile(name="first")
    second = create_best_of_n(climber, nearness, n=2).compile(name="second")
    parent = StateGraph(_Parent)
    parent.add_node("first", lambda state: {"answers": [first.invoke(dict(state))["answer"]]})
    parent.add_node("second", lambda state: {"answers": [second.invoke(dict(state))["answer"]]})
    parent.add_edge(START, "first")
    parent.add_edge(START, "second")
    compiled: Any = parent.compile(checkpointer=InMemorySaver())
    assert sorted(compiled.invoke({**GAME, "answers": []}, thread())["answers"]) == ["10", "42"]


def test_an_embedded_loop_resumes_inside_itself_after_a_failure() -> None:
    calls = count(1)

    def model(messages: Any) -> str:
        if next(calls) == 3:
            raise ModelError("no key")
        return digest(messages)

    loop = create_icrl(model, nearness, rounds=4).compile(name="icrl")
    parent = StateGraph(_Parent)
    parent.add_node("icrl", loop)
    parent.add_edge(START, "icrl")
    parent.add_edge("icrl", END)
    compiled = parent.compile(checkpointer=InMemorySaver())
    with pytest.raises(ModelError):
        compiled.invoke(GAME, thread())
    compiled.invoke(None, thread())
    assert next(calls) == 6  # four answers and one failure: no round was played twice


def test_a_graph_keeps_its_episodes_from_its_parent() -> None:
    parent = StateGraph(_Parent)
    parent.add_node("icrl", create_icrl(climber, nearness, rounds=2).compile())
    parent.add_edge(START, "icrl")
    assert set(parent.compile().invoke(GAME)) == {"task", "task_data", "answer", "answers"}


def test_checkpoints_survive_a_database_and_hold_plain_values_only() -> None:
    with SqliteSaver.from_conn_string(":memory:") as saver:
        graph = create_icrl(digest, nearness, rounds=30).compile(checkpointer=saver)
        graph.invoke(GAME, thread(), durability="sync")
        again = create_icrl(digest, nearness, rounds=30).compile(checkpointer=saver)
        episodes = again.get_state(thread()).values["episodes"]
    assert [episode["round"] for episode in episodes] == list(range(30))
    assert type(episodes[0]["plan"]["shown"]) is list


WRONG_PARTS: list[dict[str, Any]] = [
    *({"system": 3}, {"system": ["a"]}),
    *({"examples": 3}, {"examples": "abc"}, {"examples": [3]}, {"examples": [{"role": "user"}]}),
    *({"instructions": ["a"]}, {"instructions": "x"}, {"instructions": {"explore": 3}}),
    *({"bounds": 5}, {"bounds": (0, 1, 2)}, {"bounds": (1, 0)}, {"bounds": ("a", "b")}),
    *({"timeout": 0}, {"timeout": "5"}, {"timeout": True}),
    *({"sampling": "x"}, {"sampling": ["a"]}, {"sampling": {"temperature": 0.5}}),
    *({"extract": 3}, {"journal": 3}, {"journal": "run.sqlite"}),
]


@pytest.mark.parametrize("wrong", WRONG_PARTS, ids=repr)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_wrong_part_is_refused_by_name_and_value(name: str, wrong: dict[str, Any]) -> None:
    ((part, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{part} is .*got {re.escape(repr(value))}"):
        TOPOLOGIES[name](climber, nearness, **wrong)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_an_unknown_extractor_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match="unknown extractor 'x'; choose one of mathematics"):
        TOPOLOGIES[name](climber, nearness, extract="x")


def test_an_unknown_argument_is_refused_with_all_choices() -> None:
    with pytest.raises(ValueError, match="unknown argument 'sytem'; choose among rounds, .*memory.*system.*seed"):
        create_icrl(climber, nearness, sytem="x")  # type: ignore[call-arg]
