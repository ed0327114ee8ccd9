"""The report of a comparison: one HTML page that needs nothing else, pictures for a paper, tables for other programs.

DIR/report.html      curves, tests, costs, and every run with its exact prompts; works without a network
DIR/curves.png       what the methods come to by round and by budget
DIR/*.csv            methods, rounds, budgets, tasks, differences
DIR/summary.json     all figures
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.report import charts, pictures, runs, tables
from icrl_graph.benchmarks.results import checked_results, read_plan
from icrl_graph.benchmarks.summary import Summary, summarize
from icrl_graph.errors import missing_extra
from icrl_graph.state.formatting import between, chance, number, signed


def write_report(folder: Path, trust: bool = False) -> list[Path]:
    """Write the report of a comparison into its folder; gives the files.

    Args:
        folder: the comparison's.
        trust: whether code may be imported that the folder names, to make the prompts of custom parts again.

    Raises:
        ValueError: the folder holds no comparison, or none of its runs has ended.
        ThreadMismatch: another version wrote it.
        MissingExtra: the extra `report` is not installed.
    """
    plan, results = read_plan(folder), checked_results(folder)
    summary = summarize(plan, results.rows)
    status = {
        "plan": plan,
        "failed": [row for row in results.rows.values() if "error" in row],
        "damaged": results.damaged,
    }
    texts = {
        "report.html": _page(summary, runs.browse(plan, results.rows, trust), status),
        "summary.json": json.dumps(summary, indent=2) + "\n",
        **tables.as_csv(summary),
    }
    paths = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
        paths.append(folder / name)
    pictures.draw(summary, folder / "curves.png")
    return [*paths, folder / "curves.png"]


def _page(summary: Summary, browsed: runs.Browsed, status: Mapping[str, Any]) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as missing:
        raise missing_extra("plotly or jinja2", "report") from missing
    pages = Environment(
        loader=PackageLoader("icrl_graph.benchmarks.registry", "report"), autoescape=True, undefined=StrictUndefined
    )
    pages.filters.update(number=number, between=between, signed=signed, chance=chance)
    figures = charts.draw(summary)
    return pages.get_template("page.html").render(
        summary=summary,
        methods=tables.methods(summary),
        charts=[chart._asdict() for chart in figures],
        figures=script({chart.name: chart.figure for chart in figures}),
        runs=script(browsed["runs"]),
        messages=script(browsed["messages"]),
        left_out=browsed["left_out"],
        plotly=get_plotlyjs(),
        version=version("icrl-graph"),
        **status,
    )


def script(values: Any) -> str:
    """Values as JSON that may stand in a script element: whatever they say, they can't end it."""
    return json.dumps(values).replace("<", "\\u003c")
