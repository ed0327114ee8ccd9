"""Competition mathematics: answers, how they are compared, and the benchmarks that are made of them."""

import itertools
import json
import math
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph import MissingExtra, chat_model, compare, improve
from icrl_graph.benchmarks import find_benchmark
from icrl_graph.benchmarks.mathematics import MATHEMATICS, judge_mathematics, math_benchmark
from icrl_graph.evaluators import mathematics
from icrl_graph.evaluators.mathematics import check_target, majority, verify
from icrl_graph.tasks.mathematics.answers import canonical, canonical_answer, rational, read_answer
from icrl_graph.tasks.mathematics.problems import PROBLEMS
from icrl_graph.testing import OpenAIServer, ScriptedModel

with_math_verify = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs the extra math")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>1</answer> no: <ANSWER>\n 2\n</Answer>", "2"),
        (r"\boxed{1}, rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{5} <answer>6</answer> \boxed{7}", "6"),
        (r"<answer>It is \boxed{8}</answer>", "8"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("<answer>1</answer> <answer>2", "1"),
        ("</answer>3<answer>", None),
        ("The answer is 204.", None),
        ("<answer> </answer>", None),
        (r"\boxed{}", None),
        (r"\{\boxed 7\}", None),
    ],
)
def test_the_answer_is_the_last_one_that_is_marked(response: str, answer: str | None) -> None:
    assert read_answer(response) == answer


@pytest.mark.parametrize("text", ["<answer>", r"\boxed{", "{", "\\", "}", r"\boxed{1}", "</answer>"])
def test_an_answer_is_looked_for_in_a_megabyte(text: str) -> None:
    read_answer(text * (2**20 // len(text)))


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "204",
            "0204",
            " 204. ",
            "$204$",
            r"\(204\)",
            "204.0",
            r"204^\circ",
            r"204^{\circ}",
            "204°",
            "x = 204",
            "２０４",
        ),
        *(r"204\text{ cm}", r"204\ \text{cm}^2", r"\frac{408}{2}", "408/2", "+204", r"\left 204"),
        *(r"\$204", r"\$204.", "**204**", "**204.**", "`204`"),
    ],
)
def test_a_number_is_read_however_it_is_written(answer: str) -> None:
    assert rational(answer) == 204


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("-3/4", Fraction(-3, 4)),
        (r"\dfrac{-3}{4}", Fraction(-3, 4)),
        (r"-\tfrac34", Fraction(-3, 4)),
        ("1,234", Fraction(1234)),
        ("1{,}234", Fraction(1234)),
        (r"1\,234", Fraction(1234)),
        ("-.5", Fraction(-1, 2)),
        ("1 234 567", Fraction(1234567)),
        (r"\frac 1 2", Fraction(1, 2)),
        *((several, None) for several in ("3 4", "12 34 56", "1 2345")),
        *((other, None) for other in ("1/0", "1,2", "(1,2)", "2^3", "204 or 205", "x", "", "1e3", "৪", "9" * 501)),
    ],
)
def test_what_is_no_number_is_none(answer: str, number: Fraction | None) -> None:
    assert rational(answer) == number


@given(st.fractions(min_value=-10_000, max_value=10_000))
def test_equal_numbers_have_one_canonical_form(number: Fraction) -> None:
    top, bottom = number.numerator, number.denominator
    ways = [f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}", f"{3 * top}/{3 * bottom}", f"$ {top} / {bottom} $"]
    assert {canonical(way) for way in ways} == {str(number)}


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("204", 204, 1),
        ("205", 204, 0),
        ("0.5000001", "1/2", 0),
        ("0.5", r"\frac12", 1),
        ("2", ["1", "2"], 1),
        ("3", ["1", "2"], 0),
        ("9" * 10**6, 5, 0),
        ("(" * 3000 + "5" + ")" * 3000, 5, 0),
    ],
)
def test_numbers_are_compared_exactly_and_without_a_worker(
    answer: str, target: Any, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mathematics, "_workers", lambda: pytest.fail("a worker was asked"))
    assert verify(f"<answer>{answer}</answer>", {"target": target})["value"] == value


