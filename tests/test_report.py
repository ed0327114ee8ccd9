"""The report of a comparison, looked at as its readers do: in a real browser, without a network."""

import csv
import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import compare, improve
from icrl_graph.benchmarks.api import Comparison
from icrl_graph.benchmarks.plan import Plan, read_plan
from icrl_graph.benchmarks.registry import find_benchmark
from icrl_graph.benchmarks.report import charts, runs, write_report
from icrl_graph.benchmarks.report.tables import shown_names
from icrl_graph.benchmarks.results import read_results
from icrl_graph.benchmarks.runner import run
from icrl_graph.cli.run_folder import Run
from icrl_graph.cli.saved_run import write_page
from icrl_graph.state.unicode import cleaned
from icrl_graph.tasks.game24 import puzzles as game24
from icrl_graph.testing import OpenAIServer

ARMS = ["icrl", "reflexion", "self_refine", "best_of_n", "icrl+show=zero+layout=transcript"]
HOSTILE = "<img src=x onerror='window.hacked = 1'></script><script>window.hacked = 2</script>&amp; the end"
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium: apt install chromium-headless-shell"
)


def _policy(messages: list[dict[str, str]], rng: Any) -> str:
    """Answers with some attempt at 24, and says things that would do harm as HTML."""
    answer = rng.choice(["4 * 5 + 10 - 6", "(4 + 5) * 6 - 10"])
    return f"<think>{HOSTILE}</think>{HOSTILE} {rng.random():.3f}\nAnswer: {answer}"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A comparison over real HTTP; its folder, and the prompts that the server was sent."""
    folder = tmp_path_factory.mktemp("bench")
    with OpenAIServer(_policy) as server:
        plan = Plan(
            benchmark="game24", arms=ARMS, model="openai:any", base_url=server.base_url, limit=3, rounds=3,
            solved_at=1.0, options={"system": "Be brief."},
        )  # fmt: skip
        run(plan, folder)
    write_report(folder)
    return folder, server.prompts


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "Chromium is missing: apt install chromium-headless-shell"
    with sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


METHOD = """
from icrl_graph import create_icrl


def create_mine(model, evaluator, *, memory="last:1", rounds=2, **options):
    return create_icrl(model, evaluator, memory=memory, rounds=rounds, **options)
