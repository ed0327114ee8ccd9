"""The driver and its journals: the same flow, sync and async."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphInterrupt

from icrl_graph.errors import BudgetExceeded, JournalError, ModelError
from icrl_graph.execution.budget import Budget, exhausted
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Driver, Flow, Meter
from icrl_graph.execution.event_loop import uncancelled
from icrl_graph.execution.journal import Journal, MemoryJournal, Reply
from icrl_graph.execution.sql_journals import SqliteJournal
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl

Perform = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def perform(request: pytest.FixtureRequest) -> Perform:
    def run(flow: Flow, journal: Journal | None = None, key: Any = ("run", "node", 0, 0), budget: Any = None) -> Any:
        driver, spends = Driver(journal or MemoryJournal()), budget or Budget({}, {})
        if request.param == "sync":
            return driver.perform(flow, key, spends)
        return asyncio.run(driver.aperform(flow, key, spends))

    return run


def _one(part: Any, given: Any = "x", **fields: Any) -> Flow:
    reply = yield Call(part, given, fields.pop("read", lambda raw: raw), **fields)
    return reply.value


def test_a_flow_gets_the_reply_of_a_runnable(perform: Perform) -> None:
    assert perform(_one(RunnableLambda(str.upper))) == "X"


def test_a_flow_gets_the_reply_of_a_function_sync_or_async(perform: Perform) -> None:
    async def later(word: str) -> str:
        await asyncio.sleep(0)
        return word * 2

    assert perform(_one(lambda word: word * 2, {"word": "a"})) == "aa"
    assert perform(_one(later, {"word": "a"})) == "aa"


def test_an_async_function_can_be_called_where_a_loop_already_runs() -> None:
    async def later(word: str) -> str:
        return word

    async def notebook() -> Any:
        return Driver(MemoryJournal()).perform(_one(later, {"word": "a"}), ("r",), Budget({}, {}))

    assert asyncio.run(notebook()) == "a"


def test_a_failure_is_thrown_into_the_flow_which_may_make_it_data(perform: Perform) -> None:
    def careful() -> Flow:
        try:
            yield Call(RunnableLambda(lambda x: 1 / 0), "x", lambda raw: raw)
        except ZeroDivisionError:
            return "kept going"

    assert perform(careful()) == "kept going"


def test_a_failure_that_a_flow_lets_pass_comes_out(perform: Perform) -> None:
    with pytest.raises(ZeroDivisionError):
        perform(_one(RunnableLambda(lambda x: 1 / 0)))


@pytest.mark.parametrize("error", [GraphInterrupt(()), ModelError("no key")])
def test_no_flow_can_swallow_an_interrupt_or_what_a_person_must_fix(perform: Perform, error: Exception) -> None:
    def stop(word: str) -> None:
        raise error

    def swallow() -> Flow:
        try:
            yield Call(stop, {"word": "x"}, lambda raw: raw)
        except Exception:
            return "swallowed"

    with pytest.raises(type(error)):
        perform(swallow())


def test_flows_in_a_list_run_side_by_side_and_come_back_in_order(perform: Perform) -> None:
    barrier = threading.Barrier(4, timeout=20)

    def meet(number: int) -> int:
        barrier.wait()
        return number

    def four() -> Flow:
        return (yield [_one(meet, {"number": i}) for i in range(4)])

    assert perform(four()) == [0, 1, 2, 3]


def test_a_failing_sibling_does_not_lose_the_others_replies(perform: Perform) -> None:
    journal = MemoryJournal()

    def maybe(number: int) -> int:
        if number == 1:
            raise ValueError("no")
        return number

    def all_of_them() -> Flow:
        return (yield [_one(maybe, {"number": i}) for i in range(3)])

    with pytest.raises(ValueError, match="no"):
        perform(all_of_them(), journal)
    assert len(journal._replies) == 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_call_that_was_answered_is_not_made_again(perform: Perform, kind: str, tmp_path: Path) -> None:
    journal = MemoryJournal() if kind == "memory" else SqliteJournal(tmp_path / "journal.sqlite")
    made: list[Any] = []

    def count(word: str) -> int:
        made.append(word)
        return len(made)

    def twice(second: str) -> Flow:
        first = yield Call(count, {"word": "a"}, lambda raw: raw)
        other = yield Call(count, {"word": second}, lambda raw: raw)
        return first.value, other.value

    assert perform(twice("a"), journal) == (1, 2)  # the same call at another place is another call
    assert perform(twice("a"), journal) == (1, 2)
    assert perform(twice("b"), journal) == (1, 3)  # what is sent differs
    assert perform(twice("a"), journal, key=("another run", "node", 0, 0)) == (4, 5)
    if isinstance(journal, SqliteJournal):
        journal.close()
        again = SqliteJournal(tmp_path / "journal.sqlite")
        assert perform(twice("b"), again) == (1, 3)
        again.close()


def test_a_replayed_call_still_counts_as_spent(perform: Perform) -> None:
    journal = MemoryJournal()
    for _ in range(2):
        budget = Budget({}, {})
        perform(_one(RunnableLambda(str.upper)), journal, budget=budget)
        assert budget.spent["calls"] == 1


def test_a_call_beyond_the_cap_is_not_made(perform: Perform) -> None:
    made: list[str] = []

    def three() -> Flow:
        for _ in range(3):
            yield Call(RunnableLambda(made.append), "x", lambda raw: raw)

    with pytest.raises(BudgetExceeded, match="calls"):
        perform(three(), budget=Budget({"calls": 2}, {}))
    assert len(made) == 2


@pytest.mark.parametrize("failing", ["get", "put"])
def test_a_journal_that_fails_stops_the_run_before_more_is_paid(perform: Perform, failing: str) -> None:
    class Full(MemoryJournal):
        pass

    def fail(self: Any, *given: Any) -> Any:
        raise OSError("disk full")

    setattr(Full, failing, fail)
    made: list[str] = []

    def careful() -> Flow:
        for _ in range(3):
            with suppress(Exception):
                yield Call(RunnableLambda(made.append), "x", lambda raw: raw)

    with pytest.raises(JournalError, match="disk full"):
        perform(careful(), Full())
    assert len(made) == (0 if failing == "get" else 1)


def test_what_is_not_paid_is_done_again(perform: Perform) -> None:
    journal, made = MemoryJournal(), []
    for _ in range(2):
        perform(_one(lambda: made.append(1), {}, paid=False), journal)
    assert len(made) == 2


def test_what_is_not_paid_needs_no_budget(perform: Perform) -> None:
    assert perform(_one(lambda word: word, {"word": "a"}, paid=False), budget=Budget({"calls": 1}, {"calls": 1})) == "a"


@pytest.mark.parametrize(
    ("spent", "cap"),
    [({"calls": 3}, "calls"), ({"input": 6, "output": 4}, "tokens"), ({"seconds": 9.5}, "time"), ({"calls": 2}, None)],
)
def test_the_cap_that_is_reached_is_named(spent: Any, cap: str | None) -> None:
    assert exhausted({"calls": 3, "tokens": 10, "time": 9}, spent) == cap


def test_a_function_that_hangs_is_given_up_on(perform: Perform) -> None:
    released = threading.Event()
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        perform(_one(lambda: released.wait(60), {}, timeout=0.05))
    released.set()


def test_an_async_function_that_hangs_is_given_up_on(perform: Perform) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        perform(_one(hang, {}, timeout=0.05))


def test_a_time_out_of_the_functions_own_is_its_own(perform: Perform) -> None:
    def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        perform(_one(late, {}, timeout=60))


def test_memory_keeps_the_latest_only() -> None:
    journal = MemoryJournal(limit=2)
    for name in "abc":
        journal.put(name, "run", Reply(name, {}))
    assert [journal.get(name, "run") is not None for name in "abc"] == [False, True, True]


def test_two_journals_share_a_file_from_many_threads(tmp_path: Path) -> None:
    journals = [SqliteJournal(tmp_path / "j.sqlite") for _ in range(2)]
    threads = [
        threading.Thread(target=lambda i=i: journals[i % 2].put(str(i), "run", Reply(i, {"calls": 1})))
        for i in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [journals[0].get(str(i), "run") for i in range(40)] == [Reply(i, {"calls": 1}) for i in range(40)]
    for journal in journals:
        journal.close()


def test_the_time_waited_is_noted(perform: Perform) -> None:
    budget = Budget({}, {})
    perform(_one(RunnableLambda(lambda x: time.perf_counter())), budget=budget)
    assert budget.spent["seconds"] >= 0


def test_a_journal_that_looks_empty_is_used_all_the_same() -> None:
    class Counted(MemoryJournal):
        def __len__(self) -> int:
            return len(self._replies)

    journal = Counted()
    create_icrl(lambda: "x", lambda: 1.0, rounds=2, journal=journal).compile().invoke({"task": "?"})
    assert len(journal) == 2


def test_hearing_the_models_does_not_write_out_their_prompts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs must not grow with the history."""
    from langchain_core.callbacks import manager

    written: list[Any] = []
    monkeypatch.setattr(manager, "get_buffer_string", written.append)
    model = ScriptedModel(lambda: "x", usage={"input_tokens": 3, "output_tokens": 1, "total_tokens": 4})
    graph = create_icrl(model, lambda: 1.0, rounds=3).compile()
    assert graph.invoke({"task": "?"})["usage"]["input"] == 9
    assert asyncio.run(graph.ainvoke({"task": "?"}))["usage"]["input"] == 9
    assert not written