def test_a_response_without_an_answer_is_not_right() -> None:
    assert verify("It is 204.", {"target": 204}) == {
        "value": 0.0,
        "feedback": r"There is no answer in <answer>...</answer> or \boxed{...}.",
    }


@pytest.mark.parametrize("target", [None, "", [], True, [None], {"a": 1}, [["1"]]])
def test_a_task_without_a_right_answer_is_a_fault_and_no_zero(target: Any) -> None:
    with pytest.raises(ValueError, match=r"task_data\['target'\] must be the right answer"):
        verify("<answer>1</answer>", {"target": target})


@with_math_verify
def test_formulas_are_compared_and_no_answer_hangs_the_run() -> None:
    told = [
        (r"1-\frac{2}{\pi}", r"\frac{\pi-2}{\pi}", 1),
        (r"14+4\sqrt{37}", r"4\sqrt{37} + 14", 1),
        (r"\{1,2\}", r"\{2,1\}", 1),
        ("5/2", "2 1/2", 1),
        ("21/2", "2 1/2", 0),
        ("34", "3 4", 0),
        ("204", "203 + 1", 1),
        ("204", "204 or 205", 0),
        (r"\sqrt{2}", "1.41421356", 0),
        (r"\sqrt{2}", r"\frac{", 0),
        ("(1,2)", "(2,1)", 0),
        ("5", "9^{9^{9^{9}}}", 0),  # is ended with its worker; the next one is compared by another
        (r"\sqrt{6}", r"\sqrt6", 1),
    ]
    found = [verify(f"<answer>{answer}</answer>", {"target": target})["value"] for target, answer, _ in told]
    assert found == [value for *_, value in told]


@with_math_verify
def test_a_right_answer_that_can_not_be_read_is_refused_when_its_task_is() -> None:
    check_target(r"9\sqrt{15}")
    with pytest.raises(ValueError, match="can't be read as a number or a formula"):
        check_target(r"\frac{4\pm4\sqrt3}{3}")


@with_math_verify
def test_a_worked_solution_is_no_right_answer_unless_it_has_a_box() -> None:
    solution = "Janet sells 16 - 3 = 13 duck eggs a day. She makes 13 * 2 = 26 dollars."
    check_target(rf"{solution} \boxed{{26}}")
    check_target(r"\text{none of these can be found}")
    for wrong in (f"{solution}\n#### 26", "x + " * 200 + "1"):
        with pytest.raises(ValueError, match="it has to be the answer alone, of 500 characters at most"):
            check_target(wrong)


def test_without_math_verify_problems_are_refused_before_anything_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "find_spec", lambda name: None)
    check_target.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install 'icrl-graph\[math\]'"):
        compare("math-demo", "icrl", model=ScriptedModel(["1"]), items=["divisible"], rounds=1)


# ---------------------------------------------------------------------------------------------------- the demo problems


def crt() -> int:
    return next(n for n in itertools.count(1) if (n % 5, n % 7, n % 9) == (2, 3, 4))


COUNTED = {
    "divisible": sum(n % 7 == 0 and n % 5 != 0 for n in range(1, 1001)),
    "power": pow(7, 2026, 1000),
    "letters": sum("BB" not in "".join(letters) for letters in itertools.product("AB", repeat=8)),
    "dice": sum(
        (
            chance := Fraction(sum(a < b < c for a, b, c in itertools.product(range(6), repeat=3)), 216)
        ).as_integer_ratio()
    ),
    "squares": sum(math.factorial(10) % n**2 == 0 for n in range(1, 2000)),
    "remainders": crt(),
    "digits": sum(map(int, str(2**100))),
    "powers": round(((3 + 5**0.5) / 2) ** 5 + ((3 - 5**0.5) / 2) ** 5),
    "rooks": sum(all(p[i] != i for i in range(4)) for p in itertools.permutations(range(4))),
    "triangle": Fraction(84, 21) * Fraction(13 * 14 * 15, 4 * 84),
}


def test_the_demo_problems_have_the_answers_that_a_count_gives() -> None:
    assert {name: rational(PROBLEMS[name][1]) for name in COUNTED} == COUNTED
    assert PROBLEMS.keys() - COUNTED.keys() == {"box", "root"}
    assert (2 * math.sqrt(14), (3 + math.sqrt(11)) ** 2) == pytest.approx(
        (math.sqrt(4 + 16 + 36), 6 * (3 + math.sqrt(11)) + 2)
    )


