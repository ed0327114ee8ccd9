"""Parts are known by what they are: an edited function is another one, a function that is defined again is the same."""

import asyncio
import json
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from icrl_graph import FunctionModel, aimprove, compare, improve
from icrl_graph.errors import ThreadMismatch
from icrl_graph.evaluators import bind_evaluator, isolated, llm_judge, reviewed
from icrl_graph.state.fingerprint import differ, fingerprint
from icrl_graph.testing import ScriptedModel
from tests.command_line import icrl


def _defined(source: str, name: str = "score") -> Any:
    """A function of a module of its own."""
    scope: dict[str, Any] = {"__name__": "mine"}
    exec(compile(source, "mine.py", "exec"), scope)
    return scope[name]


BEFORE = """
LIMIT = 5
def helper(text):
    return len(text) > LIMIT
class Parser:
    def read(self, text):
        return text.strip()
def score(response, weight=0.5):
    try:
        good = helper(Parser().read(response))
    except ValueError:
        return 0.0
    return weight * good + sum(x for x in [0.1])
"""
SAME = {
    "comments and blank lines": BEFORE.replace("    try:", "    # first\n\n    try:  # then"),
    "line breaks within an expression": BEFORE.replace(
        "weight * good + sum(x for x in [0.1])",
        "(\n        weight\n        * good\n        + sum(x for x in [0.1])\n    )",
    ),
    "a docstring": BEFORE.replace("weight=0.5):", 'weight=0.5):\n    """Score."""'),
    "another function of the module": BEFORE + "def other():\n    return 1\n",
    "an import": "import os\n" + BEFORE,
}
OTHER = {
    "a constant": BEFORE.replace("return 0.0", "return 0.1"),
    "a default": BEFORE.replace("weight=0.5", "weight=0.6"),
    "a helper": BEFORE.replace("len(text) >", "len(text) <"),
    "a method of a class": BEFORE.replace("text.strip()", "text"),
    "a global that it uses": BEFORE.replace("LIMIT = 5", "LIMIT = 6"),
    "a nested function": BEFORE.replace("x for x in", "x + 1 for x in"),
    "an exception that it catches": BEFORE.replace("except ValueError", "except KeyError"),
    "the name of an attribute": BEFORE.replace("Parser().read", "Parser().parse"),
    "what stands within the try": BEFORE.replace("    return weight", "    print()\n    return weight"),
}


@pytest.mark.parametrize("edit", SAME)
def test_an_edit_that_changes_no_code_changes_no_fingerprint(edit: str) -> None:
    assert SAME[edit] != BEFORE
    assert fingerprint(_defined(SAME[edit])) == fingerprint(_defined(BEFORE)) is not None


@pytest.mark.parametrize("edit", OTHER)
def test_an_edit_of_the_code_changes_the_fingerprint(edit: str) -> None:
    assert OTHER[edit] != BEFORE
    assert fingerprint(_defined(OTHER[edit])) != fingerprint(_defined(BEFORE))


INSIDE = "        b = float(r)\n"
TRIED = f"def score(r):\n    try:\n        a = int(r)\n{INSIDE}    except ValueError:\n        return 0\n    return b"


def test_what_a_try_covers_counts() -> None:
    inside, after = (
        _defined(TRIED),
        _defined(TRIED.replace(INSIDE, "").replace("return b", "b = float(r)\n    return b")),
    )
    assert fingerprint(inside) != fingerprint(after)


class Scorer:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, response: str) -> float:
        self.calls += 1
        return self.half(response)

    def half(self, response: str) -> float:
        return 0.5


@tool
def as_tool(response: str) -> float:
    """Score."""
    return 0.5


def _two(first: float, second: float) -> dict[str, tuple[Any, Any]]:
    """By form, two evaluators that differ in what they return."""

    def forms(value: float) -> dict[str, Any]:
        def closure(response: str) -> float:
            return value

        def flow(response: str) -> Any:
            yield []
            return value

        @cache
        def cached(response: str) -> float:
            return value

        return {
            "closure": closure,
            "lambda": lambda response: value,
            "flow": flow,
            "partial": partial(lambda number, response: number, value),
            "cached": cached,
            "Runnable": RunnableLambda(lambda given: value),
            "sequence": RunnableLambda(lambda given: given) | RunnableLambda(lambda given: value),
            "model": FunctionModel(reply=lambda: str(value)),
            "judge": bind_evaluator(llm_judge(lambda: f"Score: {value}", "Good?")).part,
            "reviewed": reviewed(closure).part,
        }

    one, other = forms(first), forms(second)
    return {name: (one[name], other[name]) for name in one}


