import pytest

from icrl_graph.prompts.templates import INSTRUCTIONS, fill


def test_fill_replaces_each_placeholder_once_and_leaves_braces_in_values() -> None:
    assert fill("{a} and {b}", a="{b}", b="{a}") == "{b} and {a}"


@pytest.mark.parametrize("values", [{}, {"a": 1, "b": 2}, {"b": 1}])
def test_fill_wants_exactly_the_declared_values(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="placeholders"):
        fill("{a}", **values)


def test_plain_adds_nothing_to_the_task() -> None:
    assert INSTRUCTIONS["plain"] == ""
