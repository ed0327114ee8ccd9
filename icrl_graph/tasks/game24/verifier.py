"""Game of 24: exact verification of an answer and of the steps that lead to it.

Arithmetic is done in fractions (`8 / (3 - 8 / 3)` is 24, which floating point denies). An answer is looked for in all
usual forms (`icrl_graph.tasks.game24.answer`); the expression that is meant is parsed into Python's syntax tree and
walked, never evaluated. Only the four operations, brackets and integers pass; anything else fails with a reason code.

The steps `a op b = c (left: ...)` are those of Tree of Thoughts (arXiv 2305.10601). `can_make` says exactly whether 24
can still be reached from what a step leaves: the noise-free form of the paper's sure / likely / impossible judge.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, islice
from typing import Any, Literal, NamedTuple

from icrl_graph.state.reward import Reward
from icrl_graph.tasks.game24.answer import Row, Said, read_rows, tidied

TARGET = 24

Reason = Literal[
    "correct",
    "no_expression",
    "several_answers",
    "too_long",
    "claims_other_value",
    "denied",
    "bad_characters",
    "not_allowed",
    "syntax",
    "division_by_zero",
    "wrong_numbers",
    "wrong_value",
]

_WORDS: Mapping[Reason, str] = {
    "correct": "Correct.",
    "no_expression": "There is no expression in the answer.",
    "several_answers": "It is not clear which of several expressions is the answer.",
    "too_long": "The expression is too long to be an answer.",
    "claims_other_value": "The answer claims another value than 24, or more than one.",
    "denied": "A word such as 'not' or 'wrong' stands beside the expression.",
    "bad_characters": "The expression may hold integers, + - * / and parentheses only.",
    "not_allowed": "The expression may use + - * / between the given numbers only.",
    "syntax": "The expression can't be read.",
    "division_by_zero": "The expression divides by zero.",
    "wrong_numbers": "The expression must use each of the given numbers exactly once and no other.",
    "wrong_value": "The expression does not make 24.",
}


class Verdict(NamedTuple):
    """The result of checking an answer."""

    reason: Reason
    value: Fraction | None = None
    """The expression's value, where it has one."""
    expression: str = ""
    """The expression as it was read."""


# ---------------------------------------------------------------------------------------------------------- the answer

_LONGEST_EXPRESSION, _MOST_NODES = 200, 64


def verify(text: Any, numbers: Sequence[int]) -> Verdict:
    """Check an answer.

    It is taken in whatever form it stands, where it is clear which expression is meant: either the response marks one
    as its answer ("Answer:", a box of LaTeX, `<answer>`, a last line with nothing else on it), or it has only one that
    uses the numbers. What it says to be wrong, or to make another number, is not its answer. A sign in front of a
    number or a bracket, as in `-(-4)`, is no operation of the game: each has a number on both sides.

    Args:
        text: the response, or an expression alone.
        numbers: the numbers that it must use, each exactly once.
    """
    if not isinstance(text, str):
        return Verdict("no_expression")
    said, wanted = read_rows(text, numbers), sorted(map(str, numbers))
    if not said.rows:
        return Verdict("no_expression")
    checked = [
        _checked(row, wanted)
        for row in said.rows
        if row.is_marked or row is said.rows[-1] or wanted in map(_digits, row.sides)
    ]
    pool = _where_it_answers(checked, said)
    # Of one expression that stands there twice, the worse verdict counts.
    fitting = sorted((each for each in pool if each.tree), key=lambda each: each.verdict.reason != "correct")
    found = {each.tree: each.verdict for each in fitting}
    if len(found) > 1:
        return Verdict("several_answers")
    return found.popitem()[1] if found else pool[-1].verdict if pool else Verdict("no_expression")


class _Checked(NamedTuple):
    """A row of a response, checked."""

    row: Row
    verdict: Verdict
    tree: str
    """The structure of its expression; "" if it does not use the given numbers, or can't be read."""

    @property
    def is_meant(self) -> bool:
        """Whether it is an expression of which the response does not say that it is none for 24."""
        return self.row.is_expression and self.verdict.reason not in ("claims_other_value", "denied")


def _where_it_answers(checked: Sequence[_Checked], said: Said) -> Sequence[_Checked]:
    """The rows among which the answer is; where none of them uses the numbers, the last one is what is told about."""
    marked = [each for each in checked if each.row.is_marked]
    if answers := [each for each in marked if each.is_meant]:
        last = [each for each in answers if each.row.marks == answers[-1].row.marks]
        return answers if any(each.tree for each in last) else last
    if said.marks and not (marked and all(each.row.sides == ("24",) for each in marked)):
        return [each for each in checked if each.row.marks == said.marks]
    last_row = checked[-1]
    if said.ends_with_row:
        return [each for each in checked if each.is_meant] if last_row.tree and last_row.is_meant else checked
    unread = last_row._replace(verdict=Verdict("bad_characters"), tree="")
    return [*checked, unread]


