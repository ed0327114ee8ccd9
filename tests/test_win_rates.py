"""Answers compared in pairs by a judge: win rates from the command line, and the answers exported for AlpacaEval."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from icrl_graph import compare
from icrl_graph.benchmarks.alpaca_eval import outputs
from icrl_graph.benchmarks.api import Comparison
from icrl_graph.benchmarks.plan import Again, Plan
from icrl_graph.benchmarks.win_rates import doubts
from tests.command_line import icrl

PARTS = '''
import hashlib, math, re

CALLS = []

def long(messages, rng):
    return f"{rng.random()} " + "word " * rng.randint(40, 240)

def short(messages, rng):
    rng.seed(rng.random() + 1)  # the methods share the seed of a run
    return f"{rng.random()} " + "word " * rng.randint(0, 160)

def silent(messages):
    return ""

def score(response):
    return 1.0

def chance(text):
    return (int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) + 0.5) / 16**12

def biased(messages):
    """Finds all equally good, and prefers the first and the longer one."""
    CALLS.append(messages)
    first, second = re.findall(r"<attempt>(.*?)</attempt>", messages[0]["content"], re.S)
    odds = 1.0 + 2.0 * math.tanh((len(first) - len(second)) / 300)
    return "A" if chance(first + "|" + second) < 1 / (1 + math.exp(-odds)) else "B"
'''
TASKS = 50


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods that are equally good, of which the first writes more."""
    folder = tmp_path_factory.mktemp("played")
    (folder / "parts.py").write_text(PARTS)
    (folder / "tasks.jsonl").write_text("\n".join(json.dumps({"task": f"Write {n}."}) for n in range(TASKS)))
    arms = ["icrl", f"best_of_n+n=1+model={folder}/parts.py:short"]
    parts: Any = {"model": f"{folder}/parts.py:long", "evaluator": f"{folder}/parts.py:score"}
    compare(folder / "tasks.jsonl", arms, **parts, rounds=1, folder=folder / "runs")
    return folder