# ------------------------------------------------------------------------------------------------------------- rewards


def attempts(*answers: str) -> list[dict[str, Any]]:
    return [{"response": f"<answer>{answer}</answer>" if answer else "none"} for answer in answers]


@pytest.mark.parametrize(
    ("before", "answer", "reward"),
    [
        ([], "1", 1),
        (["1"], "2", 1 / 2),
        (["1", "2"], "1/1", 1),
        (["1", "1"], "2", 0),
        (["", ""], "2", 1),
        (["1"], "", 0),
        (["1", "2"], "3", 1 / 3),
    ],
)
def test_the_majority_so_far_is_the_reward(before: list[str], answer: str, reward: float) -> None:
    [attempt] = attempts(answer)
    assert majority(response=attempt["response"], history=attempts(*before)) == reward


def test_the_majority_is_a_reward_of_a_run_that_knows_no_right_answer() -> None:
    model = ScriptedModel([f"<answer>{answer}</answer>" for answer in "1213"])
    result = improve("Guess.", majority, model=model, rounds=4)
    assert (result.rewards, result.rewarded_by) == ([1, 0.5, 1, 0], "self-judged")


@with_math_verify
def test_the_papers_reward_is_p_yes_of_a_judge_that_sees_the_right_answer(tmp_path: Path) -> None:
    def judge(messages: list[dict[str, Any]]) -> dict[str, float]:
        assert r"A right answer is:" in messages[-1]["content"]
        return {"YES": 0.75, "NO": 0.25} if "close" in messages[-1]["content"] else {"YES": 0.1, "NO": 0.9}

    model = ScriptedModel([f"<answer>{text}</answer>" for text in ("7", "close", "114")])
    with OpenAIServer(judge) as server:
        evaluator = judge_mathematics(chat_model("openai:judge", base_url=server.base_url))
        inputs = find_benchmark("math-demo").inputs("divisible")
        result = improve(**inputs, score=evaluator, model=model, rounds=3)
    assert result.rewards == pytest.approx([0.1, 0.75, 1])
    assert [episode["reward"]["metric"] for episode in result.episodes] == [0, 0, 1]
    assert server.counts["calls"] == 2  # the very answer needs no judge


# ---------------------------------------------------------------------------------------------------------- benchmarks


def test_the_problems_of_competitions_are_named_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icrl_graph.benchmarks.datasets.ENDPOINT", "http://127.0.0.1:9")
    counts = {name: len(benchmark.items()) for name, benchmark in MATHEMATICS.items()}
    assert counts == {"aime": 30, "aime-2026": 30, "hmmt": 30, "hmmt-2026": 33, "math-demo": 12}


@with_math_verify
def test_problems_of_a_file_are_a_benchmark(here: Path) -> None:
    rows = [{"problem_idx": 3, "problem": "2 + 2?", "answer": 4}, {"problem_idx": 5, "problem": "?", "answer": r"\pm"}]
    Path("mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    benchmark = math_benchmark("mine.jsonl")
    assert benchmark.items() == ["3", "5"]
    assert benchmark.inputs("3")["task_data"] == {"target": 4}
    assert benchmark.inputs("3")["task"].startswith("2 + 2?\n")
    with pytest.raises(ValueError, match=r"the task '5' of .*: the right answer '\\\\pm' can't be read"):
        compare(benchmark, "icrl", model=ScriptedModel(["4"]), rounds=1)
    assert math_benchmark("mine.jsonl?task=problem,target=answer").items() == ["1", "2"]


@with_math_verify
def test_a_comparison_selects_by_the_majority_of_equal_answers(tmp_path: Path) -> None:
    answers = itertools.cycle([r"<answer>7</answer>", r"\boxed{114.0}", "I don't know.", "<answer>228/2</answer>"])
    comparison = compare(
        "math-demo", "best_of_n+select=majority+n=4", model=lambda: next(answers), items=["divisible"],
        concurrency=1, folder=tmp_path,
    )  # fmt: skip
    [row] = comparison.rows.values()
    assert (row["answer"], row["metric"]) == ("114", 1)
    assert canonical_answer("I don't know.") == ""
