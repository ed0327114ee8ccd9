"""What rows come to, held against examples that were worked out by hand."""

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from icrl_graph.benchmarks.plan import Plan
from icrl_graph.benchmarks.results import Cell, Row, failure
from icrl_graph.benchmarks.summary import amount, spent_until, summarize
from icrl_graph.benchmarks.terminal import tables
from icrl_graph.state.episode import add_usage, spent

ONE: Any = {"calls": 1, "input": 10, "output": 5, "usd": 0.25}


def attempt(at: int, value: float | None, *, metric: Any = "none", beside: bool = False, **costs: Any) -> Any:
    """An attempt with its reward; `beside` the others of one round, or after them."""
    return {
        "round": 0 if beside else at,
        "candidate": at if beside else 0,
        "plan": {"shown": [], "instruction": "explore" if at % 2 == 0 else "exploit", "left_out": 0},
        "response": f"answer {at}",
        "reward": {"value": value, **({} if metric == "none" else {"metric": metric})},
        "shown": {"value": value},
        "costs": {"generate": ONE, **costs},
    }


def best_so_far(values: Sequence[float | None]) -> list[int | None]:
    found: list[int | None] = []
    for value in values:
        top = found[-1] if found else None
        at = len(found)
        better = value is not None and (top is None or value > (values[top] or 0.0))
        found.append(at if better else top)
    return found


def row(cell: Cell, episodes: list[Any], chosen: Any = None, stopped: str = "rounds") -> Row:
    values = [episode["reward"]["value"] for episode in episodes]
    places = best_so_far(values) if chosen is None else chosen
    made: Any = {
        **cell._asdict(),
        "answer": None if places[-1] is None else episodes[places[-1]]["response"],
        "regret": 0.0,
        "rewarded_by": "oracle",
        "stopped": stopped,
        "usage": spent(episodes),
        "episodes": episodes,
        "chosen": places,
    }
    return made  # type: ignore[no-any-return]


def rows_of(*made: Row) -> dict[Cell, Row]:
    return {Cell(one["arm"], one["item"], one["seed"]): one for one in made}


def plan(*arms: str, solved_at: float | None = 1.0, **fields: Any) -> Plan:
    return Plan("game24", arms, "openai:policy", **{"rounds": 3, "solved_at": solved_at, **fields})


def means(estimates: Any) -> list[float | None]:
    return [one["mean"] for one in estimates]


def played(arm: str, item: str, *values: float | None, seed: int = 0, **given: Any) -> Row:
    """A run of these rewards."""
    episodes = [attempt(at, value, beside=arm.startswith("best_of_n")) for at, value in enumerate(values)]
    return row(Cell(arm, item, seed), episodes, **given)


def reflected(item: str, *values: float | None) -> Row:
    """A run that pays for a reflection after each attempt but the last."""
    last = len(values) - 1
    episodes = [attempt(at, value, **({} if at == last else {"reflect": ONE})) for at, value in enumerate(values)]
    return row(Cell("reflexion", item, 0), episodes)


# ---------------------------------------------------------------------------------------------------------- by rounds


def test_curves_are_means_over_tasks_by_round_and_leave_out_what_is_unscored() -> None:
    rows = rows_of(played("icrl", "a", 0.2, 0.6, 0.4), played("icrl", "b", 0.8, None, 1.0))
    summary = summarize(plan("icrl"), rows)
    (method,) = summary["methods"]
    assert means(method["reward"]) == [0.5, 0.6, 0.7]
    assert [(one["tasks"], one["unscored"]) for one in method["reward"]] == [(2, 0), (1, 1), (2, 0)]
    assert means(method["best"]) == [0.5, 0.7, 0.8]
    assert means(method["answer"]) == [0.5, 0.7, 0.8]
    assert means(method["solved"]) == [0.0, 0.0, 0.5]
    assert means(method["by_instruction"].values()) == [0.6, 0.6]
    assert (method["runs"], method["attempts"], method["unscored"], method["unanswered"]) == (2, 6, 1, 0)
    assert (summary["tasks"], summary["seeds"], summary["measures"]) == (2, 1, ["success", "reward"])
    assert summary["pairs"] == []


