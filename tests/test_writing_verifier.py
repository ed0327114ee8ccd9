"""The check of the creative writing task's hard constraint: what it forgives, what it does not, and under attack."""

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icrl_graph.tasks.writing.texts import SENTENCES
from icrl_graph.tasks.writing.verifier import endings, plain, read_paragraphs

FOUR = ("It rained.", 'He said "no" to the captain\'s plan.', "The café - the old one - was shut.", "Who knew?")
BODIES = ("We had hoped for sun.", "Then we asked.", "So we walked on.", "The door was open at last.")


def _reward(response: str, sentences: Any = FOUR) -> Any:
    return endings(response, {"endings": list(sentences)})


def _passage(sentences: Any = FOUR, bodies: Any = BODIES) -> str:
    return "\n\n".join(f"{body} {sentence}" for body, sentence in zip(bodies, sentences, strict=True))


def test_four_paragraphs_that_end_right_earn_everything() -> None:
    assert _reward(_passage()) == {
        "value": 1.0,
        "metric": 1.0,
        "feedback": "Each paragraph ends with its sentence.",
    }


FORGIVEN = {
    "typographic quotes": ('"no" to the captain\'s', "“no” to the captain’s"),
    "typographic dashes": ("café - the old one - was", "café — the old one – was"),
    "dashes of two signs": ("café - the", "café -- the"),
    "case": ("It rained.", "it RAINED."),
    "a line break": ("It rained.", "It\n   rained."),
    "windows lines": ("\n", "\r\n"),
    "spaces on the empty line": ("\n\n", "\n \t\n"),
    "several empty lines": ("\n\n", "\n\n\n\n"),
    "space at the end": ("It rained.", "It rained.  "),
    "no-break spaces": ("It rained.", "It\u00a0rained."),
    "bold": ("It rained.", "**It rained.**"),
    "italics": ("Who knew?", "_Who knew?_"),
    "a heading": ("We had", "Paragraph 1: We had"),
    "a bold heading": ("We had", "**Paragraph 1:** We had"),
    "a heading on its own line": ("We had", "### Paragraph 1\nWe had"),
    "a heading between empty lines": ("Then we", "**Paragraph 2:**\n\nThen we"),
    "an indented heading between empty lines": ("Then we", "\tParagraph 2:\n\nThen we"),
    "a markdown heading between empty lines": ("Then we", "## Paragraph 2\n\nThen we"),
    "the sentence earlier, too": ("We had", "It rained. We had"),
    "a dash ahead": ("sun. It", "sun \N{EM DASH} it"),
}


@pytest.mark.parametrize("name", FORGIVEN)
def test_typography_is_ignored(name: str) -> None:
    old, new = FORGIVEN[name]
    changed = _passage().replace(old, new)
    assert changed != _passage()
    assert _reward(changed)["metric"] == 1.0


SPOILED = {
    "one word changed": ("It rained.", "It poured.", "Paragraph 1 does not end with its sentence."),
    "one word added": ("It rained.", "It rained hard.", "Paragraph 1 does not end with its sentence."),
    "no full stop": ("It rained.", "It rained", "Paragraph 1 does not end with its sentence."),
    "a stop too many": ("Who knew?", "Who knew?!", "Paragraph 4 goes on after its sentence."),
    "words behind it": ("Who knew?", "Who knew? We did.", "Paragraph 4 goes on after its sentence."),
    "a quote around it": ("Who knew?", "'Who knew?'", "Paragraph 4 goes on after its sentence."),
    "other quotes": ('"no"', "'no'", "Paragraph 2 does not end with its sentence."),
    "emphasis inside": ("It rained.", "It *rained*.", "Paragraph 1 does not end with its sentence."),
    "a word that ends alike": ("sun. It rained.", "sunit rained.", "Paragraph 1 does not end with its sentence."),
    "a zero-width space": ("It rained.", "It\u200b rained.", "Paragraph 1 does not end with its sentence."),
    "nothing but the sentence": (f"{BODIES[3]} ", "", "Paragraph 4 is nothing but its sentence."),
    "a number and the sentence": (f"{BODIES[3]} ", "4. ", "Paragraph 4 is nothing but its sentence."),
    "a heading and the sentence": (f"{BODIES[3]} ", "Paragraph 4: ", "Paragraph 4 is nothing but its sentence."),
    "a heading on its own line and the sentence": (
        f"{BODIES[3]} ",
        "## Paragraph 4\n",
        "Paragraph 4 is nothing but its sentence.",
    ),
    "the sentence twice": (f"{BODIES[3]} ", "Who knew? ", "Paragraph 4 is nothing but its sentence."),
}


@pytest.mark.parametrize("name", SPOILED)
def test_anything_else_is_not_and_the_feedback_names_the_one_paragraph_and_why(name: str) -> None:
    old, new, words = SPOILED[name]
    changed = _passage().replace(old, new)
    assert changed != _passage()
    assert _reward(changed) == {"value": 0.75, "metric": 0.0, "feedback": words}


