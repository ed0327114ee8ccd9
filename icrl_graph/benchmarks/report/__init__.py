"""The report of a comparison: one HTML page that needs nothing else, pictures for a paper, tables for other programs.

DIR/report.html      the verdict in words, curves, tests, costs, every run with its exact prompts; needs no network
DIR/report.md        the verdict and the tables, for a README or an issue
DIR/curves.png       what the methods come to by attempt and by budget
DIR/*.csv            methods, rounds, budgets, tasks, differences, learning
DIR/summary.json     all figures
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.labels import corrected_by, read_labels
from icrl_graph.benchmarks.plan import read_plan
from icrl_graph.benchmarks.registered import told
from icrl_graph.benchmarks.report import charts, pictures, runs, tables
from icrl_graph.benchmarks.results import checked_results
from icrl_graph.benchmarks.summary import UNITS, Summary, spent_by, summarize
from icrl_graph.benchmarks.verdict import HEADINGS, verdict
from icrl_graph.benchmarks.win_rates import is_of_pairs
from icrl_graph.errors import missing_extra
from icrl_graph.prompts.text import as_json
from icrl_graph.state.episode import Episode, Message, spent
from icrl_graph.state.formatting import (
    apart,
    between,
    chance,
    command,
    cost,
    file_names,
    interval,
    level,
    number,
    score,
    shorten,
    signed,
)


def write_report(folder: Path, trust: bool = False, labels: Path | None = None) -> list[Path]:
    """Write the report of a comparison into its folder; gives the files.

    Args:
        folder: the comparison's.
        trust: whether code may be imported that the folder names, to make the prompts of custom parts again.
        labels: a file of human labels of some answers, by which judged scores are corrected.

    Raises:
        ValueError: the folder holds no comparison, none of its runs has ended, or the labels can't be read.
        ThreadMismatch: another version wrote it.
        MissingExtra: the extra `report` is not installed.
    """
    plan, results = read_plan(folder), checked_results(folder)
    if is_of_pairs(plan):
        raise ValueError(f"{folder} holds win rates, which have no report: {command('resume', folder)} prints them")
    summary = summarize(plan, results.rows)
    status = {
        "plan": plan,
        "failed": [row for row in results.rows.values() if "error" in row],
        "damaged": results.damaged,
        "texts": runs.task_texts(results.rows),
    }
    corrected = [] if labels is None else corrected_by(read_labels(labels), plan, results.rows)
    shown = tables.for_readers(summary, plan)
    claims = [file_names(line) for line in told(folder, plan, results.rows, summary)]
    status |= {
        "verdict": verdict(shown, claims),
        "headings": HEADINGS,
        "units": [unit for unit in UNITS if any(unit in method["per_solved"] for method in summary["methods"])],
        "corrected": tables.with_shown_names(corrected, plan),
    }
    texts = {
        "report.html": _page(shown, runs.browse(plan, results.rows, trust), status),
        "report.md": _template("report.md").render(summary=shown, methods=tables.methods(shown), **status),
        "summary.json": json.dumps({**summary, "verdict": verdict(summary, claims), "corrected": corrected}, indent=2)
        + "\n",
        **tables.as_csv(summary),
    }
    paths = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
        paths.append(folder / name)
    pictures.draw(shown, folder / "curves.png")
    return [*paths, folder / "curves.png"]


def write_run(
    path: Path,
    *,
    name: str,
    about: Mapping[str, Any],
    task: str,
    episodes: Sequence[Episode],
    outcome: Mapping[str, Any],
    chosen: int | None,
    prompts: Sequence[Sequence[Message]] = (),
    unmade: str = "",
) -> None:
    """Write the page of one run.

    Args:
        path: of the page.
        name: of the run.
        about: what it is made of, by name.
        task: its text.
        episodes: its attempts so far.
        outcome: what it came to; empty if it has not ended.
        chosen: the place of the attempt that gave the answer.
        prompts: of each attempt; none at all where they are not made.
        unmade: what would have to be imported to make them.

    Raises:
        MissingExtra: the extra `report` is not installed.
    """
    known: dict[tuple[str, str], int] = {}
    attempts = runs.attempts(episodes, prompts, known)
    page = _render(
        "run.html",
        charts.of_run(episodes) if episodes else [],
        [{"attempts": attempts, "chosen": None if chosen is None else chosen + 1}],
        [list(message) for message in known],
        name=name,
        about=about,
        task=task,
        outcome=outcome,
        answer=None if chosen is None else _text(outcome["answer"]),
        usage=spent(episodes),
        costs=spent_by(episodes),
        count=len(episodes),
        unmade=unmade,
    )
    path.write_text(page, encoding="utf-8", errors="replace")


def _page(summary: Summary, browsed: runs.Browsed, status: Mapping[str, Any]) -> str:
    return _render(
        "page.html",
        charts.draw(summary),
        browsed["runs"],
        browsed["messages"],
        summary=summary,
        methods=tables.methods(summary),
        left_out=browsed["left_out"],
        **status,
    )


def _render(template: str, figures: Sequence[charts.Chart], shown: Any, messages: Any, **values: Any) -> str:
    """A page with its charts, its runs and their messages."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as missing:
        raise missing_extra("plotly", "report") from missing
    page: str = _template(template).render(
        charts=[chart._asdict() for chart in figures],
        figures=script({chart.name: chart.figure for chart in figures}),
        runs=script(shown),
        messages=script(messages),
        plotly=get_plotlyjs(),
        version=version("icrl-graph"),
        **values,
    )
    return page


def _template(name: str) -> Any:
    """A template by its file, with what writes figures; in those of pages all is escaped."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as missing:
        raise missing_extra("jinja2", "report") from missing
    pages = Environment(
        loader=PackageLoader("icrl_graph.benchmarks.registry", "report"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=name.endswith(".md"),
        lstrip_blocks=name.endswith(".md"),
    )
    pages.filters.update(number=number, level=level, between=between, signed=signed, apart=apart, chance=chance)
    pages.filters.update(ends=interval, cost=cost, shorten=shorten, file_names=file_names)
    pages.filters.update(folder_name=lambda folder: Path(folder).name, cell=_cell)
    pages.filters.update(score_between=partial(between, write=score), score_level=partial(level, write=score))
    return pages.get_template(name)


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else as_json(answer)


def script(values: Any) -> str:
    """Values as JSON that may stand in a script element: whatever they say, they can't end it."""
    return json.dumps(values).replace("<", "\\u003c")
