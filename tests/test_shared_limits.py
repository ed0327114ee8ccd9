"""Limits that several processes share: each of them here has a ledger of its own, in one database."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.errors import GraphDrained

from icrl_graph.errors import JournalError
from icrl_graph.execution.shared_limits import Ledger, SharedBucket, SharedTotal


@pytest.fixture
def ledgers(postgres: str) -> Iterator[Callable[[], Ledger]]:
    """Makes the ledger of another process."""
    made: list[Ledger] = []

    def make() -> Ledger:
        made.append(Ledger(postgres, "comparison"))
        return made[-1]

    make().open({})
    yield make
    for ledger in made:
        ledger.close()


def total_of(ledger: Ledger, holder: str, share: float = 0.1, **caps: float) -> SharedTotal:
    ledger.admit(holder)
    return SharedTotal(caps, ledger, holder, share)


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
    totals = [total_of(ledgers(), f"worker {number}", share=0.1, calls=1000) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(spend, totals))
    assert sum(made) == 1000
    assert all(total.reached == "calls" for total in totals)


def test_the_ledger_is_asked_seldom_while_much_is_left(ledgers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledgers()
    asked: list[Any] = []
    take = ledger.take

    def counted(*arguments: Any) -> float:
        asked.append(arguments)
        return float(take(*arguments))

    monkeypatch.setattr(ledger, "take", counted)
    assert spend(total_of(ledger, "worker", share=0.25, calls=10_000)) == 10_000
    assert len(asked) < 50


def test_what_a_worker_has_not_used_is_given_back(ledgers: Any) -> None:
    first = total_of(ledgers(), "first", share=0.5, calls=100)
    first.admit()
    ledgers().settle("first", first.spent)
    assert spend(total_of(ledgers(), "second", share=0.5, calls=100)) == 99


def test_a_total_of_dollars_is_passed_by_no_more_than_the_calls_in_flight(ledgers: Any) -> None:
    totals = [total_of(ledgers(), f"worker {number}", share=0.1, usd=10.0) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = sum(pool.map(lambda total: spend(total, usd=0.03), totals))
    assert 10.0 - 0.03 < 0.03 * made < 10.0 + 4 * 0.03 + 1e-9


def test_what_earlier_sessions_have_spent_counts(ledgers: Any) -> None:
    ledgers().open({"calls": 7})
    assert spend(total_of(ledgers(), "worker", share=0.5, calls=10)) == 3
    assert ledgers().rest({"calls": 10}) == {"calls": 0}


def test_a_reply_without_a_price_ends_a_total_of_dollars_for_all(ledgers: Any) -> None:
    one = total_of(ledgers(), "one", share=0.1, usd=10.0)
    one.admit()
    one.add({"unpriced": 1})
    with pytest.raises(GraphDrained):
        one.admit()
    assert spend(total_of(ledgers(), "other", share=0.1, usd=10.0)) == 0


def test_who_is_not_admitted_any_more_makes_no_call(ledgers: Any) -> None:
    for name, *given in (("revoke", "it"), ("revoke_all",), ("open", {})):
        ledger = ledgers()
        total = total_of(ledger, "it", calls=10)
        assert ledger.is_admitted("it")
        getattr(ledgers(), name)(*given)
        assert not ledger.is_admitted("it")
        assert spend(total) == 0


def test_what_one_has_taken_that_died_counts_until_it_is_counted_anew(ledgers: Any) -> None:
    total_of(ledgers(), "dead", share=0.5, calls=100).admit()
    ledgers().revoke("dead")
    assert ledgers().rest({"calls": 100}) == {"calls": 50}
    ledgers().open({"calls": 1})
    assert spend(total_of(ledgers(), "other", calls=100)) == 99


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
    ledger.admit("it")
    with ThreadPoolExecutor(1) as pool:
        postgres_server.stop()
        waiting = pool.submit(ledger.is_admitted, "it")
        postgres_server.start()
        assert waiting.result()


def test_a_database_that_stays_out_of_reach_ends_what_takes_of_it_as_a_run_that_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("icrl_graph.execution.shared_limits.PATIENCE", 0.0)
    with pytest.raises(JournalError, match="the database can't be used"):
        Ledger("postgresql://127.0.0.1:1/x", "comparison").admit("a")