def test_seeds_of_a_task_are_averaged_before_tasks_are() -> None:
    rows = rows_of(
        *(played("icrl", "a", value, seed=seed) for seed, value in enumerate((0.0, 0.3, 0.6))),
        played("icrl", "b", 0.9),
    )
    (method,) = summarize(plan("icrl", seeds=3), rows)["methods"]
    assert method["reward"][0]["mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert method["reward"][0]["unscored"] == 2


def test_what_would_be_answered_is_what_the_method_chooses_judged_by_the_metric() -> None:
    """One goes by rewards that mislead, one takes the last."""
    episodes = [attempt(0, 0.5, metric=1.0), attempt(1, 0.9, metric=0.0), attempt(2, 0.1, metric=1.0)]
    rows = rows_of(
        row(Cell("icrl", "a", 0), episodes), row(Cell("self_refine", "a", 0), episodes, chosen=[0, 1, 2], stopped="x")
    )
    summary = summarize(plan("icrl", "self_refine"), rows)
    icrl, refine = summary["methods"]
    assert means(icrl["answer"]) == means(icrl["solved"]) == [1.0, 0.0, 0.0]
    assert means(refine["answer"]) == [1.0, 0.0, 1.0]
    assert means(refine["best"]) == [0.5, 0.9, 0.9]
    assert means(icrl["metric"]) == [1.0, 0.0, 1.0]
    unmarked = summarize(plan("icrl", "self_refine", solved_at=None), rows)
    assert unmarked["measures"] == ["metric", "reward"]
    assert [method["equal"]["metric"]["mean"] for method in unmarked["methods"]] == [0.0, 1.0]
    assert [method["equal"]["reward"]["mean"] for method in unmarked["methods"]] == [0.9, 0.1]


def test_a_run_that_ended_early_counts_on_with_its_answer_and_after_its_target_with_its_attempt() -> None:
    rows = rows_of(
        played("icrl", "a", 0.4, 1.0, stopped="success"),
        played("icrl", "b", 0.2, 0.2, 0.2, 0.4),
        played("icrl", "c", 0.6, 0.0, stopped="plateau"),
    )
    (method,) = summarize(plan("icrl", rounds=4), rows)["methods"]
    assert means(method["reward"]) == pytest.approx([0.4, 0.4, 0.6, 0.7], abs=1e-6)
    assert [one["unscored"] for one in method["reward"]] == [0, 0, 1, 1]
    assert means(method["solved"]) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=1e-6)
    assert [one["tasks"] for one in method["answer"]] == [3, 3, 3, 3]
    assert method["stopped"] == {"success": 1, "rounds": 1, "plateau": 1}
    assert method["equal"]["success"]["mean"] == pytest.approx(1 / 3, abs=1e-6)


def test_failed_runs_and_attempts_without_an_answer_are_counted_apart() -> None:
    silent = attempt(1, None)
    del silent["response"]
    rows = rows_of(
        row(Cell("icrl", "a", 0), [attempt(0, None), silent, attempt(2, 1.0)]), failure(Cell("icrl", "b", 0), "broken")
    )
    (method,) = summarize(plan("icrl"), rows)["methods"]
    assert (method["runs"], method["failed"], method["attempts"]) == (1, 1, 3)
    assert (method["unanswered"], method["unscored"]) == (1, 1)


def test_without_an_ended_run_there_is_nothing_to_sum_up() -> None:
    for rows in ({}, rows_of(failure(Cell("icrl", "a", 0), "broken"))):
        with pytest.raises(ValueError, match="no run has ended"):
            summarize(plan("icrl"), rows)


def test_a_method_without_an_ended_run_is_left_out() -> None:
    rows = rows_of(failure(Cell("icrl", "a", 0), "broken"), played("reflexion", "a", 0.5), played("best_of_n", "a", 1))
    summary = summarize(plan("icrl", "reflexion", "best_of_n"), rows)
    assert [method["arm"] for method in summary["methods"]] == ["reflexion", "best_of_n"]
    assert {pair["against"] for pair in summary["pairs"]} == {"reflexion"}


# --------------------------------------------------------------------------------------------------------- by budgets


def test_a_reflection_is_paid_before_the_attempt_that_reads_it() -> None:
    episodes: Any = reflected("a", 0.0, 0.5, 1.0)["episodes"]
    assert spent_until(episodes, "calls") == [1, 3, 5]
    assert spent_until(episodes, "tokens") == [15, 45, 75]
    assert spent_until(episodes, "usd") == [0.25, 0.75, 1.25]