def _shared(prompt: str, part: Any, number: int) -> Flow:
    reply = yield Call(
        part, [{"role": "user", "content": prompt}], lambda raw: raw, {"seed": number}, shares_prompt=prompt
    )
    return reply.value


def test_of_calls_with_the_same_long_prompt_one_goes_ahead_of_the_others(perform: Perform) -> None:
    together = threading.Barrier(3, timeout=20)
    order: list[int] = []

    def answer(messages: Any, **kwargs: Any) -> str:
        order.append(len(order))
        if order[-1] > 0:
            together.wait()  # the others are asked side by side
        return "first" if len(order) == 1 else "other"

    def four() -> Flow:
        part: Any = RunnableLambda(answer)
        return (yield [_shared("x" * 5000, part, i) for i in range(4)])

    assert sorted(perform(four())) == ["first", "other", "other", "other"]


def test_where_the_one_ahead_fails_the_others_are_asked_all_the_same(perform: Perform) -> None:
    order: list[int] = []

    def answer(messages: Any, **kwargs: Any) -> str:
        order.append(len(order))
        if len(order) == 1:
            raise ValueError("no")
        return "other"

    def four() -> Flow:
        part: Any = RunnableLambda(answer)
        return (yield [_caught(_shared("x" * 5000, part, i)) for i in range(4)])

    assert sorted(perform(four())) == ["no", "other", "other", "other"]


