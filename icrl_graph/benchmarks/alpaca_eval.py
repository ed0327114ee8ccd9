"""The answers of a comparison in the form that AlpacaEval reads: `alpaca_eval --model_outputs icrl.json`.

A file for each arm (and seed) is a list of `{"instruction": ..., "output": ..., "generator": ...}`. All files have the
same instructions in the same order. An empty output stands for a run that has given no answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from icrl_graph.benchmarks.files import file_for, write_text
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.report.tables import in_order, shown_names
from icrl_graph.benchmarks.results import Cell, Row, answer_as_text
from icrl_graph.prompts.text import text_of

Outputs = list[dict[str, str]]


def outputs(plan: Plan, rows: Mapping[Cell, Row]) -> dict[str, Outputs]:
    """The answers by the name of their generator, an arm or an arm and its seed, over the tasks that all have done.

    Raises:
        ValueError: there is no such task.
    """
    ended = {cell: row for cell, row in rows.items() if "error" not in row}
    arms = [arm for arm in plan.arms if any(cell.arm == arm for cell in ended)]
    seeds = range(1 + max((cell.seed for cell in ended), default=-1))
    items = in_order(plan, dict.fromkeys(cell.item for cell in ended))
    whole = [item for item in items if all(Cell(arm, item, seed) in ended for arm in arms for seed in seeds)]
    if not whole:
        raise ValueError("no task has been done by all methods yet, so there is nothing to export")
    names = shown_names(arms)
    return {
        name: [_output(ended[Cell(arm, item, seed)], name) for item in whole]
        for arm in arms
        for seed in seeds
        for name in [names[arm] if len(seeds) == 1 else f"{names[arm]} seed {seed}"]
    }


def _output(row: Row, generator: str) -> dict[str, str]:
    return {"instruction": text_of(row["task"]), "output": answer_as_text(row), "generator": generator}


def export(plan: Plan, rows: Mapping[Cell, Row], folder: Path) -> list[Path]:
    """Write the answers into a folder; gives the files.

    Raises:
        ValueError: no task has been done by all methods.
    """
    made = outputs(plan, rows)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, answers in made.items():
        paths.append(file_for(folder, name, "json", paths))
        write_text(paths[-1], json.dumps(answers, indent=2, ensure_ascii=False) + "\n")
    return paths
