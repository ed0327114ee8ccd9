"""The rate limit and its retries: the same, sync and async."""

import asyncio
import gc
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY
from weakref import ref

import aiohttp
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_core.runnables import RunnableLambda

from icrl_graph import ModelError, RateLimit, chat_model, create_best_of_n, create_icrl
from icrl_graph.errors import BudgetExceeded
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Driver, single
from icrl_graph.execution.journal import MemoryJournal
from icrl_graph.execution.queue import interrupted
from icrl_graph.execution.rate_limit import Bucket
from icrl_graph.execution.retry import is_transient, retry_after
from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests.helpers import GAME, nearness

Execute = Callable[[RateLimit, Call], Any]


@pytest.fixture(params=["sync", "async"])
def execute_call(request: pytest.FixtureRequest) -> Execute:
    def run(rate_limit: RateLimit, call: Call) -> Any:
        return rate_limit.execute(call) if request.param == "sync" else asyncio.run(rate_limit.aexecute(call))

    return run


class Status(Exception):
    def __init__(self, status_code: int, code: str = "") -> None:
        super().__init__(f"status {status_code}")
        self.status_code, self.code = status_code, code


def _failing(*errors: Exception) -> tuple[Call, list[str]]:
    """A call that raises these one after another, and then answers; and a log of its attempts."""
    waiting, log = list(errors), []

    def answer(asked: str) -> str:
        log.append(asked)
        if waiting:
            raise waiting.pop(0)
        return asked.upper()

    return Call(RunnableLambda(answer), "x", str), log


def test_a_transient_failure_is_retried_until_it_succeeds(execute_call: Execute) -> None:
    call, log = _failing(Status(429), Status(503), ConnectionResetError(), TimeoutError())
    rate_limit = RateLimit(max_backoff=0.001)
    assert execute_call(rate_limit, call) == "X"
    assert (len(log), rate_limit.retries) == (5, 4)


def test_after_the_last_retry_its_error_is_raised(execute_call: Execute) -> None:
    call, log = _failing(*(Status(500) for _ in range(9)))
    with pytest.raises(Status, match="500"):
        execute_call(RateLimit(max_attempts=3, max_backoff=0.001), call)
    assert len(log) == 3


def _http(status: int) -> Exception:
    request = httpx2.Request("GET", "http://any")
    return httpx2.HTTPStatusError("no", request=request, response=httpx2.Response(status, request=request))


def _in_stream(**told: Any) -> Exception:
    """What the client makes of an event that holds an error."""
    return openai.APIError("no", httpx2.Request("GET", "http://any"), body=told)


def _coded(**told: Any) -> Exception:
    error = Exception("no")
    vars(error).update(told)
    return error


@pytest.mark.parametrize(
    "error",
    [
        *(Status(status) for status in (408, 409, 425, 429, 599)),
        *(kind("no") for kind in (ModelRateLimitError, ModelAPIError, ModelConnectionError, ModelTimeoutError)),
        *(_http(429), _coded(code=503), _coded(code=HTTPStatus.BAD_GATEWAY), _coded(status=500)),
        ValueError({"code": 429, "message": "what LangChain makes of an error within a 200"}),
        *(_in_stream(), _in_stream(code=None, type="server_error"), _in_stream(code="503")),
    ],
    ids=repr,
)
def test_transient_errors_are_recognised_by_status_code_or_kind(error: Exception) -> None:
    assert is_transient(error)


FINAL = [
    *(Status(401), Status(400), Status(429, "insufficient_quota"), ValueError("bug")),
    *(ModelNotFoundError("no"), ModelInvalidRequestError("no"), ContextOverflowError("no"), _http(404)),
    *(_coded(code=400), _coded(code=7), _coded(status="UNAVAILABLE"), _in_stream(code=400)),
    *(_in_stream(code="context_length_exceeded"), _in_stream(code="insufficient_quota")),
]


def test_what_aiohttp_cannot_parse_is_retried_although_it_calls_that_a_400(execute_call: Execute) -> None:
    request: Any = SimpleNamespace(real_url="http://any")
    error = aiohttp.ClientResponseError(request, (), status=400, message="Bad status line")
    error.__cause__ = aiohttp.http_exceptions.BadStatusLine("SSH-2.0")
    call, log = _failing(error)
    assert execute_call(RateLimit(max_backoff=0.001), call) == "X"
    assert len(log) == 2