@pytest.mark.parametrize("form", _two(1.0, 1.0))
def test_every_form_of_part_is_known_by_its_code(form: str) -> None:
    one, other = _two(0.25, 0.75)[form]
    same, _ = _two(0.25, 0.75)[form]
    assert fingerprint(one) == fingerprint(same) is not None
    assert fingerprint(one) != fingerprint(other)


def test_an_isolated_evaluator_is_known_by_the_code_of_the_one_that_it_isolates() -> None:
    kept = isolated(lambda response: 0.5, workers=1)
    assert fingerprint(kept.part) == fingerprint(lambda response: 0.5)


COUNTED = """
calls = 0
seen = []
def score(response):
    global calls
    calls += 1
    seen.append(calls)
    return calls
"""


def test_what_changes_while_a_program_runs_is_no_part_of_it() -> None:
    score, scorer = _defined(COUNTED), Scorer()
    before = fingerprint(score), fingerprint(scorer)
    score("a"), scorer("a")
    assert (fingerprint(score), fingerprint(scorer)) == before
    assert before[1] is not None


class Hostile:
    def __call__(self, response: str) -> float:
        return 0.5

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("not to be looked at")


def test_what_can_t_be_known_has_no_fingerprint_and_is_no_error() -> None:
    parts = [Hostile(), len, ScriptedModel(["a"]), None, object()]
    assert [fingerprint(part) for part in parts] == [None] * 5


def test_fingerprints_of_two_versions_of_python_are_not_compared() -> None:
    assert not differ("cpython-311:aa", "cpython-312:bb")
    assert differ("cpython-311:aa", "cpython-311:bb")


SCRIPT = """
import sys
from icrl_graph.state.fingerprint import fingerprint
WORDS = frozenset({"a", "b", "c", "d"})
def helper(text):
    return text in {"x", "y", "z"} or text in WORDS
def score(response, kind=("a", 1.5)):
    return [helper(each) for each in response]
print(fingerprint(score), fingerprint(lambda r: r in {"p", "q", "s"}), fingerprint(print) )
"""


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent)},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def _improve(is_async: bool, *arguments: Any, **options: Any) -> Any:
    return asyncio.run(aimprove(*arguments, **options)) if is_async else improve(*arguments, **options)


def _memory(past: Any) -> list[int]:
    return []


def _memory_of(kept: int) -> Any:
    def memory(past: Any) -> list[int]:
        return list(range(len(past)))[-kept:]

    return memory


OLD: dict[str, Any] = {"score": lambda r: 0.1, "model": lambda: "a", "rounds": 2}
EDITED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "evaluator": ({}, {"score": lambda r: 0.9}),
    "model": ({}, {"model": lambda: "b"}),
    "metric": ({"metric": lambda r: 0.1}, {"metric": lambda r: 0.2}),
    "memory": ({"memory": _memory_of(1)}, {"memory": _memory_of(2)}),
    "extract": ({"extract": lambda text: text}, {"extract": lambda text: text.upper()}),
    "system": ({"system": "Be brief."}, {"system": "Be long."}),
    "instructions": ({"instructions": {"explore": "A"}}, {"instructions": {"explore": "B"}}),
    "examples": ({}, {"examples": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}),
    "bounds": ({"bounds": (0, 1)}, {"bounds": (0, 2)}),
    "reflector": (
        {"topology": "reflexion", "reflector": lambda: "a"},
        {"topology": "reflexion", "reflector": lambda: "b"},
    ),
    "select": ({"topology": "best_of_n", "select": lambda r: 1}, {"topology": "best_of_n", "select": lambda r: 2}),
}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("part", EDITED)
def test_a_saved_result_is_not_given_for_an_edited_part(part: str, is_async: bool, tmp_path: Path) -> None:
    def options(changed: dict[str, Any]) -> dict[str, Any]:
        chosen = {**OLD, "path": tmp_path / "run.sqlite", **changed}
        if chosen.get("topology") == "best_of_n":
            chosen["n"] = chosen.pop("rounds")
        return {name.replace("lambda", ""): value for name, value in chosen.items()}

    before, after = (_named(options(each)) for each in EDITED[part])
    first = _improve(is_async, "t", **before)
    assert _improve(is_async, "t", **before).rewards == first.rewards
    with pytest.raises(ThreadMismatch, match=rf"{part} .*another thread_id or path"):
        _improve(is_async, "t", **after)


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """Evaluators that name what they are called with."""

    def bound(function: Any) -> Any:
        return lambda response: function(response)

    names = ("score", "metric", "select")
    return {name: bound(value) if name in names else value for name, value in options.items()}