def _caught(flow: Flow) -> Flow:
    try:
        return (yield from flow)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("prompts", [["short"] * 3, ["x" * 5000, "y" * 5000, "z" * 5000]], ids=["short", "different"])
def test_short_and_different_prompts_are_asked_with_side_by_side(perform: Perform, prompts: list[str]) -> None:
    together = threading.Barrier(3, timeout=20)

    def answer(messages: Any, **kwargs: Any) -> str:
        together.wait()
        return "answer"

    def three() -> Flow:
        part: Any = RunnableLambda(answer)
        return (yield [_shared(prompt, part, i) for i, prompt in enumerate(prompts)])

    assert perform(three()) == ["answer"] * 3


def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_takes_nobody_with_it() -> None:
    async def main() -> Any:
        driver, asked, go = Driver(MemoryJournal()), asyncio.Event(), asyncio.Event()

        async def answer(messages: Any, **kwargs: Any) -> str:
            asked.set()
            await go.wait()
            return "answer"

        part: Any = RunnableLambda(answer)

        def started(number: int) -> Any:
            flow = _shared("x" * 5000, part, number)
            return asyncio.ensure_future(driver.aperform(flow, (f"run {number}", "node", 0, 0), Budget({}, {})))

        first = started(0)
        await asked.wait()
        second, third = started(1), started(2)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        go.set()
        return await first, await third, second.cancelled()

    assert asyncio.run(main()) == ("answer", "answer", True)


def test_what_models_within_a_call_have_used_counts_although_the_call_fails(perform: Perform) -> None:
    usage: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    model = ScriptedModel(lambda: "said", usage=usage)

    def fails_after(prompt: Any) -> None:
        model.invoke("hello")
        raise ValueError("no")

    budget, meter = Budget({}, {}), Meter()
    with pytest.raises(ValueError, match="no"):
        perform(meter.read(_one(RunnableLambda(fails_after))), budget=budget)
    for spent in (budget.spent, meter.usage):
        assert (spent["calls"], spent["input"], spent["output"]) == (1, 10, 2)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_being_saved_is_saved_however_often_it_is_cancelled(times: int) -> None:
    """LangGraph cancels twice: when a sibling has failed, and when the run ends."""
    done: list[str] = []

    async def save(may_end: asyncio.Event) -> None:
        await may_end.wait()
        done.append("saved")

    async def run() -> None:
        may_end = asyncio.Event()
        saving = asyncio.create_task(uncancelled(save(may_end)))
        for _ in range(times):
            await asyncio.sleep(0)
            saving.cancel()
        await asyncio.sleep(0)
        assert not saving.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await saving

    asyncio.run(run())
    assert done == ["saved"]