@pytest.fixture(scope="module")
def judged(played: Path) -> tuple[Path, Any]:
    out = played / "wins"
    done = icrl(*_command(played), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def _command(played: Path, judge: str = "biased", **options: str) -> list[str]:
    given = {"judge": f"{played}/parts.py:{judge}", "rubric": "Is it good?", **options}
    return [
        "win-rates",
        str(played / "runs"),
        *(word for name, value in given.items() for word in (f"--{name}", value)),
    ]


def test_biases_of_position_and_length_are_gone_within_the_interval(judged: Any) -> None:
    (rate,) = judged[1]
    assert rate["length"] > rate["other_length"] + 200 or rate["other_length"] > rate["length"] + 200
    assert rate["rate"]["high"] < 0.5  # it writes less
    assert rate["controlled"]["low"] < 0.5 < rate["controlled"]["high"]
    assert 0.2 < rate["turned"] < 0.8


def test_the_same_command_again_pays_nothing_and_resume_prints_the_same(played: Path, judged: Any) -> None:
    out, rates = judged
    before = (out / "results.jsonl").read_bytes()
    assert json.loads(icrl(*_command(played), "--out", str(out), "--json").stdout) == rates
    resumed = icrl("resume", str(out))
    assert resumed.returncode == 0, resumed.stderr
    assert "Win rates against icrl, judged by parts.py:biased" in resumed.stdout
    assert "1 less a rate is that of icrl" in " ".join(resumed.stdout.split())
    assert (out / "results.jsonl").read_bytes() == before


def test_each_pair_costs_two_calls_and_no_answer_is_paid_again(judged: Any) -> None:
    comparison = Comparison.read(judged[0])
    assert {row["episodes"][0]["costs"]["rejudge"]["calls"] for row in comparison.rows.values()} == {2}
    assert len(comparison.rows) == TASKS
    assert comparison.spent["calls"] == 2 * TASKS
    assert f"Spent: {2 * TASKS} calls" in repr(comparison)
    assert comparison.win_rates == judged[1]
    assert "Win rates against icrl" in repr(comparison)


def test_the_other_arms_rate_is_the_rest(played: Path, judged: Any) -> None:
    against = f"best_of_n+n=1+model={played}/parts.py:short"
    done = icrl(*_command(played, against=against), "--out", str(played / "other"), "--json")
    (rate,), (first,) = json.loads(done.stdout), judged[1]
    assert rate["arm"] == "icrl"
    assert rate["rate"]["mean"] == pytest.approx(1 - first["rate"]["mean"], abs=1e-5)
    assert rate["controlled"]["mean"] == pytest.approx(1 - first["controlled"]["mean"], abs=1e-5)


def test_a_preview_writes_nothing(played: Path) -> None:
    done = icrl(*_command(played), "--out", str(played / "none"), "--preview")
    assert done.stdout.startswith(f"About {2 * TASKS} calls")
    assert not (played / "none").exists()


def test_what_has_no_answer_loses_without_a_question(played: Path) -> None:
    arms = ["icrl", f"best_of_n+n=1+model={played}/parts.py:silent"]
    parts: Any = {"model": f"{played}/parts.py:long", "evaluator": f"{played}/parts.py:score"}
    silent = compare(played / "tasks.jsonl", arms, **parts, rounds=1, limit=3, folder=played / "silent")
    command = _command(played)
    command[1] = str(silent.folder)
    done = icrl(*command, "--out", str(played / "silent-wins"), "--json")
    (rate,) = json.loads(done.stdout)
    assert (rate["rate"]["mean"], rate["rate"]["unscored"], rate["turned"], rate["length"]) == (0.0, 0, None, None)
    assert Comparison.read(played / "silent-wins").usage.get("calls", 0) == silent.usage["calls"] / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"against": "reflexion"}, "no arm 'reflexion' is in this comparison; choose one of icrl, best_of_n"),
        ({"against": "chess"}, "unknown topology 'chess'"),
        ({"rubric": ""}, "has no rubric of its own: give one, by which the judge compares answers"),
        ({"judge": "judge"}, "a model is named 'provider:name', such as 'openai:gpt-4.1-mini', got 'judge'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_paid(played: Path, change: Any, message: str) -> None:
    done = icrl(*_command(played), *(word for name, value in change.items() for word in (f"--{name}", value)),
                "--out", str(played / "none"))  # fmt: skip
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (played / "none").exists()


def test_a_report_of_win_rates_is_refused_with_the_command_that_prints_them(judged: Any) -> None:
    done = icrl("report", str(judged[0]))
    assert done.returncode == 2
    assert f"icrl resume {judged[0]} prints them" in " ".join(done.stderr.split())


def test_a_judge_that_has_rewarded_or_written_is_named() -> None:
    again = cast(Again, {"judge": "openai:a", "against": "icrl"})
    plan = Plan("writing", ["icrl", "best_of_n+model=openai:a"], "openai:b", again=again)
    assert [line.partition(":")[2].partition(".")[0] for line in doubts(plan)] == [
        "a has also written answers: a model may prefer its own"
    ]
    apart = replace(plan, arms=["icrl", "best_of_n"], judge="openai:c")
    assert doubts(apart) == []
    assert "has also given the rewards" in doubts(replace(apart, judge="openai:a"))[0]


# ----------------------------------------------------------------------------------------------------------- AlpacaEval


def test_answers_are_exported_in_the_form_of_alpaca_eval(played: Path, tmp_path: Path) -> None:
    done = icrl("export", str(played / "runs"), "--out", str(tmp_path / "outputs"), "--json")
    files = [json.loads(Path(path).read_text()) for path in json.loads(done.stdout)]
    assert [Path(path).name for path in json.loads(done.stdout)] == [
        "icrl.json",
        "best_of_n+n=1+model=parts.py_short.json",
    ]
    rows = Comparison.read(played / "runs").rows
    for outputs_ in files:
        assert [each.keys() for each in outputs_] == [{"instruction", "output", "generator"}] * TASKS
        assert [each["instruction"] for each in outputs_] == [f"Write {n}." for n in range(TASKS)]
    assert {each["output"] for each in files[0]} == {row["answer"] for cell, row in rows.items() if cell.arm == "icrl"}


def test_a_task_that_not_all_methods_have_done_is_left_out_and_a_missing_answer_is_empty(played: Path) -> None:
    comparison = Comparison.read(played / "runs")
    rows = dict(comparison.rows)
    gone, silent = [cell for cell in rows if cell.arm == "icrl"][:2]
    del rows[gone]
    rows[silent] = {**rows[silent], "answer": None}
    made = outputs(comparison.plan, rows)
    assert [len(answers) for answers in made.values()] == [TASKS - 1] * 2
    assert [each["output"] for each in made["icrl"]].count("") == 1
    with pytest.raises(ValueError, match="no task has been done by all methods"):
        outputs(comparison.plan, {})
