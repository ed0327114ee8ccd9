"""The report of a comparison, looked at as its readers do: in a real browser, without a network."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icrl_graph.benchmarks.report import runs, write_report
from icrl_graph.benchmarks.results import Plan, read_plan, read_results
from icrl_graph.benchmarks.runner import run
from icrl_graph.testing import OpenAIServer

ARMS = ["icrl", "reflexion", "self_refine", "best_of_n", "icrl+show=zero+layout=transcript"]
HOSTILE = "<img src=x onerror='window.hacked = 1'></script><script>window.hacked = 2</script>&amp; the end"
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium: apt install chromium-headless-shell"
)


def _policy(messages: list[dict[str, str]], rng: Any) -> str:
    """Answers with some attempt at 24, and says things that would do harm as HTML."""
    return f"{HOSTILE} {rng.random():.3f}\nAnswer: {rng.choice(['4 * 5 + 10 - 6', '(4 + 5) * 6 - 10'])}"


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


@needs_browser
def test_what_a_model_says_is_text_and_never_html(played: Any, browser: Any) -> None:
    page, wrong = _open(browser, played[0])
    assert HOSTILE in page.locator(".attempt > pre").first.text_content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#run img").count() == 0
    assert wrong == []


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
