"""Judges or selects the answers of a comparison again: nothing is generated, and nothing of it is paid again.

The prompts stay those that led to the answers, with the rewards that they showed. What the new judge costs is counted
separately, under "rejudge". Compared with those of one arm (`win_rates`), an answer is a run of one attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl

from icrl_graph.benchmarks.arms import graph_of
from icrl_graph.benchmarks.engine import InProcess, OnAttempt
from icrl_graph.benchmarks.experiment import check_totals, evaluator_of
from icrl_graph.benchmarks.plan import Again, Plan, open_folder, read_plan
from icrl_graph.benchmarks.results import Cell, Row, checked_results
from icrl_graph.benchmarks.runner import chosen
from icrl_graph.benchmarks.scheduler import OnProgress, Progress, fill
from icrl_graph.benchmarks.storage import SqliteStorage, Thread, name_of
from icrl_graph.benchmarks.win_rates import pairs, pairwise_of
from icrl_graph.evaluators.evaluator import Evaluator, bind_evaluator
from icrl_graph.execution.sql_journals import beside
from icrl_graph.models.addresses import FolderAddress
from icrl_graph.models.policy import chat_models
from icrl_graph.preview import stand_in
from icrl_graph.state.choices import pick
from icrl_graph.state.episode import Episode, LoopState, Usage, add_usage
from icrl_graph.state.fingerprint import fingerprint
from icrl_graph.state.reward import Reward
from icrl_graph.state.selection import last_answered, outcome
from icrl_graph.topologies import nodes, settings
from icrl_graph.topologies.methods import CHOOSERS
from icrl_graph.topologies.options import assemble
from icrl_graph.topologies.settings import Settings

RETESTED = ("retests", "reported")
"""What is known of an attempt because it was judged again, as one of the leaders."""
JUDGED = ("passes", *RETESTED)
"""What its evaluator has given it, beside its reward."""
SELECT: Mapping[str, nodes.Chooser] = {**CHOOSERS, "last": last_answered}
"""How an answer may be selected."""


def rejudge(
    plan: Plan, folder: Path, on_progress: OnProgress = lambda progress: None, control: RunControl | None = None
) -> Progress:
    """Judge or select the answers of a comparison again, into another folder.

    Args:
        plan: that of the comparison; its `again` says where its answers are, and how they are judged now.
        folder: new, or one in which the same was begun.
        on_progress: called whenever something has happened.
        control: its `request_drain()` ends it once the calls in flight have answered.

    Raises:
        GraphDrained: it was ended through `control`.
        ValueError: the plan is wrong.
    """
    plan, rows, evaluator = _prepare(plan)
    known = None if evaluator is None else fingerprint(bind_evaluator(evaluator).part)
    merged = open_folder(folder, plan, {"rejudge": {} if known is None else {"evaluator": known}})
    again, rate_limit, control = cast(Again, merged.again), merged.rate_limit(), control or RunControl()
    options = {
        "rate_limit": rate_limit,
        "prices": merged.options.get("prices"),
        "on_error": merged.options.get("on_error"),
    }

    storage = SqliteStorage(folder / "unfinished")

    async def work(cell: Cell, rejudged: Mapping[Cell, Row], on_episode: OnAttempt) -> Row:
        row = rows[cell]
        episodes, rewarded_by = row["episodes"], row["rewarded_by"]
        if evaluator is not None:
            async with storage.drive(name_of(cell)) as thread:
                episodes, by = await _judged(row, evaluator, options, thread, again["as_metric"], control)
            rewarded_by = rewarded_by if again["as_metric"] else by
        if again["select"] is not None:
            episodes = [_without(episode, *RETESTED) for episode in episodes]
        places = chosen(episodes, SELECT[again["select"]] if again["select"] else graph_of(merged, cell.arm).choose)
        top = None if places[-1] is None else episodes[places[-1]]
        values: Any = outcome(episodes, top, rewarded_by)
        values.pop("rounds_done")
        return cast(Row, {**row, **values, "episodes": episodes, "chosen": places})

    engine = InProcess(work, merged.concurrency)
    return fill(folder, [list(rows)], engine, merged, on_progress, control, rate_limit, storage, judging_cost)


def preview_rejudge(plan: Plan, response_tokens: int = 300) -> Usage:
    """An estimate of what `rejudge` would spend, nothing of it being done yet; see `icrl_graph.preview`.

    Args:
        plan: as for `rejudge`.
        response_tokens: of a judgement.

    Raises:
        ValueError: the plan is wrong.
    """
    plan, rows, evaluator = _prepare(plan)
    if evaluator is None:
        return Usage(calls=0)
    asked = stand_in(evaluator, response_tokens)

    async def rehearse() -> list[Usage]:
        options = {"prices": plan.options.get("prices")}
        judged = [(await _judgements(row, asked, options, None))[0] for row in rows.values()]
        return [episode["costs"]["evaluate"] for episodes in judged for episode in episodes]

    usage: Any = add_usage(*asyncio.run(rehearse()))
    return cast(Usage, {"calls": 0, **{name: amount for name, amount in usage.items() if name != "seconds"}})


def _prepare(plan: Plan) -> tuple[Plan, dict[Cell, Row], Evaluator | None]:
    """The plan, the rows that are judged again, and by what; all checked.

    Raises:
        ValueError: something is wrong.
    """
    again = plan.again
    if again is None:
        raise ValueError("the plan does not name the comparison whose answers are to be judged again")
    if isinstance(plan.base_url, FolderAddress):  # where the answers were made; that server might pass for any judge
        plan = replace(plan, base_url=None)
    plan = replace(plan, db=None)  # only judgements are saved, in the folder itself
    source = Path(again["folder"])
    rows = checked_results(source).rows
    if read_plan(source).again is not None:
        raise ValueError(f"{source} was judged again itself; name the comparison that it was made from")
    rows = {cell: row for cell, row in rows.items() if "error" not in row}
    evaluator: Evaluator | None
    if "against" in again:
        rows, evaluator = pairs(plan, rows, again["against"]), pairwise_of(plan, again)
    else:
        by = replace(plan, evaluator=again["evaluator"], judge=again["judge"], rubric=again["rubric"])
        evaluator = evaluator_of(by)
    if evaluator is None and again["select"] is None:
        raise ValueError("name an evaluator or a judge, or what the answer is selected by")
    if evaluator is None and again["as_metric"]:
        raise ValueError("which metric? name an evaluator or a judge")
    if again["select"] is not None:
        pick("selection", again["select"], SELECT)
    check_totals(plan, () if evaluator is None else chat_models(*bind_evaluator(evaluator).models))
    return plan, rows, evaluator


async def _judged(
    row: Row,
    evaluator: Evaluator,
    options: Mapping[str, Any],
    thread: Thread,
    as_metric: bool,
    control: RunControl | None,
) -> tuple[list[Episode], str]:
    """The attempts with their new judgements, and the source of these. Journaled until the row is written."""
    judged, by = await _judgements(row, evaluator, {**options, "journal": beside(thread.saver)}, control, thread.id)
    merge = _as_metric if as_metric else _as_reward
    return [merge(old, new) for old, new in zip(row["episodes"], judged, strict=True)], by


async def _judgements(
    row: Row, evaluator: Evaluator, options: Any, control: RunControl | None, thread_id: str = ""
) -> tuple[list[Episode], str]:
    """The attempts with their new judgements alone, and the source of these."""
    built = assemble(Settings, {settings.MAIN: lambda: ""}, evaluator, None, options, {}, name="rejudge")
    state = LoopState(
        inputs={"task": row["task"], "task_data": row["task_data"]},
        settings={**settings.resolve(built.schema, None), "run": _run_id(row), "form": nodes.SCHEMA_VERSION},
        episodes=[_unjudged(episode) for episode in row["episodes"]],
    )
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    judged: list[Episode] = (await _graph(built).ainvoke(state, config, control=control))["episodes"]
    return judged, built.rewarded_by()


def judging_cost(row: Row) -> Usage:
    """What of a row's cost is that of judging it again."""
    return add_usage(*(episode["costs"].get("rejudge", {}) for episode in row.get("episodes", [])))