def test_a_judgement_is_paid_before_its_attempt_counts() -> None:
    episodes = [attempt(0, 0.5, evaluate=ONE), attempt(1, 1.0, evaluate=ONE)]
    assert spent_until(episodes, "calls") == [2, 4]


def test_a_budget_buys_what_it_can_pay_for() -> None:
    rows = rows_of(reflected("a", 0.1, 0.5, 1.0), reflected("b", 0.3, 0.7, 0.0))
    (method,) = summarize(plan("reflexion", solved_at=None), rows)["methods"]
    points = {point["budget"]: point["value"]["mean"] for point in method["budget"]["calls"]}
    assert points == {1: 0.2, 2: 0.2, 3: 0.6, 4: 0.6, 5: 0.85}
    dollars = method["budget"]["usd"]
    assert [dollars[at]["budget"] for at in (0, -1)] == [0.25, 1.25]
    assert [dollars[at]["value"]["mean"] for at in (0, -1)] == [0.2, 0.85]
    assert all(point["value"]["mean"] == 0.6 for point in dollars if 0.76 < point["budget"] < 1.24)
    assert method["budget"].keys() == {"calls", "tokens", "usd"}


def test_methods_are_held_against_each_other_within_the_calls_of_the_first() -> None:
    """Reflexion's third attempt is its fifth call; the others have three."""
    rows = rows_of(
        *(played("icrl", item, 0.0, 0.2, 1.0) for item in "ab"),
        *(reflected(item, 0.0, 0.6, 1.0) for item in "ab"),
        *(played("best_of_n", item, 0.4, 0.0, 0.1) for item in "ab"),
    )
    summary = summarize(plan("icrl", "reflexion", "best_of_n"), rows)
    assert summary["equal_calls"] == 3
    assert [method["equal"]["reward"]["mean"] for method in summary["methods"]] == [1.0, 0.6, 0.4]
    assert [method["equal"]["success"]["mean"] for method in summary["methods"]] == [1.0, 0.0, 0.0]


def test_a_single_answer_is_judged_by_what_it_has() -> None:
    rows = rows_of(
        *(played("icrl", item, 0.0, 0.2, 1.0) for item in "ab"), *(played("best_of_n+n=1", item, 0.4) for item in "ab")
    )
    summary = summarize(plan("icrl", "best_of_n+n=1"), rows)
    assert summary["equal_calls"] == 3
    assert [method["equal"]["reward"]["mean"] for method in summary["methods"]] == [1.0, 0.4]
    assert [(pair["measure"], pair["difference"]) for pair in summary["pairs"]] == [("success", -1.0), ("reward", -0.6)]


def test_where_all_runs_of_a_method_reached_their_target_it_could_have_made_more_calls() -> None:
    rows = rows_of(
        *(played("icrl", item, 1.0, stopped="success") for item in "ab"),
        *(played("best_of_n", item, 0.0, 0.0, 1.0) for item in "ab"),
    )
    summary = summarize(plan("icrl", "best_of_n"), rows)
    assert summary["equal_calls"] == 3
    assert [method["equal"]["success"]["mean"] for method in summary["methods"]] == [1.0, 1.0]


def test_tasks_named_alike_up_to_a_colon_are_told_as_one_with_the_interval_over_them() -> None:
    made = [played("icrl", f"melt:{at}", value) for at, value in enumerate((0.0, 0.5, 1.0))]
    (method,) = summarize(plan("icrl", solved_at=None), rows_of(*made, played("icrl", "boil:0", 0.25)))["methods"]
    assert {task: (found["mean"], found["tasks"]) for task, found in method["by_task"].items()} == {
        "melt": (0.5, 3),
        "boil": (0.25, 1),
    }
    assert method["by_task"]["melt"]["low"] is not None
    assert method["by_task"]["boil"]["low"] is None


def test_a_metric_with_more_than_two_values_is_a_measure_beside_success() -> None:
    def told(metric: float) -> Any:
        return summarize(plan("icrl"), rows_of(row(Cell("icrl", "a", 0), [attempt(0, 1.0, metric=metric)])))

    assert told(0.4)["measures"] == ["success", "metric", "reward"]
    assert told(1.0)["measures"] == ["success", "reward"]
    assert told(0.4)["methods"][0]["by_task"]["a"]["mean"] == 0.4


