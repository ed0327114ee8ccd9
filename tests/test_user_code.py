"""Where users' code runs: in which thread, in which event loop, and for how long that is there."""

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import aiohttp
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.runtime import RunControl

from icrl_graph import aimprove, compare, create_best_of_n, create_icrl, improve
from icrl_graph.environments import Outcome
from icrl_graph.environments.rollouts import rollout
from icrl_graph.evaluators import isolated
from icrl_graph.execution import event_loop
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.alarms import alarmed, alarmed_later

SIZES: dict[str, Any] = {name: {"n": 3} if name == "best_of_n" else {"rounds": 3} for name in TOPOLOGIES}
ALL = "topology", [*TOPOLOGIES]


@tool
def alarmed_tool(response: str) -> float:
    """Judge within a minute."""
    return alarmed(response)


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Any:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread


@pytest.fixture
def server() -> Any:
    with OpenAIServer(lambda: "yes") as started:
        yield started


# ------------------------------------------------------------------------------------------------ in the main thread


@pytest.mark.parametrize(*ALL)
@pytest.mark.parametrize("score", [alarmed, alarmed_tool, lambda response: alarmed(response)])
def test_a_plain_evaluator_runs_in_the_thread_that_calls_improve(score: Any, topology: str) -> None:
    result = improve("Say yes.", score, model=lambda: "yes", topology=topology, **SIZES[topology])
    assert result.rewards == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("create", [create_icrl, create_best_of_n])
def test_a_plain_evaluator_runs_in_the_thread_that_calls_invoke(create: Any) -> None:
    assert create(lambda: "yes", alarmed).compile().invoke({"task": "Say yes."})["reward"] == 1.0


def test_a_model_that_is_a_function_runs_in_the_thread_that_calls_improve() -> None:
    result = improve("x", lambda: 1.0, model=lambda: threading.current_thread().name, rounds=2)
    assert [episode["response"] for episode in result.episodes] == [threading.current_thread().name] * 2


def test_improve_in_a_thread_runs_its_evaluator_there() -> None:
    def here() -> float:
        return float(threading.get_ident())

    def run() -> bool:
        return improve("x", here, model=lambda: "x", rounds=1).reward == here()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result()


@pytest.mark.parametrize("way", ["with a time limit", "async", "compared"])
def test_the_reason_of_an_evaluator_that_wants_the_main_thread_names_what_helps(way: str, tmp_path: Any) -> None:
    if way == "compared":
        tasks = tmp_path / "tasks.jsonl"
        tasks.write_text('{"task": "Say yes."}\n')
        rows = compare(tasks, "icrl", model=lambda: "yes", evaluator=alarmed, rounds=2, folder=tmp_path / "out").rows
        (episodes,) = [row["episodes"] for row in rows.values()]
    elif way == "async":
        episodes = list(asyncio.run(aimprove("Say yes.", alarmed, model=lambda: "yes", rounds=2)).episodes)
    else:
        episodes = list(improve("Say yes.", alarmed, model=lambda: "yes", rounds=2, timeout=60).episodes)
    for episode in episodes:
        assert "signal only works in main thread" in episode["reward"]["error"]
        assert episode["reward"]["error"].startswith("give isolated(...), a main thread of its own: ValueError: ")


@pytest.mark.parametrize("score", [alarmed, alarmed_later])
def test_an_isolated_evaluator_runs_in_the_main_thread_of_its_process(score: Any) -> None:
    evaluator = isolated(score, workers=1)
    result = asyncio.run(aimprove("Say yes.", evaluator, model=lambda: "yes", rounds=2))
    evaluator.part.close()
    assert result.rewards == [1.0, 1.0]


# ----------------------------------------------------------------------------------------------- one event loop a run


class Client:
    """What keeps a connection: it belongs to the event loop in which it was opened."""

    def __init__(self, url: str) -> None:
        self.loops: list[Any] = []
        self._url, self._sessions = f"{url}/chat/completions", self._session()

    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession() as session:
            while True:
                yield session

    async def ask(self) -> str:
        self.loops.append(asyncio.get_running_loop())
        session = await anext(self._sessions)
        async with session.post(self._url, json={"messages": [{"role": "user", "content": "x"}]}) as answer:
            return str((await answer.json())["choices"][0]["message"]["content"])


def forms(client: Client) -> dict[str, Any]:
    """Evaluators of each async form that ask a client."""

    async def score() -> float:
        return float(await client.ask() == "yes")

    class Judge:
        async def __call__(self, response: str) -> float:
            return await score()

    @tool
    async def judge(response: str) -> float:
        """Judge."""
        return await score()

    async def paid(given: Any) -> float:
        return await score()

    # of the last one it is not known ahead that it is async
    return {
        "function": score,
        "object": Judge(),
        "tool": judge,
        "Runnable": RunnableLambda(paid),
        "lambda": lambda: score(),
    }