def _graph(parts: nodes.Parts) -> Any:
    """A graph of one node."""
    graph = StateGraph(LoopState)
    graph.add_node("evaluate", nodes.evaluate_node(parts))
    graph.add_edge(START, "evaluate")
    graph.add_edge("evaluate", END)
    return graph.compile(name="rejudge")


def _run_id(row: Row) -> str:
    return hashlib.sha256(f"rejudge/{row['arm']}/{row['item']}/{row['seed']}".encode()).hexdigest()[:16]


def _unjudged(episode: Episode) -> Episode:
    return _without(episode, "reward", *JUDGED, "costs")


def _as_reward(old: Episode, new: Episode) -> Episode:
    reward = new["reward"]
    if "metric" not in reward and "metric" in old["reward"]:
        reward = {**reward, "metric": old["reward"]["metric"]}
    merged: Episode = {**_without(old, *JUDGED), "reward": reward, "costs": _costs(old, new)}
    if "passes" in new:
        merged["passes"] = new["passes"]
    return merged


def _as_metric(old: Episode, new: Episode) -> Episode:
    reward = Reward(**{**old["reward"], "metric": new["reward"]["value"]})
    if reward.get("error", "").startswith("metric: "):
        del reward["error"]  # of its former metric
    if new["reward"].get("error"):
        reward.setdefault("error", f"metric: {new['reward']['error']}")
    merged: Episode = {**old, "reward": reward, "costs": _costs(old, new)}
    if old.get("reported"):  # a metric that came with the reward; the new one has chosen nothing
        merged["reported"] = [Reward(**{**each}) for each in old["reported"]]
        for each in merged["reported"]:
            each.pop("metric", None)
    return merged


def _without(episode: Episode, *names: str) -> Episode:
    rest: Any = {name: value for name, value in episode.items() if name not in names}
    return cast(Episode, rest)


def _costs(old: Episode, new: Episode) -> dict[str, Usage]:
    return {**old["costs"], "rejudge": new["costs"]["evaluate"]}
