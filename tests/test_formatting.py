"""How people read numbers, intervals and costs."""

import pytest

from icrl_graph.state.formatting import (
    between,
    chance,
    cost,
    file_names,
    number,
    plus_minus,
    score,
    share,
    shorten,
    signed,
)


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
        (signed, -0.0714, "-0.07"),
        (signed, 0.0004, "+0.0004"),
        (signed, 0.0, "+0.00"),
        (signed, -12.345, "-12.3"),
        (signed, 2345.6, "+2,346"),
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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("icrl+memory=/my/parts.py:mine", "icrl+memory=parts.py:mine"),
        ("/my/questions.csv?task=question,target=answer", "questions.csv?task=question,target=answer"),
        ("game24@/my/24.csv", "game24@24.csv"),
        ("/opt/python@3.11/parts.py:mine", "parts.py:mine"),
        ("openai:Qwen/Qwen3-32B", "openai:Qwen/Qwen3-32B"),
    ],
)
def test_a_file_name_stands_in_place_of_a_path(name: str, shown: str) -> None:
    assert file_names(name) == shown
