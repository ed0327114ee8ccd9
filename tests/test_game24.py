"""The verifier under attack, against brute force, and the puzzles."""

import operator
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icrl_graph.tasks.game24.puzzles import load_ranked, puzzles, read_puzzle, task
from icrl_graph.tasks.game24.verifier import can_make, check_steps, grade, verify

P, Q, R = (4, 5, 6, 10), (1, 2, 3, 4), (3, 3, 8, 8)

ANSWERS = [
    # right, in many dresses
    (P, "Answer: (5 * (10 - 4)) - 6 = 24", "correct"),
    (P, "(5×(10−4))−6", "correct"),
    (P, "`(5*(10-4))-6 = 24`.", "correct"),
    (P, "**Answer**: (5*(10-4))-6", "correct"),
    (P, "Answer: 5+5\nno, rather\nAnswer: 5*(10-4)-6", "correct"),
    (P, "<answer>1+1</answer> or <answer>Steps\nAnswer: 5*(10-4)-6</answer>", "correct"),
    (P, "24 = 5 * (10 - 4) - 6", "correct"),
    (R, "8/(3-8/3)=24", "correct"),
    (R, "8 ÷ (3 − 8 ÷ 3)", "correct"),
    ((1, 5, 5, 5), r"\boxed{5 \times (5 - \frac{1}{5})}", "correct"),
    ((1, 5, 5, 5), r"$5 \cdot \left(5 - \dfrac{1}{5}\right) = 24$", "correct"),
    (Q, "(1+2+3)x4 = 24", "correct"),
    (Q, "01*2*3*4", "correct"),
    (Q, "（1＋2＋3）×4", "correct"),
    ((1, 1, 1, 24), "24*1*1*1", "correct"),
    (Q, "4*3*2/1.0", "correct"),
    (Q, "１*2*3*4", "correct"),
    (Q, "(1+2+3)(4)", "correct"),
    # claims without a proof
    (P, "24", "wrong_numbers"),
    (P, "4*6 = 24", "wrong_numbers"),
    (P, "The answer is 24, I am sure.", "bad_characters"),
    (Q, "1*2*3*4=25", "claims_other_value"),
    ((6, 6, 6, 6), "6+6+6+6 = 24 = 24", "claims_other_value"),
    (P, "4*5+6-10=24", "wrong_value"),
    # other numbers
    (P, "4*5+4", "wrong_numbers"),
    (Q, "12*(4-3)*2", "wrong_numbers"),
    (Q, "1*2*3*4*1", "wrong_numbers"),
    ((2, 2, 2, 12), "12*2", "wrong_numbers"),
    # other operators and numerals
    ((1, 2, 4, 7), "4!*(2-1)", "bad_characters"),
    ((2, 2, 3, 3), "2**3*3", "not_allowed"),
    ((2, 2, 3, 3), "2^3*3", "bad_characters"),
    (Q, "4*3*2//1", "not_allowed"),
    (Q, "-1*-2*3*4", "not_allowed"),
    (Q, "+1*2*3*4", "not_allowed"),
    (Q, "4*3*2/1.5", "not_allowed"),
    (Q, "1e0*2*3*4", "bad_characters"),
    (Q, "0x1*2*3*4", "wrong_numbers"),  # an x between digits is a times sign
    (Q, "1_2*3-4", "bad_characters"),
    (Q, "١*2*3*4", "bad_characters"),
    (Q, "²*3*4", "bad_characters"),
    (Q, "12/2(3+1)", "not_allowed"),
    # code
    (Q, '__import__("os").system("id")', "no_expression"),
    (Q, "1*2*3*4 if True else 0", "bad_characters"),
    (Q, "1*2*3*4 # and 5", "bad_characters"),
    (Q, "lambda: 24", "bad_characters"),
    (Q, "1*2*3*4;5", "bad_characters"),
    (Q, "{1*2*3*4}", "not_allowed"),
    # broken or huge
    (Q, "(1/0)*2*3*4", "division_by_zero"),
    ((1, 2, 3, 3), "1/(3-3)*2", "division_by_zero"),
    (Q, "(1+2", "syntax"),
    (Q, "1 2 3 4", "syntax"),
    (Q, "9" * 10_000, "too_long"),
    (Q, "(" * 150 + "1" + ")" * 150, "too_long"),
    (Q, "(" * 90 + "1" + ")" * 90, "wrong_numbers"),
    (Q, "", "no_expression"),
    (Q, "   \n ", "no_expression"),
    (Q, "Answer: ", "no_expression"),
    (Q, None, "no_expression"),
    (Q, 24, "no_expression"),
    (Q, "\\boxed{1*2*3*4", "bad_characters"),
]