def test_every_method_is_held_against_the_first_over_the_tasks_that_both_have() -> None:
    rows = rows_of(
        *(played("icrl", item, value) for item, value in zip("abc", (0.2, 0.4, 0.9), strict=True)),
        *(played("best_of_n", item, value) for item, value in zip("ab", (0.5, 1.0), strict=True)),
        *(played("icrl+memory=none", item, 0.1) for item in "abc"),
    )
    summary = summarize(plan("icrl", "best_of_n", "icrl+memory=none"), rows)
    pairs = {(pair["arm"], pair["measure"]): pair for pair in summary["pairs"]}
    assert pairs.keys() == {(arm, name) for arm in ("best_of_n", "icrl+memory=none") for name in ("success", "reward")}
    assert {pair["against"] for pair in summary["pairs"]} == {"icrl"}
    more = pairs["best_of_n", "reward"]
    assert more["difference"] == pytest.approx(0.45)
    assert more["tasks"] == 2
    assert pairs["best_of_n", "success"]["difference"] == 0.5
    assert pairs["icrl+memory=none", "reward"]["difference"] == -0.4
    assert all((pair["adjusted"] or 0) >= (pair["p"] or 0) for pair in summary["pairs"])


# ----------------------------------------------------------------------------------------------------- what is unscored


def partly_scored(arm: str) -> list[Row]:
    """30 runs of one answer each, of which 8 are scored, all of them right."""
    return [played(arm, f"{at:02}", 1.0 if at < 8 else None, chosen=[0]) for at in range(30)]


@pytest.mark.parametrize("solved_at", [1.0, None])
def test_where_8_of_30_are_scored_no_figure_says_1(solved_at: float | None) -> None:
    others = [played("best_of_n+n=1", f"{at:02}", float(at < 9)) for at in range(30)]
    rows = rows_of(*partly_scored("best_of_n"), *others)
    summary = summarize(plan("best_of_n", "best_of_n+n=1", solved_at=solved_at), rows)
    method, other = summary["methods"]
    curves = [one for name in ("reward", "metric", "best", "answer", "solved") for one in method[name]]
    budgets = [point["value"] for points in method["budget"].values() for point in points]
    for one in (*method["equal"].values(), *curves, *budgets, *method["pass_at"].values()):
        assert one["mean"] is None
        assert (one["lowest"], one["highest"]) == (0.266667, 1.0)
        assert (one["scored"], one["of"]) == (8, 30)
        assert one["low"] is not None
        assert one["low"] < 0.27
        assert one["high"] == 1.0
    assert all(one["mean"] == 0.3 and "lowest" not in one for one in other["equal"].values())
    for pair in summary["pairs"]:
        assert (pair["difference"], pair["p"]) == (None, 1.0)
        assert (pair["lowest"], pair["highest"]) == pytest.approx((-0.7, 0.033333), abs=1e-6)
    told = "\n".join(map(str, _printed(summary)))
    assert "8 of 30" in told
    assert ".27 to 1 [" in told
    assert "scored 8 of 30 answers" in " ".join(told.split())


def test_declared_bounds_are_those_of_the_mean_and_without_any_it_is_counted() -> None:
    rows = rows_of(played("icrl", "a", 4.0), played("icrl", "b", 6.0), played("icrl", "c", None, chosen=[0]))
    (bounded,) = summarize(plan("icrl", solved_at=None, options={"bounds": [1, 10]}), rows)["methods"]
    (free,) = summarize(plan("icrl", solved_at=None), rows)["methods"]
    reward = bounded["equal"]["reward"]
    assert (reward["mean"], reward["lowest"], reward["highest"]) == (None, 3.666667, 6.666667)
    assert (free["equal"]["reward"]["mean"], free["equal"]["reward"]["scored"]) == (5.0, 2)
    assert any("scored 2 of 3 answers" in line for line in free["warnings"])


def test_an_attempt_that_a_provider_has_lost_is_no_attempt_of_the_method() -> None:
    lost, silent = ({**attempt(0, None), "error": "x", "error_kind": kind} for kind in ("call", "reply"))
    for each in (lost, silent):
        del each["response"]
    rows = rows_of(
        row(Cell("icrl", "a", 0), [lost, attempt(1, 1.0)]), row(Cell("icrl", "b", 0), [silent, attempt(1, 0.0)])
    )
    (method,) = summarize(plan("icrl"), rows)["methods"]
    assert [(one["mean"], one["tasks"]) for one in method["reward"]] == [(0.0, 1), (0.5, 2)]
    assert [(one["mean"], one["tasks"]) for one in method["solved"]] == [(0.0, 1), (0.5, 2)]


