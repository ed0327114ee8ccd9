"""How people read numbers, intervals and costs."""

import pytest

from icrl_graph.state.formatting import between, chance, cost, number, plus_minus, score, share, shorten, signed


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (number, None, "–"),
        (number, 0.12345, "0.123"),
        (number, 12345.6, "12,346"),
        (share, 0.054, ".05"),
        (share, 1.0, "1.00"),
        (share, None, "–"),
        (score, 0.5, ".50"),
        (score, -0.5, "-0.50"),
        (score, 1.0, "1"),
        (score, 12.3456, "12.3"),
        (score, None, "–"),
        (signed, 0.25, "+0.25"),
        (signed, None, "–"),
        (chance, 0.03125, "0.0312"),
        (chance, 0.00001, "< 0.0001"),
        (chance, None, "–"),
    ],
)
def test_a_number_is_short_and_a_missing_one_is_a_dash(write, value, text) -> None:  # type: ignore[no-untyped-def]
    assert write(value) == text


def test_an_interval_stands_after_its_mean_where_there_is_one() -> None:
    assert between({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.5 [0.25 0.75]"
    assert between({"mean": 0.5, "low": 0.25, "high": 0.75}, score) == ".50 [.25 .75]"
    assert between({"mean": 0.5, "low": None, "high": None}) == "0.5"
    assert plus_minus(".50", {"low": 0.25, "high": 0.75}) == ".50 ±.25"
    assert plus_minus(".50", {"low": None, "high": None}) == ".50"


def test_a_cost_names_what_is_known_of_it() -> None:
    assert cost({}) == "0 calls"
    assert cost({"calls": 1200, "input": 1000, "output": 234}) == "1,200 calls, 1,234 tokens"
    spent = {"calls": 3, "input": 20, "output": 5, "cached": 16, "usd": 0.0123, "unpriced": 1, "breaks": 2}
    assert cost(spent) == (
        "3 calls, 25 tokens (16 cached), 0.0123 USD, 1 replies without a price, 2 prompt cache breaks"
    )
    assert cost({"calls": 3, "usd": 1234.5}) == "3 calls, 1,234.50 USD"


def test_a_text_is_shortened_to_one_line() -> None:
    assert shorten("a\n b") == "a b"
    assert shorten("x" * 100, 10) == "xxxxxxx..."
    assert shorten({"a": 1}) == "{'a': 1}"