def _checked(row: Row, wanted: list[str]) -> _Checked:
    expression = next((side for side in row.sides if _digits(side) == wanted), row.expression)
    claims = list(row.sides)
    claims.remove(expression)
    try:
        if not row.is_plain:
            raise _Fault("bad_characters")
        node, value, used = _read(expression)
        claimed = list(map(_number, claims))
    except _Fault as fault:
        return _Checked(row, Verdict(fault.reason, expression=expression[:_LONGEST_EXPRESSION]), "")
    fits = sorted(map(str, used)) == wanted
    reason: Reason = "wrong_numbers" if not fits else "correct" if value == TARGET else "wrong_value"
    if any(number != TARGET for number in claimed) or claims.count(str(TARGET)) > 1:
        reason = "claims_other_value"
    elif fits and row.is_denied:
        reason = "denied"
    shown = None if reason in ("claims_other_value", "denied") else value
    return _Checked(row, Verdict(reason, shown, expression), ast.dump(node) if fits else "")


def _number(claim: str) -> Fraction:
    """The number that is claimed: a decimal one, or that of an expression."""
    is_decimal = len(claim) <= _LONGEST_EXPRESSION and re.fullmatch(r"[0-9]+\.[0-9]+", claim)
    return Fraction(claim) if is_decimal else _read(claim)[1]


def _digits(side: str) -> list[str]:
    return sorted(number.lstrip("0") for number in re.findall("[0-9]+", side))


class _Fault(Exception):
    def __init__(self, reason: Reason) -> None:
        self.reason: Reason = reason


def _read(expression: str) -> tuple[ast.expr, Fraction, list[int]]:
    """An expression as it is built, its value, and its numbers.

    Raises:
        _Fault: it has none; says why.
    """
    if len(expression) > _LONGEST_EXPRESSION:
        raise _Fault("too_long")
    used: list[int] = []
    try:
        node = ast.parse(re.sub(r"(?<![0-9])0+(?=[0-9])", "", expression).strip(), mode="eval").body
        if isinstance(node, ast.List | ast.Set):  # as Python means it: no bracket within an expression
            raise _Fault("not_allowed")
        return node, _walk(node, used), used
    except ZeroDivisionError:
        raise _Fault("division_by_zero") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Fault("syntax") from None


def _walk(node: ast.expr, used: list[int]) -> Fraction:
    if len(used) > _MOST_NODES:
        raise _Fault("not_allowed")
    match node:
        case ast.Constant(value=int(number)):
            used.append(number)
            return Fraction(number)
        case ast.List(elts=[inner]) | ast.Set(elts=[inner]):
            return _walk(inner, used)
        case ast.Call(func=left, args=[right], keywords=[]) | ast.Subscript(value=left, slice=right):  # 4(5 + 1)
            return _walk(left, used) * _walk(right, used)
        case ast.BinOp(op=ast.Div(), right=ast.Call() | ast.Subscript()):  # 8/2(3 + 1): which comes first?
            raise _Fault("not_allowed")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _walk(left, used) + _walk(right, used)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _walk(left, used) - _walk(right, used)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _walk(left, used) * _walk(right, used)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _walk(left, used) / _walk(right, used)
    raise _Fault("not_allowed")


# ----------------------------------------------------------------------------------------------------------- the steps

_RATIONAL = r"-?[0-9]{1,9}(?:/[0-9]{1,9})?"
_LEFT = r"(?:(?:left|remaining)(?: numbers)?|numbers (?:left|remaining)|剩余|剩下)(?: are| is)? ?[:=]? ?"
_STEP = re.compile(
    rf"(?<![0-9/.])({_RATIONAL})\s?([-+*/])\s?({_RATIONAL})\s?=\s?({_RATIONAL})[-–—→*,;.\s]{{0,4}}(?:"
    rf"\( ?{_LEFT}([^()\n]*)\)|\[ ?{_LEFT}([^\[\]\n]*)\]|{_LEFT}({_RATIONAL}(?:,? {_RATIONAL}){{0,3}})[*. ]{{0,4}}$)",
    re.I | re.M,
)
_ALONE_IN_BRACKETS = re.compile(rf"\( ?({_RATIONAL}) ?\)")


class Step(NamedTuple):
    """One step, read."""

    text: str
    left: tuple[Fraction, ...] | None
    """The numbers left after it, ascending. None if its arithmetic or its list of what is left is wrong, or if an
    earlier step is wrong."""


def read_steps(text: str, numbers: Sequence[int]) -> list[Step]:
    """The steps of a response, in order; at most one per number but the last."""
    left: Counter[Fraction] | None = Counter(map(Fraction, numbers))
    steps: list[Step] = []
    plain = tidied(text).replace("`", "")
    for _ in range(2):  # a fraction of LaTeX is ((1)/(3)) by now
        plain = _ALONE_IN_BRACKETS.sub(r"\1", plain)
    for match in islice(_STEP.finditer(plain), len(numbers) - 1):
        left = None if left is None else _after(match, left)
        steps.append(Step(match[0].strip(), None if left is None else tuple(sorted(left.elements()))))
    return steps