@pytest.mark.parametrize(*ALL)
@pytest.mark.parametrize(
    ("form", "options"),
    [
        *((form, {}) for form in ("function", "object", "tool", "Runnable", "lambda")),
        *((form, {"timeout": 60, "max_seconds": 60}) for form in ("function", "Runnable", "lambda")),
    ],
)
def test_what_an_async_evaluator_keeps_lasts_for_the_run(form: str, options: Any, topology: str, server: Any) -> None:
    client = Client(server.base_url)
    given = {"model": lambda: "yes", "topology": topology, **SIZES[topology], **options}
    assert improve("Say yes.", forms(client)[form], **given).rewards == [1.0, 1.0, 1.0]
    assert len(set(client.loops)) == 1
    assert client.loops[0].is_closed()
    assert server.counts["connections"] <= (3 if topology == "best_of_n" else 1)


@pytest.mark.parametrize("create", [create_icrl, create_best_of_n])
def test_a_run_of_a_compiled_graph_has_an_event_loop_that_ends_with_it(create: Any, server: Any) -> None:
    client = Client(server.base_url)
    graph = create(lambda: "yes", forms(client)["function"]).compile()
    for runs in (1, 2):
        client._sessions = client._session()
        assert graph.invoke({"task": "Say yes."})["reward"] == 1.0
        assert len(set(client.loops)) == runs
        assert all(loop.is_closed() for loop in client.loops)


def test_an_async_model_and_its_evaluator_share_the_event_loop(server: Any) -> None:
    client = Client(server.base_url)

    async def answer(messages: Any) -> str:
        return await client.ask()

    result = improve("Say yes.", forms(client)["function"], model=RunnableLambda(answer), rounds=2)
    assert (result.rewards, len(client.loops), len(set(client.loops))) == ([1.0, 1.0], 4, 1)


def test_an_environment_keeps_its_connection_for_the_run(server: Any) -> None:
    client = Client(server.base_url)

    class Far:
        async def reset(self, task_data: Any) -> Outcome:
            return Outcome(await client.ask())

        async def step(self, action: str) -> Outcome:
            return Outcome(await client.ask(), reward=1.0, done=True)

        def close(self) -> None: ...

    policy = rollout(lambda: "go", Far)
    result = improve("Play.", lambda steps: steps[-1]["reward"], model=policy, rounds=2)
    assert (result.rewards, len(client.loops), len(set(client.loops))) == ([1.0, 1.0], 4, 1)


def test_a_run_within_a_run_shares_its_event_loop(server: Any) -> None:
    client = Client(server.base_url)
    inner = create_icrl(lambda: "yes", forms(client)["function"], rounds=2).compile()
    agent = RunnableLambda(lambda messages: inner.invoke({"task": "Say yes."})["answer"])
    assert improve("Say yes.", lambda: 1.0, model=agent, rounds=2).rewards == [1.0, 1.0]
    assert (len(client.loops), len(set(client.loops))) == (4, 1)


def test_an_async_evaluator_may_begin_a_run_of_its_own() -> None:
    async def inner() -> float:
        return 1.0

    async def outer() -> float:
        return improve("x", inner, model=lambda: "x", rounds=1).reward or 0.0

    assert improve("x", outer, model=lambda: "x", rounds=2).rewards == [1.0, 1.0]


def test_a_run_in_a_notebook_whose_event_loop_runs_has_one_of_its_own(server: Any) -> None:
    client = Client(server.base_url)

    async def cell() -> Any:
        return improve("Say yes.", forms(client)["function"], model=lambda: "yes", rounds=3)

    assert asyncio.run(cell()).rewards == [1.0, 1.0, 1.0]
    assert len(set(client.loops)) == 1


def test_an_isolated_evaluator_keeps_its_event_loop_from_one_evaluation_to_the_next() -> None:
    async def score() -> float:
        loops = globals().setdefault("loops", [])
        loops.append(asyncio.get_running_loop())
        return float(loops[0] is loops[-1] and len(loops))

    evaluator = isolated(score, workers=1)
    assert [evaluator()["value"], evaluator()["value"]] == [1.0, 2.0]
    evaluator.part.close()


def test_what_is_left_in_the_event_loop_is_ended_with_the_run() -> None:
    ended = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def numbers() -> AsyncIterator[float]:
        try:
            while True:
                yield 1.0
        finally:
            ended.append("generator")

    tasks, source = [], numbers()

    async def score() -> float:
        tasks.append(asyncio.ensure_future(forever("task")))
        return await anext(source)

    assert improve("x", score, model=lambda: "x", rounds=2).rewards == [1.0, 1.0]
    assert ended == ["task", "task", "generator"]


