"""The runs of a comparison as logs of Inspect, for `inspect view` and whatever reads them.

A log for each arm: a sample for each task, an epoch for each seed. Its transcript has the attempts with their rewards,
its scores are the reward and the metric. The prompts are not in it: they are not saved (see `icrl show`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from icrl_graph.benchmarks.files import file_for
from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.report.tables import in_order, shown_names
from icrl_graph.benchmarks.results import Cell, Row, answer_as_text
from icrl_graph.errors import missing_extra
from icrl_graph.prompts.text import text_of
from icrl_graph.state.episode import Usage, add_usage, error_of, value_of
from icrl_graph.state.formatting import file_names


def export(plan: Plan, rows: Mapping[Cell, Row], folder: Path) -> list[Path]:
    """Write a log for each arm into a folder; gives the files.

    Raises:
        ValueError: there is no run yet.
        MissingExtra: inspect-ai is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as missing:
        raise missing_extra("inspect-ai", "inspect") from missing
    names = shown_names([arm for arm in plan.arms if any(cell.arm == arm for cell in rows)])
    if not names:
        raise ValueError("no run has ended yet, so there is nothing to export")
    differs = any(row["metric"] != row["reward"] for row in rows.values() if "error" not in row)
    measures = ["reward", *(["metric"] if differs else [])]
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for arm, name in names.items():
        of_arm = {cell: row for cell, row in rows.items() if cell.arm == arm}
        paths.append(file_for(folder, name, "eval", paths))
        write_eval_log(log_of(plan, arm, name, of_arm, measures), str(paths[-1]))
    return paths


def log_of(plan: Plan, arm: str, name: str, rows: Mapping[Cell, Row], measures: Sequence[str] = ("reward",)) -> Any:
    """The log of an arm, an `inspect_ai.log.EvalLog`.

    Args:
        plan: of the comparison.
        arm: as the plan has it.
        name: as it is shown.
        rows: its runs.
        measures: its scores: "reward", and "metric" where that is another number.
    """
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats

    items = in_order(plan, dict.fromkeys(cell.item for cell in rows))
    places = {item: at for at, item in enumerate(items)}
    ordered = sorted(rows, key=lambda cell: (places[cell.item], cell.seed))
    ended = [row for row in rows.values() if "error" not in row]
    own = [part.removeprefix("model=") for part in arm.split("+") if part.startswith("model=")]
    model = file_names([*own, plan.model][0])
    spender = model if plan.judge is None else f"{model} and {file_names(plan.judge)}"
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=file_names(plan.benchmark),
            solver=name,
            model=model,
            dataset=EvalDataset(name=file_names(plan.benchmark), samples=len(items), sample_ids=items),
            config=EvalConfig(epochs=1 + max(cell.seed for cell in rows)),
            metadata={"made_by": "icrl_graph", "attempts": plan.rounds, "evaluator": plan.evaluator},
        ),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=len(ended),
            scores=[_mean(measure, [dict(row)[measure] for row in ended]) for measure in measures],
        ),
        stats=EvalStats(model_usage={spender: _usage(add_usage(*(row["usage"] for row in rows.values())))}),
        samples=[_sample(cell, rows[cell], measures, model, spender) for cell in ordered],
    )


def _mean(measure: str, values: Sequence[Any]) -> Any:
    """The mean of what is scored, and how much of it is not."""
    from inspect_ai.log import EvalMetric, EvalScore

    scored = [value for value in values if value is not None]
    metrics = {"mean": EvalMetric(name="mean", value=sum(scored) / len(scored))} if scored else {}
    counts = {"scored_samples": len(scored), "unscored_samples": len(values) - len(scored)}
    return EvalScore(name=measure, scorer=measure, metrics=metrics, **counts)


def _sample(cell: Cell, row: Row, measures: Sequence[str], model: str, spender: str) -> Any:
    """A run; `spender` has used what was used: the model, and the judge if there is one."""
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput

    known: dict[str, Any] = {"id": cell.item, "epoch": cell.seed + 1, "target": ""}
    known["model_usage"] = {spender: _usage(row["usage"])}
    if "error" in row:
        error = EvalError(message=row["error"], traceback="", traceback_ansi="")
        return EvalSample(**known, input=cell.item, error=error)
    task, text = text_of(row["task"]), answer_as_text(row)
    metadata = {name: row[name] for name in ("stopped", "regret", "rewarded_by", "usage")}
    return EvalSample(
        **known,
        input=task,
        messages=[ChatMessageUser(content=task), ChatMessageAssistant(content=text)],
        output=ModelOutput.from_content(model, text),
        scores={measure: _score(dict(row)[measure], text) for measure in measures},
        metadata={"icrl": metadata, "task_data": row["task_data"]},
        events=[event for episode in row["episodes"] for event in _events(episode)],
    )


def _score(value: Any, answer: str | None = None, explanation: str | None = None) -> Any:
    from inspect_ai.scorer import Score

    told = {"answer": answer, "explanation": explanation}
    return Score.unscored(**told) if value is None else Score(value=value, **told)


def _events(episode: Any) -> list[Any]:
    """An attempt, and its reward as an intermediate score."""
    from inspect_ai.event import InfoEvent, ScoreEvent

    told = {name: episode[name] for name in ("candidate", "response", "answer", "reflection") if name in episode}
    instruction, value = episode["plan"]["instruction"], value_of(episode)
    data = {"round": episode["round"] + 1, "instruction": instruction, **told, "reward": value}
    data |= {"error": error_of(episode)} if error_of(episode) else {}
    score = _score(value, explanation=episode["reward"].get("feedback"))
    return [InfoEvent(source="icrl", data=data), ScoreEvent(score=score, scorer="reward", intermediate=True)]


def _usage(usage: Usage) -> Any:
    """What was used; Inspect's `input_tokens` are those that no cache held."""
    from inspect_ai.model import ModelUsage

    input, output = usage.get("input", 0), usage.get("output", 0)
    cached, written = usage.get("cached", 0), usage.get("written", 0)
    return ModelUsage(
        input_tokens=input - cached - written,
        input_tokens_cache_read=cached,
        input_tokens_cache_write=written,
        output_tokens=output,
        reasoning_tokens=usage.get("reasoning", 0),
        total_tokens=input + output,
        total_cost=None if usage.get("unpriced") else usage.get("usd"),
    )