def test_a_run_that_has_not_ended_is_resumed_with_an_edited_model_and_not_with_an_edited_evaluator(
    tmp_path: Path,
) -> None:
    replies = iter(["a"])

    def model() -> str:
        for reply in replies:
            return reply
        raise KeyboardInterrupt

    common: Any = {"rounds": 2, "path": tmp_path / "run.sqlite"}
    with pytest.raises(KeyboardInterrupt):
        improve("t", lambda response: 0.1, model=model, **common)
    with pytest.raises(ThreadMismatch, match="evaluator has been edited"):
        improve("t", lambda response: 0.2, model=model, **common)
    assert improve("t", lambda response: 0.1, model=lambda: "b", **common).stopped == "rounds"


def test_a_result_says_when_and_by_what_it_was_made(tmp_path: Path) -> None:
    result = improve("t", lambda response: 0.1, model=lambda: "a", rounds=1, path=tmp_path / "run.sqlite", system="Hi.")
    made = result.made
    assert made is not None
    assert made["at"][:2] == "20"
    assert {"evaluator", "model"} <= made["code"].keys() & made["parts"].keys()
    assert "system" in made["options"]


SCORE = "def score(response):\n    return float(len(response) > {length})\n"


def test_icrl_bench_notices_an_evaluator_that_was_mended(tmp_path: Path) -> None:
    evaluator = tmp_path / "own_score.py"
    evaluator.write_text(SCORE.format(length=5))
    (tmp_path / "tasks.jsonl").write_text('{"task": "a"}\n{"task": "b"}\n')
    (tmp_path / "own_model.py").write_text("def model(messages):\n    return 'four'\n")
    arguments = ["bench", str(tmp_path / "tasks.jsonl"), "--topologies", "icrl", "--rounds", "1"]
    arguments += ["--model", f"{tmp_path / 'own_model.py'}:model", "--evaluator", f"{evaluator}:score"]
    arguments += ["--out", str(tmp_path / "out")]
    assert icrl(*arguments).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert all(row["made"]["code"].keys() == {"evaluator", "model"} for row in rows)
    evaluator.write_text("# the same\n" + SCORE.format(length=5))
    assert icrl(*arguments).returncode == 0
    evaluator.write_text(SCORE.format(length=1))
    refused = icrl(*arguments)
    assert refused.returncode == 2
    assert "the evaluator was edited" in refused.stderr
    assert "icrl rejudge" in refused.stderr


def test_a_model_that_made_runs_fail_may_be_mended_and_the_rows_say_by_what_each_was_made(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"task": "a"}\n{"task": "b"}\n')

    def run(model: Any) -> Any:
        arguments: Any = {"model": model, "evaluator": lambda response: 0.5, "rounds": 1, "folder": tmp_path / "out"}
        return compare(tmp_path / "tasks.jsonl", "icrl", **arguments)

    def broken(messages: Any) -> str:
        return "x" if "a" in messages[0]["content"].partition("\n")[0] else 1 / 0  # type: ignore[return-value]

    def mended(messages: Any) -> str:
        return "x"

    mended.__qualname__ = broken.__qualname__
    assert len(run(broken).failures) == 1
    done = run(mended)
    assert done.failures == {}
    assert len({row["made"]["code"]["model"] for row in done.rows.values()}) == 2
    with pytest.raises(ThreadMismatch, match="the model was edited"):
        run(broken)


def test_compare_notices_an_edited_model_and_takes_one_that_is_defined_again(tmp_path: Path) -> None:
    def run(reply: str) -> Any:
        common: Any = {"model": lambda: reply, "limit": 1, "rounds": 1, "folder": tmp_path / "out"}
        return compare("hidden-color", "icrl", **common)

    run("#123"), run("#123")
    with pytest.raises(ThreadMismatch, match="the model was edited"):
        run("#456")