@pytest.mark.parametrize("way", ["improve", "graph"])
@pytest.mark.parametrize("ended_by", ["Ctrl-C", "a drain", "an error"])
def test_a_run_that_is_broken_off_leaves_no_event_loop(ended_by: str, way: str) -> None:
    control = RunControl()

    async def score() -> float:
        if ended_by == "Ctrl-C":
            raise KeyboardInterrupt
        control.request_drain("enough")
        return 1.0

    def memory(past: Any) -> Any:
        return [1 / 0] if past and ended_by == "an error" else []

    if way == "improve":
        with pytest.raises(BaseException, match="enough|division|^$"):
            improve("x", score, model=lambda: "x", rounds=3, memory=memory, control=control)
        return
    graph = create_icrl(lambda: "x", score, rounds=3, memory=memory).compile()
    with pytest.raises(BaseException, match="enough|division|^$"):
        graph.invoke({"task": "x"}, control=control)
    del graph
    gc.collect()  # of a run that was drained, nothing else tells the end


def test_context_variables_reach_an_async_evaluator() -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")

    async def score() -> float:
        return float(user.get() == "me")

    user.set("me")
    assert improve("x", score, model=lambda: "x", rounds=2, timeout=60).rewards == [1.0, 1.0]


@pytest.mark.parametrize("topology", ["icrl", "best_of_n"])
def test_ctrl_c_ends_a_wait_for_an_async_evaluator(topology: str) -> None:
    ended = []

    async def score(given: Any) -> float:
        try:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        improve("x", RunnableLambda(score), model=lambda: "x", topology=topology, **SIZES[topology])
    assert ended


def test_a_coroutine_that_blocks_the_event_loop_holds_up_no_later_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "GRACE", 0.01)
    blocks, freed, loops = iter([True, False, False]), threading.Event(), []
    others = threading.enumerate()

    async def score() -> float:
        loops.append(asyncio.get_running_loop())
        if next(blocks):
            freed.wait()
        return 1.0

    result = improve("x", score, model=lambda: "x", rounds=3, timeout=0.2)
    freed.set()
    assert result.rewards == [None, 1.0, 1.0]
    assert loops[0] is not loops[1] is loops[2]
    for thread in threading.enumerate():
        if thread.name == "icrl-event-loop" and thread not in others:
            thread.join()


def test_a_coroutine_that_takes_too_long_is_cancelled_and_the_loop_goes_on() -> None:
    ended, waits = [], iter([True, False])

    async def score() -> float:
        try:
            if next(waits):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(asyncio.get_running_loop())
            raise
        ended.append(asyncio.get_running_loop())
        return 1.0

    result = improve("x", score, model=lambda: "x", rounds=2, timeout=0.1)
    assert result.rewards == [None, 1.0]
    assert "nothing came back within 0.1 s" in result.episodes[0]["reward"]["error"]
    assert ended[0] is ended[1]


def test_an_exit_in_a_task_that_an_evaluator_has_started_costs_its_attempt_alone() -> None:
    leaves, loops = iter([True, False]), []

    async def child() -> None:
        if next(leaves):
            raise SystemExit("enough")

    async def score() -> float:
        loops.append(asyncio.get_running_loop())
        await asyncio.gather(child())
        return 1.0

    result = improve("x", score, model=lambda: "x", rounds=2)
    assert (result.rewards, loops[0] is loops[1]) == ([None, 1.0], True)
    assert "SystemExit: enough" in result.episodes[0]["reward"]["error"]


# ------------------------------------------------------------------------------------------------------ who is told


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(*ALL)
def test_on_episode_is_told_of_each_attempt_once_also_of_those_after_a_resume(
    topology: str, way: str, tmp_path: Any
) -> None:
    told: list[Any] = []
    model = ScriptedModel(lambda: str(len(told)))

    def run(**more: Any) -> Any:
        given = {"model": model, "topology": topology, "path": tmp_path / "run.sqlite", **SIZES[topology], **more}
        if way == "sync":
            return improve("x", lambda response: float(response), on_episode=told.append, **given)
        return asyncio.run(aimprove("x", lambda response: float(response), on_episode=told.append, **given))

    run()
    result = run() if topology == "best_of_n" else run(rounds=5)
    assert [(event["round"], event["candidate"]) for event in told] == [
        (episode["round"], episode["candidate"]) for episode in result.episodes
    ]
    assert [event["reward"] for event in told] == result.rewards
