"""Game of 24: exact verification of an answer and of the steps that lead to it.

Arithmetic is done in fractions (`8 / (3 - 8 / 3)` is 24, which floating point denies), and a model's answer is parsed
into Python's syntax tree and walked, never evaluated. Only the four operations, parentheses and plain integers pass.
Anything else fails with a reason code; what can't be parsed is wrong, not skipped.

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

TARGET = 24

Reason = Literal[
    "correct",
    "no_expression",
    "too_long",
    "claims_other_value",
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
    "too_long": "The expression is too long to be an answer.",
    "claims_other_value": "The answer claims another value than 24, or more than one.",
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

_LONGEST_TEXT, _LONGEST_EXPRESSION, _MOST_NODES = 20_000, 200, 64

_SIGNS = str.maketrans(
    dict.fromkeys("×✕·⋅∙•∗⁎", "*")
    | dict.fromkeys("÷∕⁄", "/")
    | dict.fromkeys("−–—﹣－", "-")
    | dict.fromkeys("＋﹢", "+")
    | dict.fromkeys("\xa0\u2009\u202f", " ")
    | dict(zip("（［[）］]＝", "((()))=", strict=True))
)
_TAG = re.compile(r"(</?answer>)", re.I)
_LABELLED = re.compile(r"answer\W{0,4}[:：]\W{0,3}?[ \t*]*([^\n]+)", re.I)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")


def read_expression(text: str) -> str:
    """The expression that a response gives as its answer.

    It is read from the last `<answer>...</answer>`, if there is one, else from the whole text: after the last
    "Answer:", else in the last LaTeX box, else on the last line that is not empty.
    """
    text = text[-_LONGEST_TEXT:]
    text = _tagged(text)
    if labelled := _LABELLED.findall(text):
        return _plain(labelled[-1])
    if (at := text.rfind("\\boxed{")) >= 0:
        return _plain(_braced(text[at + len("\\boxed") :]))
    lines = [line for line in text.splitlines() if line.strip()]
    return _plain(lines[-1]) if lines else ""


def _tagged(text: str) -> str:
    """What stands between the last pair of tags; the whole text if there is none."""
    pieces, opened, found = _TAG.split(text), None, text
    for at, piece in enumerate(pieces):
        if piece.lower() == "<answer>" and opened is None:
            opened = at
        elif piece.lower() == "</answer>" and opened is not None:
            found, opened = "".join(pieces[opened + 1 : at]), None
    return found


def _braced(text: str) -> str:
    """The text between the first brace and its closing brace."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[1:i]
    return ""


def _plain(text: str) -> str:
    """LaTeX and typographic signs as plain ones."""
    text = re.sub(r"\\[()\[\]]|\$|\\(?:left|right|displaystyle)|\\[,;!:]", "", text)
    for command, sign in (("\\times", "*"), ("\\cdot", "*"), ("\\ast", "*"), ("\\div", "/")):
        text = text.replace(command, sign)
    for _ in range(4):
        text = _FRACTION.sub(r"((\1)/(\2))", text)
    return text.translate(_SIGNS).strip().strip("`*. ").strip()


def verify(text: Any, numbers: Sequence[int]) -> Verdict:
    """Check an answer.

    Args:
        text: the response, or an expression alone.
        numbers: the numbers that it must use, each exactly once.
    """
    if not isinstance(text, str):
        return Verdict("no_expression")
    answer = read_expression(text)
    sides = [side.strip() for side in answer.split("=")]
    expression = next((side for side in sides if side != str(TARGET)), sides[0])
    if len(sides) > 2 or (len(sides) == 2 and str(TARGET) not in sides):
        return Verdict("claims_other_value", expression=answer)
    expression = re.sub(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])", "*", expression)
    if not expression:
        return Verdict("no_expression")
    if len(expression) > _LONGEST_EXPRESSION:
        return Verdict("too_long", expression=expression[:_LONGEST_EXPRESSION])
    if not re.fullmatch(r"[0-9+\-*/() \t]+", expression):
        return Verdict("bad_characters", expression=expression)
    try:
        tree = ast.parse(re.sub(r"(?<!\d)0+(?=\d)", "", expression).strip(), mode="eval")
        used: list[int] = []
        value = _walk(tree.body, used)
    except ZeroDivisionError:
        return Verdict("division_by_zero", expression=expression)
    except _NotAllowed:
        return Verdict("not_allowed", expression=expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Verdict("syntax", expression=expression)
    if Counter(used) != Counter(numbers):
        return Verdict("wrong_numbers", value, expression)
    return Verdict("correct" if value == TARGET else "wrong_value", value, expression)


class _NotAllowed(Exception):
    pass


def _walk(node: ast.expr, used: list[int]) -> Fraction:
    if len(used) > _MOST_NODES:
        raise _NotAllowed
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp):
        left, right = _walk(node.left, used), _walk(node.right, used)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    raise _NotAllowed


# ----------------------------------------------------------------------------------------------------------- the steps

_RATIONAL = r"-?\d{1,9}(?:/\d{1,9})?"
_STEP = re.compile(
    rf"(?<![\d/.])({_RATIONAL})\s*([-+*/])\s*({_RATIONAL})\s*=\s*({_RATIONAL})\s*\( ?left ?:([^()\n]*)\)", re.I
)


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
    for match in islice(_STEP.finditer(text[-_LONGEST_TEXT:].translate(_SIGNS)), len(numbers) - 1):
        left = None if left is None else _after(match, left)
        steps.append(Step(match[0], None if left is None else tuple(sorted(left.elements()))))
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
        claimed = Counter(Fraction(number) for number in re.findall(_RATIONAL, match[5]))
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