@pytest.mark.parametrize(
    ("response", "value", "number"),
    [
        (_passage() + "\n\nI hope you like it.", 4 / 5, 5),
        ("Here it is:\n\n" + _passage(), 0.0, 5),
        (_passage().replace("\n\n", "\n\n---\n\n"), 1 / 7, 7),
        ("\n\n".join([_passage()] * 2), 1 / 2, 8),
        (_passage().rsplit("\n\n", 1)[0], 3 / 4, 3),
        (_passage().replace("\n\n", "\n"), 0.0, 1),
        ("", 0.0, 0),
        (" \n\t\n ", 0.0, 0),
        ("Paragraph 1:\n\nParagraph 2:", 0.0, 0),
    ],
)
def test_too_many_or_too_few_paragraphs_cost_their_share_and_are_in_the_feedback(
    response: str, value: float, number: int
) -> None:
    reward = _reward(response)
    assert (reward["value"], reward["metric"]) == (value, 0.0)
    assert reward["feedback"].startswith(
        f"The paragraphs, separated by empty lines, must be 4 in number, not {number}."
    )


def test_a_paragraph_that_is_missing_is_in_the_feedback() -> None:
    assert _reward(_passage().rsplit("\n\n", 1)[0])["feedback"].endswith("not 3. Paragraph 4 is missing.")


def test_the_right_sentences_in_another_order_are_wrong() -> None:
    assert _reward(_passage(FOUR[::-1]))["value"] == 0.0


def test_all_sentences_in_each_paragraph_pass_only_where_the_right_one_is_last() -> None:
    assert _reward("\n\n".join(["So. " + " ".join(FOUR)] * 4))["value"] == 0.25


def test_a_copy_of_the_sentences_alone_earns_nothing() -> None:
    assert _reward("\n\n".join(FOUR))["value"] == 0.0
    assert _reward("\n".join(FOUR))["value"] == 0.0


def test_one_sentence_may_be_asked_for_twice() -> None:
    assert _reward("I saw. It rained.\n\nI slept. It rained.", ["It rained."] * 2)["metric"] == 1.0


def test_only_a_heading_is_taken_off_and_only_in_front() -> None:
    assert read_paragraphs("Paragraph 1 of the law says so.") == ["paragraph 1 of the law says so."]
    assert read_paragraphs("See\nParagraph 1: here") == ["see paragraph 1: here"]


@pytest.mark.parametrize(
    "sentences",
    [None, "It rained.", b"It rained.", [], ["It rained.", ""], ["It rained.", " ** "], [1, 2], {"a": "b"}, 4],
)
def test_wrong_endings_are_an_error_that_says_what_they_must_be(sentences: Any) -> None:
    with pytest.raises(ValueError, match=r"task_data\['endings'\] must be a list .* got " + re.escape(repr(sentences))):
        endings("It rained.", {"endings": sentences})


def test_task_data_without_endings_is_an_error() -> None:
    with pytest.raises(ValueError, match="task_data"):
        endings("It rained.", {})


PATTERNS = ["a ", "-", "* _", "\n", "\n\n", "paragraph 1", "#*_ ", "It rained. ", "It rained.", "Who knew?\n\n", "“—"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_very_long_text_takes_a_time_linear_in_its_length(pattern: str) -> None:
    """A quadratic check would take minutes, if not hours, for these two million characters; a linear one a second."""
    start = time.perf_counter()
    assert _reward(pattern * (2_000_000 // len(pattern)))["metric"] == 0.0
    assert time.perf_counter() - start < 20


# ------------------------------------------------------------------------------------------------------------- laws

WORD = st.text("abcdefghijklmnopqrstuvwxyzäéß", min_size=1, max_size=9)
BODY = st.lists(st.lists(WORD, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=3).map(". ".join)
PAIRS = st.lists(st.tuples(BODY, st.sampled_from(SENTENCES)), min_size=1, max_size=6, unique_by=lambda pair: pair[1])


@given(PAIRS)
def test_any_paragraphs_with_the_right_endings_always_pass(pairs: Any) -> None:
    bodies, sentences = zip(*pairs, strict=True)
    assert _reward(_passage(sentences, [f"{body}." for body in bodies]), sentences)["metric"] == 1.0


@given(PAIRS, WORD, st.data())
def test_with_the_last_word_of_one_ending_changed_they_never_do(pairs: Any, word: str, data: Any) -> None:
    bodies, sentences = zip(*pairs, strict=True)
    at = data.draw(st.integers(0, len(pairs) - 1))
    before, last = sentences[at].rsplit(" ", 1)
    if plain(word) == plain(last[:-1]):
        word += "x"
    changed = [*sentences[:at], f"{before} {word}{last[-1]}", *sentences[at + 1 :]]
    reward = _reward(_passage(changed, [f"{body}." for body in bodies]), sentences)
    assert (reward["value"], reward["metric"]) == ((len(pairs) - 1) / len(pairs), 0.0)
    assert reward["feedback"].startswith(f"Paragraph {at + 1} ")


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from([*FOUR, *PATTERNS, "\r", "\u2028", "\ud800"])).map("".join)))
def test_no_text_breaks_the_check_and_the_value_is_1_only_where_the_metric_is(text: str) -> None:
    reward = _reward(text)
    assert 0.0 <= reward["value"] <= 1.0
    assert reward["metric"] == float(reward["value"] == 1.0)
    assert reward["feedback"]


@given(st.text())
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)