def test_a_run_without_an_answer_has_no_mean_of_marks_but_has_not_solved_its_task() -> None:
    silent = {**attempt(0, None), "error": "the model refused: no", "error_kind": "reply"}
    del silent["response"]
    rows = rows_of(played("icrl", "a", 7.0), played("icrl", "b", 9.0), row(Cell("icrl", "c", 0), [silent]))
    found = summarize(plan("icrl", solved_at=8.0, options={"bounds": [0, 10]}), rows)["methods"][0]["equal"]
    assert found["success"]["mean"] == pytest.approx(1 / 3, abs=1e-6)
    assert (found["reward"]["lowest"], found["reward"]["highest"]) == (5.333333, 8.666667)


def _printed(summary: Any) -> list[str]:
    text = io.StringIO()
    for part in tables(summary):
        Console(file=text, width=200).print(part)
    return text.getvalue().splitlines()


# ----------------------------------------------------------------------------------------------------- shares and means


def test_what_is_0_or_1_is_a_share_everywhere() -> None:
    """As means of any other values, tasks that all agree would have no interval."""
    rows = rows_of(*(played(arm, str(at), 0.0, 0.0) for at in range(10) for arm in ("icrl", "best_of_n")))
    summary = summarize(plan("icrl", "best_of_n", solved_at=None), rows)
    assert summary["measures"] == ["reward"]
    share = {"mean": 0.0, "low": 0.0, "high": pytest.approx(0.277533, abs=1e-5), "tasks": 10, "unscored": 0}
    for method in summary["methods"]:
        points = [point["value"] for point in method["budget"]["calls"]]
        curves = [*method["reward"], *method["metric"], *method["best"], *method["answer"], *points]
        assert [*curves, method["equal"]["reward"]] == [share] * (len(curves) + 1)
    (pair,) = summary["pairs"]
    assert pair["low"] is not None
    assert pair["low"] < 0 < pair["high"]  # type: ignore[operator]


def test_a_graded_reward_is_none_though_an_arm_got_nothing_but_0() -> None:
    made = [played("icrl", str(at), 0.0) for at in range(9)] + [played("best_of_n", str(at), 0.5) for at in range(9)]
    summary = summarize(plan("icrl", "best_of_n", solved_at=None), rows_of(*made))
    assert [method["equal"]["reward"]["high"] for method in summary["methods"]] == [None, None]


def test_zeros_and_ones_on_a_declared_wider_scale_are_no_share() -> None:
    made = [played("icrl", str(at), 0.0) for at in range(9)]
    (method,) = summarize(plan("icrl", solved_at=None, options={"bounds": [0, 10]}), rows_of(*made))["methods"]
    assert method["equal"]["reward"]["high"] is None  # a share's would be above 0


# ------------------------------------------------------------------------------------------------------- judged again


def judged_again(arm: str, item: str, first: Sequence[float], later: Sequence[float], reported: float) -> Row:
    """A run whose attempts were all judged again, and whose first one was chosen."""
    episodes = [{**attempt(at, value), "retests": [later[at]]} for at, value in enumerate(first)]
    episodes[0]["reported"] = [{"value": reported, "metric": reported}]
    made: Any = row(Cell(arm, item, 0), episodes)
    return {**made, "reward": reported, "metric": reported}  # type: ignore[typeddict-item]


def test_a_run_that_was_judged_again_shows_what_it_reports_and_never_the_luckiest_judgement() -> None:
    rows = rows_of(*(judged_again("icrl", item, [0.9, 0.2, 0.3], [0.4, 0.5, 0.6], 0.4) for item in "abc"))
    (method,) = summarize(plan("icrl", solved_at=None), rows)["methods"]
    assert method["equal"]["reward"]["mean"] == method["answer"][-1]["mean"] == 0.4
    assert means(method["answer"]) == [0.9, 0.4, 0.4]  # of one attempt nothing was chosen; then by later judgements
    assert means(method["reward"]) == means(method["metric"]) == [0.9, 0.2, 0.3]  # of each attempt, by its first


