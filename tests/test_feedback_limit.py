"""Long feedback: what a prompt shows of it, and what the limit costs."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from icrl_graph import Reward, create_icrl, create_reflexion, improve
from icrl_graph.prompts.feedback import SHORTEST, FeedbackLimits, shorten
from icrl_graph.prompts.layouts import LAYOUTS, Style, parse, render
from icrl_graph.state.episode import Episode, Plan
from icrl_graph.testing import ScriptedModel
from tests.helpers import play
from tests.test_prompt_plans import TAGS, answers, episodes

LONG = "error: first\n" + "at some line\n" * 200 + "assert 1 == 2"
MARK = "tokens left out ...]"


def _told(prompt: Any) -> list[str]:
    return [attempt.feedback for attempt in parse(prompt).attempts]


def _score(response: str) -> Reward:
    return Reward(value=0.5, feedback=f"{response}: {LONG}")


@given(st.text(max_size=400), st.integers(SHORTEST, 60))
def test_long_feedback_keeps_its_beginning_and_its_end_within_the_limit(text: str, tokens: int) -> None:
    short = shorten(text, tokens)
    assert len(short) <= 4 * tokens
    assert shorten(short, tokens) == short
    if len(text) <= 4 * tokens:
        assert short == text
    else:
        before, _, rest = short.partition("\n[... about ")
        after = rest.partition(f"{MARK}\n")[2]
        assert (before, after) == (text[: len(before)], text[len(text) - len(after) :])
        assert 0 <= len(before) - len(after) <= 1


@given(episodes(lengthened=40), answers, st.sampled_from([None, SHORTEST, 40]))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parse_undoes_render_of_shortened_feedback(
    layout: str, past: list[Episode], task: str, latest: int | None
) -> None:
    assume(not any(f"<{tag}>" in task for tag in TAGS))
    style = Style(feedback=FeedbackLimits(SHORTEST, latest))
    plan = Plan(shown=[[0, len(past)]], instruction="explore", left_out=0)
    given = [episode["shown"].get("feedback", "") for episode in past]
    expected = [shorten(text, SHORTEST) for text in given[:-1]]
    expected += [text if latest is None else shorten(text, latest) for text in given[-1:]]
    assert _told(render([], task, past, plan, style, LAYOUTS[layout])) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_newest_feedback_is_whole_and_earlier_feedback_is_cut_with_a_mark(layout: str) -> None:
    model = ScriptedModel(["a", "b", "c", "d"])
    result = improve("Say it.", _score, model=model, rounds=4, layout=layout, feedback_limit=50)
    first, second, third = _told(model.prompts[3])
    assert third == f"c: {LONG}"
    for cut, name in ((first, "a"), (second, "b")):
        assert len(cut) <= 200
        assert MARK in cut
        assert (cut.startswith(f"{name}: error: first"), cut.endswith("assert 1 == 2")) == (True, True)
    assert [episode["reward"]["feedback"] for episode in result.episodes] == [f"{name}: {LONG}" for name in "abcd"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_shown_whole_once_breaks_no_prompt_cache(layout: str) -> None:
    """All before the newest feedback comes again in the next prompt."""
    model = ScriptedModel(list("abcd"))
    result = improve("Say it.", _score, model=model, rounds=4, layout=layout, feedback_limit=50)
    assert "breaks" not in result.usage


def test_with_one_limit_for_all_a_prompt_begins_with_the_one_before() -> None:
    model = ScriptedModel(list("abcd"))
    limits: Any = {"feedback_limit": 50, "latest_feedback_limit": 50}
    improve("Say it.", _score, model=model, rounds=4, schedule="plain", **limits)
    assert model.prompts[3][: len(model.prompts[2])] == model.prompts[2]
    assert all(MARK in text for text in _told(model.prompts[3]))


def test_the_newest_feedback_may_have_a_larger_limit() -> None:
    model = ScriptedModel(list("abc"))
    improve("Say it.", _score, model=model, rounds=3, feedback_limit=20, latest_feedback_limit=100)
    assert [len(text) for text in _told(model.prompts[2])] == [80, 400]


def test_a_memory_of_tokens_counts_feedback_as_the_prompt_shows_it() -> None:
    def shown(**limits: Any) -> int:
        model = ScriptedModel(list("abcdef"))
        improve("Say it.", _score, model=model, rounds=6, memory="tokens:1000", **limits)
        return len(_told(model.prompts[5]))

    assert shown() < shown(feedback_limit=50) == 5


def test_a_reflection_is_written_with_the_newest_feedback_whole() -> None:
    model = ScriptedModel(["a", "why a", "b", "why b", "c"])
    graph = create_reflexion(model, _score, rounds=3, show_attempts=True, feedback_limit=20)
    play(graph, {"task": "Say it."})
    assert _told(model.prompts[3]) == [f"b: {LONG}"]
    assert [len(text) for text in _told(model.prompts[4])] == [80, len(f"b: {LONG}")]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"feedback_limit": 3}, "feedback_limit=3: Input should be greater than or equal to 16"),
        ({"latest_feedback_limit": 100}, "latest_feedback_limit=100 is for a feedback_limit .* which is None"),
        ({"feedback_limit": 50, "latest_feedback_limit": 20}, "latest_feedback_limit=20 is for .* which is 50"),
    ],
)
def test_limits_that_do_not_fit_are_refused_when_the_graph_is_built(limits: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_icrl(ScriptedModel(["a"]), _score, **limits)