"""
SAID = {
    "markup": HOSTILE,
    "unclosed tags": "<div><pre><table><td><!-- ",
    "control characters": "a\0b\x1b[31mc",
    "half a character": "a\ud800b",
    "marks of direction": "\u202egnorw \u200f\u2067x",
    "a megabyte": "<b>" * 350_000,
    "the end of the data": "</script><script>window.hacked = 3</script>",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose model, evaluator and task say what would do harm as HTML."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>run"
    said = iter(SAID.values())
    score: Any = lambda response: {"value": 0.5, "feedback": response}  # noqa: E731
    kept: Any = {"path": folder / "run.sqlite", "thread_id": "run"}
    task = f"{HOSTILE} {'wide' * 500}"
    improve(task, score, model=lambda: next(said), rounds=len(SAID), memory="none", **kept)
    run = Run(task="?", model="mine.py:model", evaluator="mine.py:score", options={"memory": "none"})
    (folder / "run.json").write_text(json.dumps({"form": 1, **asdict(run)}))
    write_page(folder)
    return folder


def _open(browser: Any, folder: Path, width: int = 1200) -> tuple[Any, list[str]]:
    """The page, offline, and whatever went wrong on it or was asked of a network."""
    page, wrong = browser.new_context(offline=True, viewport={"width": width, "height": 900}).new_page(), []
    page.on("pageerror", lambda error: wrong.append(f"error {error}"))
    page.on("console", lambda told: wrong.append(f"{told.type} {told.text}"))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector(".attempt")
    return page, wrong


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_draws_all_its_charts_without_a_network_on_a_desk_and_on_a_phone(
    played: Any, browser: Any, width: int
) -> None:
    page, wrong = _open(browser, played[0], width)
    charts = page.locator(".chart").count()
    assert charts >= 7
    assert page.locator(".chart .js-plotly-plot").count() == charts
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert wrong == []


@needs_browser
def test_every_run_can_be_read_with_the_prompts_that_led_to_it(played: Any, browser: Any) -> None:
    page, _ = _open(browser, played[0])
    rows = read_results(played[0]).rows
    for cell, row in rows.items():
        for name in ("item", "arm"):
            page.select_option(f"#{name}", getattr(cell, name))
        assert page.locator(".attempt").count() == len(row["episodes"])
        assert page.locator(".attempt.chosen").count() == 1
        assert page.locator(".attempt > pre").first.text_content() == row["episodes"][0]["response"]
    page.locator(".attempt details summary").last.click()
    page.locator(".attempt details .role").first.wait_for()
    assert page.locator(".attempt details .role").first.text_content() == "system"


IDS = [
    "two  blanks",
    " a blank at either end ",
    "two\nlines",
    "a/b",
    "tab\tbed",
    "\u2028",
    "<b>&amp;",
    "x'\"y",
    "\u00a0",
]


@needs_browser
def test_every_run_can_be_opened_whatever_the_id_of_its_task(browser: Any, tmp_path: Path) -> None:
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text("".join(json.dumps({"task": f"Say {id}.", "id": id}) + "\n" for id in IDS))
    folder = tmp_path / "out"
    compare(tasks, "icrl", model=lambda: "42", evaluator=lambda: 1.0, rounds=1, folder=folder).report()
    page, wrong = _open(browser, folder)
    for at, id in enumerate(IDS):
        page.select_option("#item", index=at)
        assert page.locator("#run > pre").first.text_content() == f"Say {id}."
    assert wrong == []


@needs_browser
def test_what_a_model_says_is_text_and_never_html(played: Any, browser: Any) -> None:
    page, wrong = _open(browser, played[0])
    assert HOSTILE in page.locator(".attempt > pre").first.text_content()
    assert page.locator(".attempt details pre").count() == 0  # reasoning is there to be opened
    page.locator(".attempt details summary", has_text="reasoning").first.click()
    assert page.locator(".attempt details pre").first.text_content() == HOSTILE
    assert page.evaluate("window.hacked") is None
    assert page.locator("#run img").count() == 0
    assert wrong == []


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_whatever_a_run_says_is_text_on_its_page_and_nothing_is_wider_than_it(
    hostile: Path, browser: Any, width: int
) -> None:
    page, wrong = _open(browser, hostile, width)
    for button in page.get_by_role("button", name="show all 1,050,000 characters").all()[::-1]:
        button.click()
    responses = page.locator(".attempt > pre:first-of-type").all_text_contents()
    assert len(responses) == len(SAID)
    for kind, response in zip(SAID, responses, strict=True):
        assert response == cleaned(SAID[kind])
    page.locator(".attempt details summary").first.click()
    assert HOSTILE in page.locator(".attempt details pre").first.text_content()
    assert HOSTILE in page.locator("body > pre").first.text_content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == page.locator(".attempt b b").count() == 0
    assert page.locator("#chart-rewards .js-plotly-plot, .js-plotly-plot#chart-rewards").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert wrong == []


@needs_browser
def test_the_page_of_a_run_has_its_cost_and_marks_its_answer(hostile: Path, browser: Any) -> None:
    page, _ = _open(browser, hostile)
    assert page.locator(".attempt.chosen").count() == 1
    assert page.locator("td", has_text="generate").count() == 1
    assert "model mine.py:model" in page.locator("header").text_content()
    assert "stopped by rounds" in page.locator("header").text_content()


def _column(page: Any, at: int) -> list[str]:
    return [
        row.locator("td").nth(at).text_content().strip()
        for row in page.locator("table").nth(1).locator("tbody tr").all()
    ]


@needs_browser
def test_a_click_on_a_heading_sorts_a_table(played: Any, browser: Any) -> None:
    page, wrong = _open(browser, played[0])
    before = _column(page, 2)
    button = page.locator("table").nth(1).locator("th button").nth(2)
    known = sorted((text for text in before if text != "–"), key=float)
    for order in (known[::-1], known):
        button.click()
        shown = [text for text in _column(page, 2) if text != "–"]
        assert list(map(float, shown)) == list(map(float, order))
    button.click()
    assert _column(page, 2) == before
    names = page.locator("table").nth(1).locator("th button").first
    names.focus()
    page.keyboard.press("Enter")
    assert _column(page, 0) == sorted(_column(page, 0), reverse=True)
    assert wrong == []


@needs_browser
def test_a_table_that_is_wider_than_the_page_says_so_until_it_fits(played: Any, browser: Any) -> None:
    from playwright.sync_api import expect

    page, _ = _open(browser, played[0], 390)
    wide = page.locator(".wide").first
    hint = page.locator(".hint").first
    assert "scroll" in hint.text_content()
    assert hint.is_visible()
    assert "more" in wide.get_attribute("class")
    wide.evaluate("each => each.scrollLeft = each.scrollWidth")
    expect(wide).not_to_have_class(re.compile(r"\bmore\b"))  # asks again without `eval`, which the page forbids
    page.set_viewport_size({"width": 3000, "height": 900})
    page.evaluate("document.body.style.maxWidth = 'none'")
    hint.wait_for(state="hidden")


@needs_browser
def test_the_tasks_stand_in_the_order_of_the_benchmark_with_their_text(played: Any, browser: Any) -> None:
    page, _ = _open(browser, played[0])
    items = find_benchmark("game24").choose()[:3]
    cells = page.locator("td.task")
    assert [cell.text_content().split()[0] for cell in cells.all()] == items
    options = page.locator("#item option").all_text_contents()
    assert options == items
    assert cells.first.locator("pre").is_hidden()
    cells.first.locator("summary").click()
    assert cells.first.locator("pre").text_content() == game24.task(game24.read_puzzle(items[0]))["task"]
    assert "Use each of the numbers" in cells.first.locator("summary").text_content()


def test_file_names_stand_in_place_of_paths(tmp_path: Path) -> None:
    for name in ("method.py", "other.py"):
        (tmp_path / name).write_text(METHOD)
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("\n".join(json.dumps({"task": f"Say {k}.", "id": f"t{k}"}) for k in range(12)))
    arms = ["icrl", f"{tmp_path / 'method.py'}:create_mine", f"{tmp_path / 'other.py'}:create_mine+memory=none"]
    (tmp_path / "score.py").write_text("def score(response):\n    return 0.5\n\n\ndef say():\n    return 'x'\n")
    parts: Any = {"evaluator": f"{tmp_path / 'score.py'}:score", "model": f"{tmp_path / 'score.py'}:say"}
    compare(tasks, arms, rounds=2, folder=tmp_path / "out", **parts).report()
    page = (tmp_path / "out" / "report.html").read_text()
    assert str(tmp_path) not in page
    for name in ("method.py:create_mine", "other.py:create_mine+memory=none", "score.py:say", "tasks.jsonl"):
        assert name in page
    places = [page.index(f"<summary>t{k} ") for k in range(12)]
    assert places == sorted(places)


def test_two_arms_whose_file_names_are_the_same_keep_their_paths() -> None:
    assert shown_names(["/a/x.py:f", "/b/x.py:f", "/b/y.py:f+memory=/c/z.py:m", "icrl"]) == {
        "/a/x.py:f": "/a/x.py:f",
        "/b/x.py:f": "/b/x.py:f",
        "/b/y.py:f+memory=/c/z.py:m": "y.py:f+memory=z.py:m",
        "icrl": "icrl",
    }


def test_the_prompts_are_those_that_were_sent(played: Any) -> None:
    folder, sent = played
    browsed = runs.browse(read_plan(folder), read_results(folder).rows)
    shown = [
        [dict(zip(("role", "content"), browsed["messages"][at], strict=True)) for at in attempt["prompt"]]
        for told in browsed["runs"]
        for attempt in told["attempts"]
    ]
    reflections = sum("reflect" in e["costs"] for row in read_results(folder).rows.values() for e in row["episodes"])
    assert len(shown) + reflections == len(sent)
    for prompt in shown:
        sent.remove(prompt)  # each was sent, and sent once


def test_the_tables_hold_every_method_round_and_difference(played: Any) -> None:
    folder, _ = played
    methods = list(csv.DictReader((folder / "methods.csv").read_text().splitlines()))
    assert [line["arm"] for line in methods] == ARMS
    rounds = list(csv.DictReader((folder / "rounds.csv").read_text().splitlines()))
    assert {(line["arm"], line["round"]) for line in rounds} == {(arm, str(k)) for arm in ARMS for k in (1, 2, 3)}
    differences = list(csv.DictReader((folder / "differences.csv").read_text().splitlines()))
    assert {line["arm"] for line in differences} == set(ARMS[1:])
    assert json.loads((folder / "summary.json").read_text())["tasks"] == 3
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_page_text_and_markdown_open_with_the_same_verdict_ahead_of_any_table(played: Any) -> None:
    folder, _ = played
    told = Comparison.read(folder).verdict
    page, markdown = html.unescape((folder / "report.html").read_text()), (folder / "report.md").read_text()
    printed = " ".join(repr(Comparison.read(folder)).split())
    for sentence in (told["best"][0], told["money"][0], told["against"][0]):
        assert 0 < page.index(sentence) < page.index("<table")
        assert 0 < markdown.index(sentence) < markdown.index("| --- |")
        assert 0 <= printed.index(" ".join(sentence.split())) < printed.index("method success")


def test_judged_scores_are_told_beside_those_that_labels_correct(played: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(played[0], tmp_path / "copy")
    labels = tmp_path / "labels.csv"
    labels.write_text("arm,item,label\n" + "".join(f'{c.arm},"{c.item}",1\n' for c in read_results(folder).rows))
    write_report(folder, labels=labels)
    assert "Corrected by people" in (folder / "report.html").read_text()
    assert "## Corrected by people" in (folder / "report.md").read_text()
    corrected = json.loads((folder / "summary.json").read_text())["corrected"]
    assert [line["labelled"]["mean"] for line in corrected if line["against"] is None] == [1.0] * len(ARMS)


def test_runs_that_would_make_the_page_too_large_are_left_out_and_counted(
    played: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = played
    monkeypatch.setattr(runs, "MOST_CHARACTERS", 3000)
    browsed = runs.browse(read_plan(folder), read_results(folder).rows)
    assert 0 < len(browsed["runs"]) < 15
    assert len(browsed["runs"]) + browsed["left_out"] == 15


def test_a_comparison_of_which_nothing_has_ended_has_no_report(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"form": 1, **vars(Plan("game24", ["icrl"], "learner:game24"))}))
    with pytest.raises(ValueError, match="no run has ended yet"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_text_of_a_task_stands_on_a_page_once_for_all_its_runs(played: Any) -> None:
    folder, _ = played
    browsed = runs.browse(read_plan(folder), read_results(folder).rows)
    texts = [text for role, text in browsed["messages"] if role == "task"]
    assert len(texts) == len({run["task"] for run in browsed["runs"]}) == 3


def test_attempts_side_by_side_are_attempts_on_every_axis_and_are_told_apart_by_a_number(tmp_path: Path) -> None:
    compared = compare(
        "hidden-color", "icrl+width=2+spread=differ,icrl", model="learner:hidden-color", limit=2, rounds=4,
        folder=tmp_path,
    )  # fmt: skip
    drawn = {chart.name: chart.figure for chart in charts.draw(compared.summary)}
    for name in ("solved", "reward", "best", "new"):
        axis = drawn[name]["layout"]["xaxis"]
        assert (axis["title"]["text"], axis["dtick"]) == ("attempt", 1)
    assert {"differ 1/2", "differ 2/2"} < {bar["name"] for bar in drawn["instructions"]["data"]}