def test_where_an_answer_was_not_judged_again_there_is_no_figure_rather_than_one_of_the_others() -> None:
    rows = rows_of(*(judged_again("icrl", item, [0.9, 0.2, 0.3], [0.4, 0.5, 0.6], 0.4) for item in "ab"))
    for episode in rows[Cell("icrl", "b", 0)]["episodes"]:
        episode["retests"] = []
    (method,) = summarize(plan("icrl", solved_at=None), rows)["methods"]
    assert means(method["answer"]) == [0.9, None, 0.4]


def test_a_judged_reward_that_has_chosen_is_said_to_be_too_high_unless_it_was_judged_again() -> None:
    lucky = {**played("icrl", "a", 0.2, 0.9), "rewarded_by": "judged"}
    again = {**judged_again("icrl", "a", [0.9, 0.2], [0.4, 0.5], 0.4), "rewarded_by": "judged"}
    (one,), (other,) = (summarize(plan("icrl"), rows_of(each))["methods"] for each in (lucky, again))  # type: ignore[arg-type]
    assert any("too high" in line for line in one["warnings"])
    assert not any("too high" in line for line in other["warnings"])


# ------------------------------------------------------------------------------------------------- independent attempts


def test_pass_at_k_is_told_of_attempts_that_do_not_see_each_other_and_of_no_others() -> None:
    arms = ["icrl", "best_of_n", "icrl+memory=none", "reflexion+memory=last:1", "best_of_n+n=4"]
    rows = rows_of(
        *(played(arm, "a", 1.0, 0.0, 1.0, 0.0) for arm in arms), *(played(arm, "b", 0, 0, 0, 0) for arm in arms)
    )
    found = {method["arm"]: method["pass_at"] for method in summarize(plan(*arms), rows)["methods"]}
    assert found["icrl"] == found["reflexion+memory=last:1"] == {}
    for arm in ("best_of_n", "icrl+memory=none", "best_of_n+n=4"):
        assert {k: one["mean"] for k, one in found[arm].items()} == {
            "1": 0.25, "2": pytest.approx((1 - 1 / 6) / 2, abs=1e-6), "4": 0.5,
        }  # fmt: skip
    unmarked = summarize(plan(*arms, solved_at=None), rows)
    assert not any(method["pass_at"] for method in unmarked["methods"])


def test_maj_at_k_counts_equal_answers_and_is_told_where_there_are_any() -> None:
    def answering(arm: str, answers: str) -> Any:
        row = played(arm, "a", *(float(answer == "x") for answer in answers))
        for episode, answer in zip(row["episodes"], answers, strict=True):
            episode["answer"] = "" if answer == "-" else answer
        return row

    rows = rows_of(answering("best_of_n", "xxyz"), answering("best_of_n+n=4", "xy-z"), answering("icrl", "xxyz"))
    methods = summarize(plan("best_of_n", "best_of_n+n=4", "icrl"), rows)["methods"]
    told = [{k: one["mean"] for k, one in method["majority_at"].items()} for method in methods]
    assert told == [{"1": 0.5, "2": 0.5, "4": 1.0}, {}, {}]


def test_there_is_no_pass_at_k_where_runs_stopped_once_they_were_solved() -> None:
    """How many attempts such a run has made tells whether it was solved: the estimate would be biased."""
    rows = rows_of(*(played("icrl+memory=none", item, 0.0, 1.0, stopped="success") for item in "ab"),
                   played("icrl+memory=none", "c", 0.0, 0.0, 0.0, 0.0))  # fmt: skip
    (method,) = summarize(plan("icrl+memory=none", rounds=4), rows)["methods"]
    assert method["pass_at"] == {}


def test_a_task_without_any_score_takes_pass_at_k_from_itself_alone() -> None:
    rows = rows_of(played("best_of_n", "a", 1.0, 0.0), played("best_of_n", "b", None, None))
    (method,) = summarize(plan("best_of_n"), rows)["methods"]
    told = {k: (one["mean"], one["lowest"], one["highest"]) for k, one in method["pass_at"].items()}
    assert told == {"1": (None, 0.25, 0.75), "2": (None, 0.5, 1.0)}


def test_methods_are_judged_within_what_a_solved_run_needed_though_others_gave_up_earlier() -> None:
    rows = rows_of(
        played("icrl", "a", 0.0, 0.0, stopped="plateau"),
        played("icrl", "b", 0.0, 0.0, 0.0, 0.0, 1.0, stopped="success"),
    )
    found = summarize(plan("icrl", rounds=8), rows)
    assert found["equal_calls"] == 5
    assert found["methods"][0]["equal"]["success"]["mean"] == 0.5


