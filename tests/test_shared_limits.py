"""Limits that several processes share: each of them here has a ledger of its own, in one database."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.errors import GraphDrained

from icrl_graph.execution.shared_limits import Ledger, SharedBucket, SharedTotal


@pytest.fixture
def ledgers(postgres: str) -> Iterator[Callable[[], Ledger]]:
    """Makes the ledger of another process."""
    made: list[Ledger] = []

    def make(session: str = "session") -> Ledger:
        made.append(Ledger(postgres, "comparison", session))
        return made[-1]

    make().open({})
    yield make
    for ledger in made:
        ledger.close()


def spend(total: SharedTotal, usd: float = 0.0) -> int:
    """Make calls until one is refused; returns how many were made."""
    made = 0
    while True:
        try:
            total.admit()
        except GraphDrained:
            return made
        total.add({"usd": usd})
        made += 1


def test_workers_that_spend_side_by_side_make_as_many_calls_as_the_total_has(ledgers: Any) -> None:
    totals = [SharedTotal({"calls": 1000}, ledgers(), f"worker {number}", share=0.1) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(spend, totals))
    assert sum(made) == 1000
    assert all(total.reached == "calls" for total in totals)


def test_the_ledger_is_asked_seldom_while_much_is_left(ledgers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledgers()
    asked: list[Any] = []
    take = ledger.take
    monkeypatch.setattr(ledger, "take", lambda *arguments: asked.append(arguments) or take(*arguments))
    assert spend(SharedTotal({"calls": 10_000}, ledger, "worker", share=0.25)) == 10_000
    assert len(asked) < 50


def test_what_a_worker_has_not_used_is_given_back(ledgers: Any) -> None:
    first = SharedTotal({"calls": 100}, ledgers(), "first", share=0.5)
    first.admit()
    ledgers().settle("first", first.spent)
    assert spend(SharedTotal({"calls": 100}, ledgers(), "second", share=0.5)) == 99


def test_a_total_of_dollars_is_passed_by_no_more_than_the_calls_in_flight(ledgers: Any) -> None:
    totals = [SharedTotal({"usd": 10.0}, ledgers(), f"worker {number}", share=0.1) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = sum(pool.map(lambda total: spend(total, usd=0.03), totals))
    assert 10.0 - 0.03 < 0.03 * made < 10.0 + 4 * 0.03 + 1e-9


def test_what_earlier_sessions_have_spent_counts(ledgers: Any) -> None:
    ledgers().open({"calls": 7})
    assert spend(SharedTotal({"calls": 10}, ledgers(), "worker", share=0.5)) == 3
    assert ledgers().rest({"calls": 10}) == {"calls": 0}


def test_a_reply_without_a_price_ends_a_total_of_dollars_for_all(ledgers: Any) -> None:
    one = SharedTotal({"usd": 10.0}, ledgers(), "one", share=0.1)
    one.admit()
    one.add({"unpriced": 1})
    with pytest.raises(GraphDrained):
        one.admit()
    assert spend(SharedTotal({"usd": 10.0}, ledgers(), "other", share=0.1)) == 0


def test_a_session_ends_when_a_later_one_begins(ledgers: Any) -> None:
    earlier, later = ledgers("earlier"), ledgers("later")
    earlier.open({})
    assert earlier.is_open()
    later.open({})
    assert (earlier.is_open(), later.is_open()) == (False, True)
    later.end()
    assert not later.is_open()


def test_requests_of_all_processes_are_spread_evenly(ledgers: Any) -> None:
    """The turns that 3 buckets give out, by the clock: 20 a second, hardly any lost."""
    buckets = [SharedBucket(1200, ledgers(), "requests") for _ in range(3)]
    turns = sorted(buckets[number % 3].take(1) + time.monotonic() for number in range(300))
    in_a_second = [sum(begin <= turn < begin + 1 for turn in turns) for begin in turns]
    assert max(in_a_second) <= 21
    assert turns[-1] - turns[0] < 300 / 20 * 1.2


def test_tokens_that_one_process_has_used_delay_the_others(ledgers: Any) -> None:
    one, other = SharedBucket(600, ledgers(), "tokens"), SharedBucket(600, ledgers(), "tokens")
    assert (one.take(0), other.take(0)) == pytest.approx((0, 0), abs=0.5)
    one.take(100)  # ten seconds' worth
    one.take(0)  # the next call says so
    other.take(1)  # what it had taken of the line before
    assert 9 < other.take(0) < 11


def test_a_database_that_is_restarted_is_waited_for(ledgers: Any, postgres_server: Any) -> None:
    ledger = ledgers()
    assert ledger.is_open()
    with ThreadPoolExecutor(1) as pool:
        postgres_server.stop()
        waiting = pool.submit(ledger.is_open)
        postgres_server.start()
        assert waiting.result()