def test_a_time_out_of_the_client_is_retried_where_time_is_left_of_a_budget() -> None:
    call, log = _failing(TimeoutError("no chunk"))
    assert RateLimit(max_backoff=0.001).execute(call, 30) == "X"
    assert len(log) == 2


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_a_permanent_error_is_not_retried(execute_call: Execute, error: Exception) -> None:
    call, log = _failing(error)
    with pytest.raises(type(error)):
        execute_call(RateLimit(max_backoff=0.001), call)
    assert len(log) == 1


def test_a_call_that_exceeds_its_timeout_is_not_retried(execute_call: Execute) -> None:
    call, log = _failing(TimeoutError("nothing came back"))
    with pytest.raises(TimeoutError):
        execute_call(RateLimit(max_backoff=0.001), Call(call.part, "x", str, timeout=60))
    assert len(log) == 1


def _with_headers(headers: Any) -> Status:
    error = Status(429)
    error.response = SimpleNamespace(headers=headers)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": 0}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:09 GMT"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:00 GMT"}, None),  # it is over
        *(({"retry-after": said}, None) for said in ("-1", "inf", "nan", "soon", "so on", "", None, ["7"])),
        *(({}, None), (None, None), (["retry-after"], None), (7, None)),
    ],
)
def test_retry_after_is_read_in_all_its_forms(said: Any, seconds: Any, clock: "Clock") -> None:
    clock.now = datetime(2026, 11, 21, 11, tzinfo=UTC).timestamp()
    assert retry_after(_with_headers(said)) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.8s"}]}, 45.8),
        ({"message": "Quota exceeded. Please retry in 45.8s."}, 45.8),
        ({"message": "Limit 15000, Used 11972. Please try again in 5.289s. Visit us"}, 5.289),
        ({"message": "Please try again in 7m12.5s."}, 432.5),
        ({"message": "Try again in 350ms."}, 0.35),
        ({"message": "exceeded the token rate limit. Please retry after 45 seconds."}, 45.0),
        ({"message": "Retry in 2 minutes"}, 120.0),
        *(({"message": said}, None) for said in ("retry in a moment", "try again in 5 steps", "try 3s", "after 3 s")),
    ],
)
def test_a_wait_is_read_from_the_words_where_no_header_has_it(said: Any, seconds: Any) -> None:
    assert retry_after(_in_stream(**said)) == pytest.approx(seconds)
    error = _with_headers({"retry-after": "7"})
    error.body = said  # type: ignore[attr-defined]
    assert retry_after(error) == 7.0