def test_judging_the_leaders_again_is_paid_before_the_answer() -> None:
    episodes = [attempt(0, 0.5), attempt(1, 0.4, select=ONE), attempt(2, 0.3, select=ONE)]
    assert spent_until(episodes, "calls") == [1, 2, 5]


def test_dollars_are_not_told_where_a_price_is_missing() -> None:
    priced, unpriced = {**ONE, "usd": 0.5}, {**ONE, "unpriced": 1}
    for judge, told in ((priced, True), (unpriced, False)):
        episodes = [{**attempt(0, 1.0), "costs": {"generate": priced, "evaluate": judge}}]
        (method,) = summarize(plan("icrl"), rows_of(row(Cell("icrl", "a", 0), episodes)))["methods"]
        assert ("usd" in method["budget"]) == told


def test_what_failed_runs_have_cost_is_in_the_sum_of_all() -> None:
    failed = failure(Cell("icrl", "b", 0), "down", {"calls": 7})
    found = summarize(plan("icrl"), rows_of(played("icrl", "a", 1.0), failed))
    assert (found["usage"]["calls"], found["methods"][0]["usage"]["calls"]) == (8, 1)


# ------------------------------------------------------------------------------------------------------- whatever rows

COSTS = st.fixed_dictionaries(
    {"calls": st.integers(1, 3)},
    optional={"input": st.integers(1, 99), "output": st.integers(1, 9), "usd": st.just(0.5)},
)
EPISODE = st.tuples(
    st.sampled_from([None, 0.0, 0.5, 1.0]), st.sampled_from(["none", None, 0.0, 1.0]), COSTS, st.none() | COSTS
)
RUN = st.tuples(st.lists(EPISODE, min_size=1, max_size=3), st.sampled_from(["rounds", "success", "calls", "plateau"]))
ARMS = ("icrl", "best_of_n", "reflexion")
CELLS = st.lists(st.tuples(st.sampled_from(ARMS), st.sampled_from("ab"), st.integers(0, 1)), unique=True, min_size=1)


@st.composite
def rows_made(draw: Any) -> dict[Cell, Row]:
    made = []
    for cell in draw(CELLS):
        episodes, stopped = draw(RUN)
        attempts = []
        for at, (value, metric, asked, reflected_on) in enumerate(episodes):
            more = {} if reflected_on is None else {"reflect": reflected_on}
            attempts.append({**attempt(at, value, metric=metric), "costs": {"generate": asked, **more}})
        made.append(row(Cell(*cell), attempts, stopped=stopped))
    return rows_of(*made)


@settings(max_examples=30, deadline=None)
@given(rows_made(), st.sampled_from([None, 1.0]))
def test_whatever_the_rows_are_the_summary_is_json_and_spends_what_they_spent(
    rows: dict[Cell, Row], solved_at: float | None
) -> None:
    summary = summarize(plan(*ARMS, solved_at=solved_at, seeds=2), rows)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    for method in summary["methods"]:
        own = [one for cell, one in rows.items() if cell.arm == method["arm"]]
        together: Any = add_usage(*method["spent_by"].values())
        paid: Any = add_usage(*(one["usage"] for one in own))
        for unit in ("calls", "input", "output", "usd"):
            assert together.get(unit, 0) == method["usage"].get(unit, 0) == paid.get(unit, 0)
        for unit, points in method["budget"].items():
            budgets = [point["budget"] for point in points]
            assert budgets == sorted(set(budgets))
            assert budgets[-1] <= max(amount(one["usage"], unit) for one in own) + 1e-9
        assert summary["equal_calls"] <= max(3 * 6, method["usage"]["calls"])
        assert method["attempts"] == sum(len(one["episodes"]) for one in own)


def test_what_a_server_has_done_without_a_word_is_told_once_for_a_method() -> None:
    cut = {**attempt(1, 0.5), "warning": "the server reports 9 tokens"}
    rows = rows_of(*(row(Cell("icrl", str(task), 0), [attempt(0, 0.5), cut]) for task in range(2)))
    (method,) = summarize(plan("icrl"), rows)["methods"]
    assert method["warnings"] == ["icrl: in 2 of 2 runs the server reports 9 tokens."]
