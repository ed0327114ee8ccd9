"""`icrl reproduce`: every table over HTTP with a scripted policy, at tiny sizes; what it says, caps, and refuses."""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest

from icrl_graph.benchmarks import reproduce
from icrl_graph.benchmarks.arms import read_arm
from icrl_graph.benchmarks.datasets import kept_at
from icrl_graph.benchmarks.plan import read_plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.reproduction import Reproduction, Request, arm_of
from icrl_graph.benchmarks.reproduction.formats import latex_text
from icrl_graph.benchmarks.reproduction.presets import TABLES
from icrl_graph.tasks.game24 import puzzles
from icrl_graph.testing import OpenAIServer
from tests.bench_child import player
from tests.command_line import icrl

NEEDS = {
    **dict.fromkeys(("scienceworld", "orbit-scienceworld"), shutil.which("java")),
    "math": find_spec("math_verify"),
    "abstracts": find_spec("rouge_score"),
}


def policy(messages: list[dict[str, Any]], rng: Random) -> Any:
    """Plays all tables: answers, actions, verdicts."""
    prompt = "\n\n".join(str(message["content"]) for message in messages)
    rng, judge = Random(f"{prompt}{rng.random()}"), Random(prompt)  # judges are sent no seed
    if "one word on a last line: sure" in prompt:
        return judge.choice(["sure", "impossible"])
    if prompt.startswith("Judge the answer"):
        return f"Read it.\nScore: {judge.randint(1, 10)}"
    if prompt.startswith("Compare the two answers"):
        return judge.choice("AB")
    if "A right answer is:" in prompt:
        return {"YES": 0.3, "NO": 0.7}
    if "school science" in prompt and "Say in a few sentences" not in messages[-1]["content"]:
        return "I think.\nAction: focus on agent"
    if "<answer>42</answer>" in prompt:
        return f"<answer>{rng.choice(['4', '5'])}</answer>"
    return player(messages, rng) or f"A fox jumps {rng.randint(1, 9)} times over the dogs of the paper."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(policy) as started:
        monkeypatch.setenv("OPENAI_BASE_URL", started.base_url)
        yield started