class StepVerdict(NamedTuple):
    """One step, checked."""

    text: str
    valid: bool
    """Whether its arithmetic and its list of what is left are right."""
    can_make: bool
    """Whether 24 can still be made of what is left. False where the step, or an earlier one, is not valid."""


def check_steps(text: str, numbers: Sequence[int]) -> list[StepVerdict]:
    """Check the steps of a response, in order; at most one per number but the last."""
    return [
        StepVerdict(step.text, step.left is not None, step.left is not None and can_make(step.left))
        for step in read_steps(text, numbers)
    ]


def _after(match: re.Match[str], left: Counter[Fraction]) -> Counter[Fraction] | None:
    """What is left after a step, or None if the step is wrong."""
    try:
        a, b, c = Fraction(match[1]), Fraction(match[3]), Fraction(match[4])
        claimed = Counter(Fraction(number) for number in re.findall(_RATIONAL, match[5] or match[6] or match[7] or ""))
        result = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[match[2]]()
    except ZeroDivisionError:
        return None
    used = Counter([a, b])
    after = left - used + Counter([c])
    return after if not used - left and result == c and claimed == after else None


def can_make(numbers: Iterable[Fraction | int], target: int = TARGET) -> bool:
    """Whether all of the numbers (at most four) make the target with the four operations; exact."""
    ordered = tuple(sorted(map(Fraction, numbers)))
    if len(ordered) > 4:
        raise ValueError(f"at most four numbers, got {len(ordered)}")
    return _can_make(ordered, Fraction(target))


@cache
def _can_make(numbers: tuple[Fraction, ...], target: Fraction) -> bool:
    if len(numbers) < 2:
        return numbers == (target,)
    for some, others in _splits(numbers):
        reachable = _values(others)
        for a in _values(some):
            partners = {target - a, a - target, target + a}
            if a:
                partners |= {target / a, target * a}
            if a and target:
                partners.add(a / target)
            if partners & reachable or (not a and not target):
                return True
    return False


@cache
def _values(numbers: tuple[Fraction, ...]) -> frozenset[Fraction]:
    """All values that the numbers can make, each number used once."""
    if len(numbers) == 1:
        return frozenset(numbers)
    made = set()
    for some, others in _splits(numbers):
        for a in _values(some):
            for b in _values(others):
                made |= {a + b, a - b, b - a, a * b}
                if b:
                    made.add(a / b)
                if a:
                    made.add(b / a)
    return frozenset(made)


def _splits(numbers: tuple[Fraction, ...]) -> set[tuple[tuple[Fraction, ...], tuple[Fraction, ...]]]:
    """All ways to split the numbers into two groups, the smaller first."""
    places = range(len(numbers))
    parted = set()
    for size in range(1, len(numbers) // 2 + 1):
        for chosen in combinations(places, size):
            rest = tuple(numbers[i] for i in places if i not in chosen)
            parted.add((tuple(numbers[i] for i in chosen), rest))
    return parted


# ----------------------------------------------------------------------------------------------------------- rewards


def read_numbers(task_data: Mapping[str, Any]) -> tuple[int, ...]:
    """The four numbers of a task.

    Raises:
        ValueError: they are not four integers from 1 to 13.
    """
    numbers = task_data.get("numbers")
    if (
        isinstance(numbers, Sequence)
        and len(numbers) == 4
        and all(type(number) is int and 1 <= number <= 13 for number in numbers)
    ):
        return tuple(numbers)
    raise ValueError(f"task_data['numbers'] must be four integers from 1 to 13, got {numbers!r}")


def grade(response: str, task_data: Mapping[str, Any]) -> Reward:
    """The evaluator: 1 if solved, else a partial reward below 1; the metric is 1.0 if solved, else 0.0.

    The partial reward: 0.1 for an expression that can be read, another 0.1 if it uses the right numbers, and 0.2 for
    each valid step in a row after which 24 can still be made. Of each step: 1.0 if it is valid and 24 can still be made
    of what it leaves, else 0.0.
    """
    numbers = read_numbers(task_data)
    verdict = verify(response, numbers)
    solved = verdict.reason == "correct"
    steps = check_steps(response, numbers)
    good = next((i for i, step in enumerate(steps) if not step.can_make), len(steps))
    form = 0.0 if verdict.value is None else 0.1 if verdict.reason == "wrong_numbers" else 0.2
    words = _WORDS[verdict.reason]
    if not solved and good < len(steps):
        fault = "leaves numbers that can't make 24" if steps[good].valid else "is not right"
        words += f" The step '{steps[good].text}' {fault}."
    return Reward(
        value=1.0 if solved else round(form + 0.2 * good, 1),
        metric=float(solved),
        steps=[float(step.can_make) for step in steps],
        feedback=words,
    )
