"""How answers to Game of 24 are read: taken in any usual form, and none passes that is not right, clear and its own."""

import pytest

from icrl_graph.tasks.game24.verifier import check_steps, grade, verify
from tests.game24_answers import FORMS, HOSTILE, HOSTILE_OF_OTHERS, NUMBERS, OTHER_NUMBERS


def _passes(answer: str, numbers: tuple[int, ...] = NUMBERS) -> bool:
    return verify(answer, numbers).reason == "correct"


def test_a_right_answer_is_taken_in_any_usual_form() -> None:
    assert [form for form, answer in FORMS.items() if not _passes(answer, OTHER_NUMBERS.get(form, NUMBERS))] == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_hostile_answer_passes(kind: str) -> None:
    assert [answer[:80] for answer in HOSTILE[kind] if _passes(answer)] == []


def test_no_hostile_answer_to_another_puzzle_passes() -> None:
    assert [answer for answer, numbers in HOSTILE_OF_OTHERS if _passes(answer, numbers)] == []


def test_a_wrong_answer_is_refused_in_every_form() -> None:
    """None of them makes 24 once the 10 in it is an 11."""
    wrong = {form: answer.replace("10", "11").replace("１０", "１１") for form, answer in FORMS.items()}
    others = {form: answer for form, answer in wrong.items() if form not in OTHER_NUMBERS}
    assert [form for form, answer in others.items() if _passes(answer) or _passes(answer, (4, 5, 6, 11))] == []


STEPS = [
    "10 - 4 = 6 (left: 5 6 6)",
    "10 − 4 = 6 （left：5, 6, 6）",
    "**10 - 4 = 6** (left: 5 6 6)",
    "`10 - 4 = 6` (left: 5 6 6)",
    "Step 1: 10 - 4 = 6 (Left: 5, 6, and 6)",
    "- 10-4=6 [left: 5 6 6]",
    "10 - 4 = 6, left: 5 6 6",
    "10 - 4 = 6 → left: 5, 6, 6.",
    "10 - 4 = 6\n(left: 5 6 6)",
    "$10 - 4 = 6$ (left: 5 6 6)",
    "10.0 - 4.0 = 6.0 (left: 5.0 6.0 6.0)",
    "10 - 4 = 6 (remaining: 5 6 6)",
    "10 - 4 = 6 (numbers left: 5, 6, 6)",
    "(10) - (4) = 6 (left: [5, 6, 6])",
    "１０－４＝６ (left: ５ ６ ６)",
    "10 &minus; 4 = 6 (剩余: 5 6 6)",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_right_step_is_taken_in_any_usual_form_and_a_wrong_one_in_none(step: str) -> None:
    assert [(read.valid, read.can_make) for read in check_steps(step, NUMBERS)] == [(True, True)]
    for wrong in (step.replace("4", "3").replace("４", "３"), step.replace("5", "7").replace("５", "７")):
        assert not any(read.valid for read in check_steps(wrong, NUMBERS))


def test_fractions_of_latex_are_read_in_steps() -> None:
    steps = (
        "8 \\div 3 = \\frac{8}{3} (left: 3 8 \\frac{8}{3})\n"
        "3 - \\frac{8}{3} = \\frac13 (left: 8 \\frac13)\n"
        "8 ÷ (1/3) = 24 (left: 24)"
    )
    assert [read.can_make for read in check_steps(steps, (3, 3, 8, 8))] == [True] * 3


@pytest.mark.parametrize(
    ("response", "feedback"),
    [
        ("Answer: 4*5+10-6\nAnswer: 4+5+6+10", "It is not clear which of several expressions is the answer."),
        ("It is not true that 4*5+10-6 = 24.", "A word such as 'not' or 'wrong' stands beside the expression."),
        ("Answer: I give up.", "There is no expression in the answer."),
        ("Answer: -(-4)*5+10-6", "The expression may use + - * / between the given numbers only."),
        ("Answer: 4*5+10-6 = 25", "The answer claims another value than 24, or more than one."),
    ],
)
def test_the_feedback_says_why_an_answer_was_not_taken(response: str, feedback: str) -> None:
    assert grade(response, {"numbers": list(NUMBERS)})["feedback"] == feedback