@pytest.fixture
def competitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems of our own in place of those of the hub."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [{"problem_idx": n, "problem": f"2 + {n}?", "answer": n + 2} for n in range(1, 31)]
    for name in ("aime_2025", "hmmt_feb_2025"):
        path = kept_at(f"hf:MathArena/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps({"source": name, "sha256": digest, "rows": rows}))


SMALL = ("--model", "openai:policy", "--rounds", "2", "--concurrency", "4")
SIZES = {
    "game24": ("--limit", "1", "--data", "own"),
    "writing": ("--limit", "2", "--data", "own"),
    "abstracts": ("--limit", "1", "--data", "own"),
    "ablations": ("--limit", "1", "--data", "own", "--part", "game24", "--part", "writing-relative"),
    "math": ("--limit", "1"),
    "scienceworld": ("--limit", "1", "--method", "ReAct"),
    "orbit-scienceworld": ("--limit", "1"),
}
PAPER = {
    "game24": r"^\| ICRL Preset \| 90 \| (0\.00|50\.0|100\.0) \|",
    "writing": r"^\| Best-of-N \| 93.81 \| [\d.]+ \|",
    "abstracts": r"^\| Best-of-1024 \| 0.44 \| 0\.\d\d \|",
    "ablations": r"^\| game24: Zero Rewards \| lowest of three groups \(order of curves, Figure 3\) \| \d",
    "math": r"^\| hmmt: Base \| 9.14 \| [\d.]+ \|",
    "scienceworld": r"^\| ICRL Preset \| 88 ± 0.7 \| 0.00 \| – \| a survey's account, not the paper \|",
    "orbit-scienceworld": r"^\| Reflexion, success after failures at episode 2 \| – \| 0.00 \|",
}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_played_by_one_command_and_told_beside_the_papers(
    table: str, here: Path, server: OpenAIServer, competitions: None
) -> None:
    if not NEEDS.get(table, True) and "CI" not in os.environ:
        pytest.skip("what it needs is not installed")
    command = ("reproduce", table, *SMALL, *SIZES[table], "--out", "x")
    done = icrl(*command, "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert re.search(PAPER[table], done.stdout, re.M), done.stdout
    assert "* model: openai:policy, in the paper openai:" in done.stdout
    paid = server.counts["calls"]
    again = icrl(*command, "--json")
    assert json.loads(again.stdout)["lines"], again.stderr
    assert server.counts["calls"] == paid


def test_a_table_is_told_again_from_its_folder_in_each_format(here: Path, server: OpenAIServer) -> None:
    made = reproduce("game24", model="openai:policy", data="own", limit=2, rounds=2, methods=["CoT"], folder="x")
    paid = server.counts["calls"]
    assert [line["name"] for line in made.lines] == ["ICRL Preset", "CoT"]
    assert made.differences["game24"][:4] == [
        "model: openai:policy, in the paper openai:gpt-4.1",
        "judge of rewards: openai:policy, in the paper openai:gpt-4.1",
        "rounds: 2, in the paper 50",
        "tasks: 2, in the paper 100",
    ]
    plain, latex = (icrl("reproduce", "x", "--format", name).stdout for name in ("text", "latex"))
    assert "Game of 24, success rate in % (arXiv 2506.06303, Table 1)" in plain
    assert "- the tasks are this package's own, not those of 24.csv" in plain
    assert re.search(r"^CoT & 6 & [\d.]+ & .* & .* \\\\$", latex, re.M)
    assert r"success rate in \% (arXiv" in latex
    assert server.counts["calls"] == paid
    assert "Spent: " in repr(Reproduction.read("x"))


def test_a_text_is_escaped_for_latex() -> None:
    assert latex_text(r"50 % of a_b & {c} \d") == r"50 \% of a\_b \& \{c\} \textbackslash{}d"


def test_fair_adds_best_of_n_at_as_many_tokens_and_repeating_it_pays_nothing(here: Path, server: OpenAIServer) -> None:
    fair: Any = {"model": "openai:policy", "data": "own", "limit": 1, "rounds": 3, "fair": True, "folder": "x"}
    fair["methods"] = ["Best-of-N*", "Self-Refine, last answer"]
    made = reproduce("game24", **fair)
    (arm,) = [line["arm"] for line in made.lines if line["name"].startswith("Best-of-N, as many")]
    spent = {
        name: sum(row["usage"]["input"] + row["usage"]["output"] for row in made.comparisons["game24"].rows.values()
                  if row["arm"] == name)
        for name in ("icrl", "best_of_n", arm)
    }  # fmt: skip
    samples = read_arm(arm).options["n"]
    assert int(samples) == round(3 * spent["icrl"] / spent["best_of_n"]) > 3
    assert spent[arm] == pytest.approx(spent["icrl"], rel=0.35)
    paid = server.counts["calls"]
    assert reproduce("game24", **fair).lines == made.lines
    assert server.counts["calls"] == paid


def test_the_cap_is_on_the_whole_table_and_a_higher_one_does_the_rest(
    here: Path, server: OpenAIServer, competitions: None
) -> None:
    command = ("reproduce", "ablations", *SMALL, *SIZES["ablations"], "--method", "Zero*", "--out")
    assert icrl(*command, "whole").returncode == 0
    whole = before = server.counts["calls"]
    for total in (3, whole - 2):  # the second one is within the second part
        capped = icrl(*command, "x", "--total-calls", str(total))
        assert capped.returncode == 1
        assert "The same command with --out x goes on. Raise the total." in capped.stderr
        assert server.counts["calls"] - before == total
    assert icrl(*command, "x", "--total-calls", str(whole)).returncode == 0
    assert server.counts["calls"] - before == whole
    assert Reproduction.read("x").lines == Reproduction.read("whole").lines


def test_a_win_rate_is_that_of_icrl_over_the_others(here: Path, server: OpenAIServer) -> None:
    made = reproduce("writing", model="openai:policy", data="own", limit=3, rounds=1, methods=["Reflexion"], folder="x")
    assert made.usage["calls"] == server.counts["calls"]  # the answers of pairs were paid once
    first, second = made.lines
    (rate,) = made.pairs["writing-relative"].win_rates
    assert (rate["against"], rate["arm"]) == ("icrl", second["arm"])
    ours, controlled = second["ours"], rate["controlled"]
    assert ours is not None
    assert controlled["mean"] is not None
    assert ours["mean"] == pytest.approx(100 * (1 - controlled["mean"]))
    assert [ours["low"], ours["high"]] == pytest.approx(
        [100 * (1 - (controlled["high"] or 0)), 100 * (1 - (controlled["low"] or 0))]
    )
    assert first["paper"] is None
    assert any("has also written answers" in told for told in made.differences["writing-relative"])


def test_a_preview_tells_the_cost_and_pays_nothing(here: Path, server: OpenAIServer) -> None:
    done = icrl("reproduce", "writing", *SMALL, *SIZES["writing"], "--preview")
    assert done.returncode == 0, done.stderr
    assert "2 tasks x 1 seeds x 2 rounds, played by openai:policy, judged by openai:policy" in done.stdout
    assert re.search(r"^  win rates +16 calls$", done.stdout, re.M)
    assert server.counts["calls"] == 0
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chess",), "unknown table 'chess'; choose one of"),
        (("game24", "--model", "learner:hidden-color"), "trained to play one game, and can't play game24"),
        (("writing", "--model", "learner:game24", "--data", "own"), "can't play writing-relative"),
        (("game24", "--model", "learner:game24", "--data", "own"), "learner:game24 plays one game, and can't judge"),
        (("game24",), "give your copy as data, as in --data 24.csv, or --data own"),
        (("game24", "--data", "nowhere.csv"), "the tasks of game24@nowhere.csv can't be read: [Errno 2]"),
        (("game24", "--data", "own"), "set OPENAI_API_KEY"),
        (("game24", "--data", "own", "--method", "Tree*"), "no row of game24 is named like 'Tree*'; they are ICRL"),
        (("math", "--part", "imo"), "unknown part 'imo'; choose one of 'aime', 'hmmt'"),
        (
            ("game24", "--data", "own", "--pair-judge", "openai:a", "--base-url", "http://127.0.0.1:9/v1"),
            "game24 has no win rates, for which pair_judge='openai:a' compares answers",
        ),
        (("math", "--data", "mine.jsonl"), "say of which, as by --part aime or hmmt"),
        (("scienceworld", "--data", "24.csv"), "scienceworld has its tasks from elsewhere"),
        (("game24", "--format", "pdf"), "unknown format 'pdf'; choose one of"),
        (
            ("writing", "--data", "own", "--fair", "--model", "openai:a", "--base-url", "http://127.0.0.1:9/v1"),
            "a fair table is judged by another model",
        ),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_that_says_what_to_do(arguments: tuple[str, ...], message: str, here: Path) -> None:
    done = icrl("reproduce", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split()).replace("choose among", "choose one of"), done.stderr
    assert not list(here.iterdir())


@pytest.mark.skipif(find_spec("rouge_score") is None, reason="needs the extra abstracts")
def test_a_missing_extra_is_named(here: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from icrl_graph.tasks.abstracts import overlap

    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    overlap._scorer.cache_clear()
    done = icrl("reproduce", "abstracts", *SMALL, *SIZES["abstracts"])
    overlap._scorer.cache_clear()
    assert done.returncode == 1
    assert "pip install 'icrl-graph[abstracts]'" in done.stderr
    assert server.counts["calls"] == 0


@pytest.mark.skipif(find_spec("scienceworld") is None, reason="needs the extra scienceworld")
def test_without_java_it_says_how_to_install_it(
    here: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here))
    done = icrl("reproduce", "orbit-scienceworld", *SMALL, "--limit", "1")
    assert done.returncode == 1
    assert "sudo apt-get install openjdk" in done.stderr
    assert server.counts["calls"] == 0


@pytest.mark.parametrize("table", TABLES)
def test_the_papers_own_settings_make_plans_and_every_published_figure_has_its_place(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    preset = TABLES[table]
    plans = [Request(table, data="own", fair=table != "writing").plan(part)[0] for part in preset.parts]
    assert [(plan.rounds, plan.model) for plan in plans] == [(part.rounds, part.model) for part in preset.parts]
    for part in preset.parts:
        for row in (*part.rows, *part.fair):
            read_arm(arm_of(row, part, part.rounds, "best_of_n+n=9") or "")
            assert all(figure.source for figure in row.published)


def test_the_figures_are_those_of_the_model_that_is_played() -> None:
    from icrl_graph.benchmarks.reproduction.lines import _published

    (row, *_), _ = (part.rows for part in TABLES["math"].parts)
    figures = [_published(row, model) for model in ("openai:Qwen/Qwen3-32B", "openai:llama-4-Maverick", "openai:x")]
    assert [figure.value for figure in figures if figure] == [46.66, 35.0, 46.66]


def test_the_papers_puzzles_are_rows_900_to_999_of_the_users_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{rank},{' '.join(map(str, four))}" for rank, four in enumerate(puzzles.puzzles(), 1)]
    Path("24.csv").write_text("\n".join(["Rank,Puzzles", *lines]))
    with pytest.raises(ValueError, match="is not the published 24.csv"):
        find_benchmark("game24@24.csv")
    monkeypatch.setattr(puzzles, "RANKED_SHA256", hashlib.sha256(Path("24.csv").read_bytes()).hexdigest())
    items = find_benchmark("game24@24.csv").items()
    assert items == [",".join(map(str, four)) for four in puzzles.puzzles()[900:1000]]
    plan, _ = Request("game24", "learner:game24", "none", data="24.csv").plan(TABLES["game24"].parts[0])
    assert (plan.benchmark, plan.limit) == (f"game24@{here / '24.csv'}", 100)


def test_the_writing_tasks_of_a_users_file_are_played_and_found_again(here: Path, server: OpenAIServer) -> None:
    Path("papers.jsonl").write_text(json.dumps({"title": "On foxes", "abstract": "A fox jumps over dogs."}) + "\n")
    pytest.importorskip("rouge_score")
    made = reproduce(
        "abstracts", model="openai:policy", data="papers.jsonl", rounds=1, methods=["Self-Refine"], folder="x"
    )
    assert [row["item"] for row in made.comparisons["abstracts"].rows.values()] == ["0", "0"]
    assert read_plan(Path("x/abstracts")).benchmark == f"abstracts@{here / 'papers.jsonl'}"
    assert icrl("resume", "x/abstracts").returncode == 0


@pytest.mark.skipif(find_spec("math_verify") is None, reason="needs the extra math")
@pytest.mark.parametrize("data", ["mine.jsonl", "own"])
def test_mathematics_is_played_on_the_users_copy_of_a_part_or_on_problems_of_our_own(
    data: str, here: Path, server: OpenAIServer
) -> None:
    Path("mine.jsonl").write_text('{"problem_idx": 7, "problem": "2 + 2?", "answer": 4}\n')
    settings: Any = {"model": "openai:policy", "judge": "none", "limit": 1, "rounds": 2, "methods": ["Base"]}
    made = reproduce("math", parts=["aime"], data=data, folder="x", **settings)
    assert "Base" in {line["name"] for line in made.lines}
    own = [told for told in made.differences["aime"] if told.startswith("the tasks are this package's own")]
    assert len(own) == (data == "own")


def test_what_has_not_ended_is_counted_in_what_was_spent_and_said(here: Path, server: OpenAIServer) -> None:
    settings: Any = {"model": "openai:policy", "data": "own", "limit": 2, "rounds": 3, "concurrency": 1}
    made = reproduce("abstracts", folder="x", total_calls=2, methods=["Best*"], **settings)
    assert made.usage["calls"] == server.counts["calls"] == 2
    assert "not finished: 0 of 4 runs have ended" in made.differences["abstracts"]
    [best] = [line for line in made.lines if line["name"] == "Best-of-1024"]
    assert best["note"] == "15 samples here"


def test_seconds_count_over_all_sessions_of_a_table(here: Path, server: OpenAIServer) -> None:
    settings: Any = {"model": "openai:policy", "data": "own", "limit": 2, "rounds": 2, "methods": ["Zero*"]}
    both = {"parts": ["game24", "writing-relative"], "folder": "x", **settings}
    assert reproduce("ablations", total_seconds=1000, **both).left is None
    Path("x", "game24", "clock.json").write_text('{"seconds": 999.5}')
    shutil.rmtree(Path("x", "writing-relative"))
    left = reproduce("ablations", total_seconds=999, **both).left
    assert left is not None
    assert "total_seconds is spent" in left