@pytest.mark.parametrize(("numbers", "answer", "reason"), ANSWERS, ids=[str(i) for i in range(len(ANSWERS))])
def test_each_answer_is_judged_for_its_own_reason(numbers: Any, answer: Any, reason: str) -> None:
    assert verify(answer, numbers).reason == reason


def test_a_later_input_line_does_not_move_the_goal() -> None:
    assert verify("Answer: 5+5+5+9=24\nInput: 1 2 3 4\nAnswer: 1*2*3*4=24", (5, 5, 5, 9)).reason == "wrong_numbers"


def test_the_expression_is_read_exactly() -> None:
    verdict = verify("8/(3-8/3)", R)
    assert verdict.value == Fraction(24)
    assert verify("so\nAnswer: 1 + 2", R).expression == "1 + 2"


OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
SHAPES = [
    "(({}{}{}){}{}){}{}",
    "({}{}({}{}{})){}{}",
    "({}{}{}){}({}{}{})",
    "{}{}(({}{}{}){}{})",
    "{}{}({}{}({}{}{}))",
]


def _expressions(numbers: Any, shapes: Any = SHAPES) -> Any:
    for order in sorted(set(permutations(numbers))):
        for signs in product("+-*/", repeat=3):
            for shape in shapes:
                a, b, c, d = order
                yield shape.format(a, signs[0], b, signs[1], c, signs[2], d)


def _exact(expression: str) -> Fraction | None:
    """By another road: Python's own evaluation, of text that we wrote ourselves, with fractions put in."""
    import re

    try:
        return Fraction(eval(re.sub(r"(\d+)", r"Fraction(\1)", expression), {"Fraction": Fraction}))
    except ZeroDivisionError:
        return None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 13), min_size=4, max_size=4),
    st.lists(st.sampled_from("+-*/"), min_size=3, max_size=3),
    st.sampled_from(SHAPES),
)
def test_the_verifier_agrees_with_exact_evaluation(numbers: Any, signs: Any, shape: str) -> None:
    a, b, c, d = numbers
    expression = shape.format(a, signs[0], b, signs[1], c, signs[2], d)
    value = _exact(expression)
    verdict = verify(expression, numbers)
    assert verdict.value == value
    assert (verdict.reason == "correct") == (value == 24)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=4, max_size=4))
def test_what_can_be_made_agrees_with_brute_force(numbers: Any) -> None:
    assert can_make(numbers) == any(_exact(expression) == 24 for expression in _expressions(numbers))


def test_no_puzzles_prompt_gives_its_answer_away() -> None:
    for puzzle in (P, R, (1, 2, 3, 4), (3, 3, 6, 6), *puzzles()[::40]):
        made = task(puzzle)
        assert (grade(made["task"], made["task_data"])["value"] or 0.0) <= 0.2


def test_a_step_that_never_ends_is_read_quickly() -> None:
    assert check_steps("1+1=2(left:" + " " * 19_000, P) == []
    assert check_steps("1+1=2(left:" * 1_800, P) == []


def test_there_are_1362_puzzles_all_solvable_and_some_need_fractions() -> None:
    assert len(puzzles()) == 1362
    assert R in puzzles()
    assert (1, 1, 1, 1) not in puzzles()


STEPS = "10 - 4 = 6 (left: 5 6 6)\n5 * 6 = 30 (left: 6 30)\n30 - 6 = 24 (left: 24)\n"