class Clock:
    """Time that passes while somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, pause = Clock(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        await pause(0)

    monkeypatch.setattr("icrl_graph.execution.rate_limit.time", clock)
    monkeypatch.setattr("icrl_graph.execution.retry.time", clock)
    monkeypatch.setattr("icrl_graph.execution.rate_limit.random.random", lambda: 0.5)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock


def _asks(seconds: float) -> Exception:
    return _with_headers({"retry-after": str(seconds)})


def test_backoff_doubles_with_jitter_and_is_never_shorter_than_retry_after(execute_call: Execute, clock: Clock) -> None:
    call, log = _failing(Status(500), Status(500), _asks(0), _asks(100), Status(500))
    execute_call(RateLimit(max_backoff=10), call)
    assert clock.now - 1000 == pytest.approx(1.5 + 2.5 + 4.5 + 100 + 10)
    assert len(log) == 6


@pytest.mark.parametrize(("asked", "longest", "calls"), [(600, 1, 2), (601, 1, 1), (601, 700, 2)])
def test_a_retry_after_of_more_than_ten_minutes_is_not_waited_for(
    asked: float, longest: float, calls: int, execute_call: Execute, clock: Clock
) -> None:
    call, log = _failing(_asks(asked))
    with suppress(Status):
        execute_call(RateLimit(max_backoff=longest), call)
    assert clock.now - 1000 == pytest.approx(asked * (calls - 1))
    assert len(log) == calls


def test_the_rate_limit_spaces_calls_by_requests_and_tokens_per_minute(execute_call: Execute, clock: Clock) -> None:
    rate_limit, began = RateLimit(requests_per_minute=20, tokens_per_minute=60), []
    call = Call(RunnableLambda(lambda asked: began.append(clock.now - 1000)), "x", str)
    for used in (0, 0, 10, 0):
        execute_call(rate_limit, call)
        rate_limit.used(used)
    assert began == pytest.approx([0, 3, 6, 16])


def test_a_call_whose_turn_comes_after_max_seconds_is_not_made(clock: Clock, execute_call: Execute) -> None:
    rate_limit = _Limited(requests_per_minute=20)
    (call, log), (failing, failed) = _failing(), _failing(Status(500))
    execute_call(rate_limit, call)
    for _ in range(3):  # and it takes no turn from others
        with pytest.raises(BudgetExceeded, match="time"):
            execute_call(rate_limit, call)
    clock.now += 3
    with pytest.raises(Status):  # its repeat would begin too late, too
        execute_call(rate_limit, failing)
    assert (len(log), len(failed), clock.now) == (1, 1, 1003)


def test_a_run_whose_next_call_would_begin_too_late_ends_with_what_it_has() -> None:
    model = ScriptedModel(["1"])
    out = (
        create_icrl(model, nearness, rounds=2, rate_limit=RateLimit(requests_per_minute=1), max_seconds=5)
        .compile()
        .invoke(GAME)
    )
    assert (out["answer"], out["stopped"], out["usage"]["calls"]) == ("1", "time", 1)


def test_a_call_is_not_retried_where_less_time_is_left_than_its_backoff(execute_call: Execute) -> None:
    call, log = _failing(Status(500), Status(503))
    with pytest.raises(Status, match="500"):
        execute_call(_Limited(), call)
    assert len(log) == 1


class _Limited(RateLimit):
    """The rate limit of a run that has half a second left."""

    def execute(self, call: Call, within: float | None = None) -> Any:
        return super().execute(call, 0.5)

    async def aexecute(self, call: Call, within: float | None = None) -> Any:
        return await super().aexecute(call, 0.5)


def test_the_rate_limit_gets_the_seconds_left_in_the_budget() -> None:
    told: list[float | None] = []

    class Spy(RateLimit):
        def execute(self, call: Call, within: float | None = None) -> Any:
            told.append(within)
            return super().execute(call, within)

    call, _ = _failing()
    for caps in ({}, {"time": 10.0}):
        Driver(MemoryJournal(), rate_limit=Spy()).perform(
            single(call), ("r", "n", 0, 0), Budget(caps, {"seconds": 4.0})
        )
    assert told == [None, 6.0]


@pytest.mark.parametrize(("rate_limit", "calls"), [({}, 2), ({"rate_limit": RateLimit(max_attempts=1)}, 1)])
def test_a_graph_retries_by_default_and_not_with_one_attempt(rate_limit: Any, calls: int) -> None:
    log: list[str] = []

    def model() -> str:
        log.append("asked")
        raise ConnectionResetError("gone")

    graph = create_icrl(
        model, nearness, rounds=1, max_seconds=3, **rate_limit
    )  # the waits: 1 s or more, then 2 s or more
    out = graph.compile().invoke(GAME)
    assert (len(log), out["usage"]["calls"]) == (calls, 1)


def test_a_cancelled_backoff_frees_its_slot() -> None:
    call, log = _failing(Status(500))
    rate_limit = RateLimit(max_concurrency=1)

    async def cancelled() -> Any:
        task = asyncio.create_task(rate_limit.aexecute(call))
        while not rate_limit.retries:  # it waits, once it has counted its failure
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await rate_limit.aexecute(call)

    assert asyncio.run(cancelled()) == "X"
    assert len(log) == 2


def test_broken_json_is_retried_only_where_a_client_could_not_read_it() -> None:
    def error_of(package: str) -> Exception:
        names: dict[str, Any] = {"__name__": f"{package}._models", "json": json}
        exec("def read(): return json.loads('{')", names)
        try:
            names["read"]()
        except ValueError as error:
            return error
        raise AssertionError

    assert is_transient(error_of("httpx2"))
    assert not is_transient(error_of("my_parser"))


def test_retries_absorb_the_faults_of_a_real_server() -> None:
    with OpenAIServer(lambda: "42", faults={1: "429", 2: "500", 3: "reset"}) as server:
        model = chat_model("openai:any", base_url=server.base_url, max_retries=0)
        graph = create_icrl(model, nearness, rounds=2, rate_limit=RateLimit(max_backoff=0.01)).compile()
        out = asyncio.run(graph.ainvoke(GAME))
        assert (out["reward"], out["usage"]["calls"], out["stopped"]) == (1.0, 2, "rounds")
        assert server.counts["calls"] == 5


def test_a_wrong_key_is_not_retried() -> None:
    with OpenAIServer(lambda: "42", faults={1: "401"}) as server:
        model = chat_model("openai:any", base_url=server.base_url, max_retries=0)
        with pytest.raises(ModelError):
            create_icrl(model, nearness, rate_limit=RateLimit()).compile().invoke(GAME)
        assert server.counts["calls"] == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_max_concurrency_bounds_the_calls_in_flight(way: str) -> None:
    lock, meeting, flying, most = threading.Lock(), threading.Barrier(2), 0, 0

    def model() -> str:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        meeting.wait(timeout=60)  # two must be in flight at once for anyone to answer
        with lock:
            flying -= 1
        return "1"

    graph = create_best_of_n(model, nearness, n=6, rate_limit=RateLimit(max_concurrency=2)).compile()
    out = graph.invoke(GAME) if way == "invoke" else asyncio.run(graph.ainvoke(GAME))
    assert (most, out["usage"]["calls"]) == (2, 6)


def test_max_concurrency_holds_over_all_threads_and_event_loops() -> None:
    async def model(asked: str) -> str:
        return "1"

    async def cancelled(call: Call) -> None:
        waiting = asyncio.create_task(rate_limit.aexecute(call))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    rate_limit, (call, _), held, done = RateLimit(max_concurrency=1), _failing(), threading.Event(), threading.Event()

    def hold(asked: str) -> str:
        held.set()
        assert done.wait(60)
        return asked

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(rate_limit.execute, Call(RunnableLambda(hold), "held", str))
        assert held.wait(60)
        for execute in (rate_limit.execute, lambda *given: asyncio.run(rate_limit.aexecute(*given))):
            with pytest.raises(BudgetExceeded):
                execute(call, 0.01)
        asyncio.run(cancelled(call))
        waiting = pool.submit(lambda: asyncio.run(rate_limit.aexecute(call)))
        done.set()
        assert (holding.result(60), waiting.result(60)) == ("held", "X")
    graph = create_best_of_n(RunnableLambda(model), nearness, n=3, rate_limit=rate_limit).compile()
    for _ in range(2):
        assert asyncio.run(graph.ainvoke(GAME))["usage"] == graph.invoke(GAME)["usage"] | {"seconds": ANY}


@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.floats(1, 1e6))
def test_over_any_time_no_more_flows_than_the_rate_and_one_debt(units: list[float], rate: float) -> None:
    bucket = Bucket(rate)
    waits = [bucket.take(unit) for unit in units]
    for at, wait in enumerate(waits):
        assert wait <= 60 * sum(units[:at]) / rate + 1e-6
        assert wait >= 60 * sum(units[:at]) / rate - 1  # less the time that this test has taken


def test_tokens_that_were_used_delay_the_next_call() -> None:
    tokens = Bucket(60.0)
    assert tokens.take(0) == 0
    tokens.take(3000)
    assert 2900 < tokens.take(0) <= 3000


def test_without_a_limit_nothing_waits() -> None:
    assert [Bucket(None).take(1e9) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    "wrong", [{"max_concurrency": 0}, {"requests_per_minute": -1}, {"tokens_per_minute": 0}, {"max_attempts": 0}]
)
def test_a_number_that_is_not_above_0_is_refused(wrong: Any) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        RateLimit(**wrong)


def test_errors_of_connections_are_known_by_name_whoever_made_them() -> None:
    assert is_transient(type("APIConnectionError", (Exception,), {})())
    assert is_transient(type("ReadError", (type("TransportError", (Exception,), {}),), {})())
    assert not is_transient(KeyError())


def test_a_provider_that_is_down_costs_the_backoff_once_until_it_answers(
    execute_call: Execute,
) -> None:
    rate_limit = RateLimit(max_attempts=3, max_backoff=0.001)
    for attempts, faults in ((3, 3), (1, 1), (1, 0), (3, 3)):
        call, log = _failing(*[Status(503)] * faults)
        if faults:
            with pytest.raises(Status):
                execute_call(rate_limit, call)
        else:
            execute_call(rate_limit, call)
        assert len(log) == attempts


def test_the_look_for_a_ctrl_c_collects_no_garbage_because_that_can_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython issue 106883: a hang of all threads, seen under a load of many runs."""
    collecting: list[bool] = []

    def watch(call: Any) -> Any:
        def watched() -> Any:
            collecting.append(gc.isenabled())
            return call()

        return watched

    for name in ("_current_exceptions", "_current_frames"):
        monkeypatch.setattr(sys, name, watch(getattr(sys, name)))
    with ThreadPoolExecutor() as threads:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert threads.submit(interrupted).result()
    assert collecting == [False, False]
    assert gc.isenabled()


def test_the_look_for_a_ctrl_c_keeps_no_value_of_its_callers_alive() -> None:
    class Value:
        pass

    def caller() -> ref[Value]:
        value = Value()
        assert not interrupted()
        return ref(value)

    gc.disable()
    try:
        assert caller()() is None
        with ThreadPoolExecutor() as threads:
            assert threads.submit(caller).result()() is None
    finally:
        gc.enable()