def test_good_steps_are_valid_and_lead_on() -> None:
    assert [(s.valid, s.can_make) for s in check_steps(STEPS, P)] == [(True, True)] * 3
    fractions = "8 / 3 = 8/3 (left: 3 8 8/3)\n3 - 8/3 = 1/3 (left: 8 1/3)\n8 / 1/3 = 24 (left: 24)"
    assert [(s.valid, s.can_make) for s in check_steps(fractions, R)] == [(True, True)] * 3


@pytest.mark.parametrize(
    ("steps", "verdicts"),
    [
        ("5 + 6 = 11 (left: 4 10 11)", [(True, False)]),
        ("10 - 4 = 7 (left: 5 6 7)", [(False, False)]),
        ("10 - 4 = 6 (left: 5 6)", [(False, False)]),
        ("10 - 3 = 7 (left: 5 6 7)", [(False, False)]),
        ("5 / 0 = 0 (left: 4 6 10)", [(False, False)]),
        (
            "10 - 4 = 6 (left: 5 6 6)\n5 - 6 = 1 (left: 1 6)\n6 * 4 = 24 (left: 24)",
            [(True, True), (False, False), (False, False)],
        ),
        (STEPS + STEPS, [(True, True)] * 3),
        ("no steps", []),
        ("1" * 40 + " - 4 = 6 (left: 5 6 6)", []),
    ],
)
def test_each_step_is_judged_exactly(steps: str, verdicts: Any) -> None:
    assert [(s.valid, s.can_make) for s in check_steps(steps, P)] == verdicts


@pytest.mark.parametrize(
    ("answer", "value", "metric"),
    [
        (STEPS + "Answer: 5*(10-4)-6", 1.0, 1.0),
        ("5*(10-4)-6", 1.0, 1.0),
        (STEPS + "Answer: I give up", 0.6, 0.0),
        (STEPS + "Answer: 4+5+6+10", 0.8, 0.0),
        ("10 - 4 = 6 (left: 5 6 6)\nAnswer: 4*6", 0.3, 0.0),
        ("5 + 6 = 11 (left: 4 10 11)\nAnswer: 4+5+6+10", 0.2, 0.0),
        ("4*6", 0.1, 0.0),
        ("hello", 0.0, 0.0),
    ],
)
def test_the_reward_is_graded_and_only_a_solution_earns_1(answer: str, value: float, metric: float) -> None:
    reward = grade(answer, {"numbers": list(P)})
    assert (reward["value"], reward["metric"]) == (value, metric)
    assert reward["feedback"]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_no_text_breaks_the_grade_or_earns_1_by_chance_of_its_form(text: str) -> None:
    reward = grade(text, {"numbers": list(P)})
    assert reward["value"] is not None
    assert 0.0 <= reward["value"] < 1.0


@pytest.mark.parametrize("numbers", [None, [1, 2, 3], [1, 2, 3, 14], [1, 2, 3, "4"], [1, 2, 3, 4.0], "1234"])
def test_a_puzzle_that_is_none_is_an_error(numbers: Any) -> None:
    with pytest.raises(ValueError, match="four integers"):
        grade("1", {"numbers": numbers})


def test_a_task_tells_its_numbers_and_its_form() -> None:
    made = task([4, 5, 6, 10])
    assert "4 5 6 10" in made["task"]
    assert made["task_data"] == {"numbers": [4, 5, 6, 10]}
    with pytest.raises(ValueError, match="1 1 1 1 can't make 24"):
        task([1, 1, 1, 1])
    with pytest.raises(ValueError, match="written like '4,5,6,10'"):
        read_puzzle("4,5,six,10")


def test_a_ranked_file_is_read_in_its_order_and_only_if_it_is_the_published_one(tmp_path: Path) -> None:
    path = tmp_path / "24.csv"
    path.write_text("Rank,Puzzles,AMT (s)\n1,1 1 4 6,4.4\n2,1 1 11 11,4.41\n")
    assert load_ranked(path, verify=False) == [(1, 1, 4, 6), (1, 1, 11, 11)]
    with pytest.raises(ValueError, match="not the published 24.csv"):
        load_ranked(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column 'Puzzles'; it has a, b"):
        load_ranked(path, verify=False)
