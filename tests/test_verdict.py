"""What a report says in words: each thing that may mislead is named, and nothing is claimed that is not shown."""

from random import Random
from typing import Any

import pytest

from icrl_graph.benchmarks import statistics
from icrl_graph.benchmarks.results import Cell, Row
from icrl_graph.benchmarks.summary import ALL_ROUNDS, RISE, Method, Summary, summarize
from icrl_graph.benchmarks.verdict import Verdict, verdict
from tests.test_summary import attempt, plan, row, rows_of

ROUNDS, TASKS = 6, 16


def played(arm: str, first: float, last: float, metric: float | None = None, **given: Any) -> list[Row]:
    """Runs whose rewards go from one level to another by round, with noise; and a metric that stays at one."""
    rng = Random(arm)
    beside = arm.startswith("best_of_n")

    def level(at: int) -> float:
        return round(first + (last - first) * at / (ROUNDS - 1) + rng.uniform(-0.1, 0.1), 3)

    def episode(at: int) -> Any:
        held = {} if metric is None else {"metric": round(metric + rng.uniform(-0.1, 0.1), 3)}
        return {**attempt(at, level(at), beside=beside, **held), **given}

    return [row(Cell(arm, f"t{task}", 0), [episode(at) for at in range(ROUNDS)]) for task in range(TASKS)]


def told(*arms: list[Row], **fields: Any) -> tuple[Verdict, Summary]:
    names = [rows[0]["arm"] for rows in arms]
    summary = summarize(
        plan(*names, rounds=ROUNDS, **{"solved_at": None, **fields}), rows_of(*(one for rows in arms for one in rows))
    )
    return verdict(summary), summary


def the(arm: str, summary: Summary) -> Method:
    return next(method for method in summary["methods"] if method["arm"] == arm)


def highest(one: Row) -> float:
    return max(each["reward"]["value"] or 0.0 for each in one["episodes"])


@pytest.fixture(autouse=True)
def _few_flips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "FLIPS", 999)  # fewer take less time; no p is near its limit


LEARNER = played("icrl", 0.2, 0.7)
ZERO = played("icrl+show=zero", 0.45, 0.45)
SIDE = played("best_of_n", 0.45, 0.45)


def test_a_method_that_learns_by_its_rewards_is_told_against_its_controls_though_the_answers_do_not_differ() -> None:
    """Only the attempts tell the two apart: the best so far of one that does not learn may be as good."""
    lucky = []
    for task, (one, other) in enumerate(zip(ZERO, LEARNER, strict=True)):
        once = attempt(2, highest(other) + (0.02 if task % 2 else -0.02))
        episodes = [*one["episodes"][:2], once, *one["episodes"][3:]]
        lucky.append(row(Cell(one["arm"], one["item"], 0), episodes))
    said, summary = told(LEARNER, lucky)
    assert said["best"][0].startswith("No method is shown to differ from icrl by reward")
    assert "icrl gets better within a run" in said["learning"][0]
    assert "It rises more than icrl+show=zero" in said["learning"][0]
    rise = the("icrl", summary)["rise"]
    assert rise is not None
    assert rise["difference"] == pytest.approx(0.3, abs=0.03)
    assert {pair["measure"] for pair in summary["learning"]} == {ALL_ROUNDS, RISE}


def test_what_rises_without_its_rewards_as_well_is_not_said_to_learn_by_them() -> None:
    said, _ = told(LEARNER, played("icrl+show=zero", 0.2, 0.7))
    assert "so its rewards are not shown to be what helps" in said["learning"][0]
    assert any("no true reward is shown to it, yet it gets better" in line for line in said["against"])


def test_an_arm_that_is_only_noise_is_named() -> None:
    said, _ = told(LEARNER, played("reflexion", 0.5, 0.5), SIDE)
    assert any(line.startswith("Nothing but noise is shown") and "reflexion" in line for line in said["learning"])
    assert not any("icrl" in line for line in said["learning"] if line.startswith("Nothing but noise"))


def test_a_reward_that_rises_without_its_metric_is_named_as_gamed_and_one_with_it_is_not() -> None:
    said, _ = told(played("icrl", 0.2, 0.7, metric=0.5), played("best_of_n", 0.4, 0.4, metric=0.5))
    assert any(line.startswith("icrl") and "the reward is gamed" in line for line in said["against"])
    honest = played("icrl", 0.2, 0.7)
    for one in honest:
        for each in one["episodes"]:
            each["reward"]["metric"] = each["reward"]["value"]
    said, _ = told(honest, SIDE)
    assert not any("gamed" in line for line in said["against"])


def test_task_data_in_feedback_is_named_as_a_leak_and_what_the_task_or_the_answer_says_is_none() -> None:
    leaky = played("icrl", 0.2, 0.7, shown={"value": 0.1, "feedback": "Expected 40961."})
    for one in leaky:
        one["task"], one["task_data"] = "Add 4 to 5.", {"target": 40961}
    said, summary = told(leaky, SIDE)
    assert the("icrl", summary)["told"] == TASKS
    assert any("a leak" in line and "feedback holds task data" in line for line in said["against"])
    for one in leaky:
        one["task"] = "Is it 40961?"
    said, _ = told(leaky, SIDE)
    assert not any("leak" in line for line in said["against"] if "icrl" in line)


def test_attempts_that_do_not_see_each_other_and_yet_get_better_are_named_as_a_leak() -> None:
    said, _ = told(LEARNER, played("best_of_n", 0.2, 0.7))
    assert any(line.startswith("best_of_n: a leak. No attempt sees an earlier one") for line in said["against"])


def test_the_luckiest_of_several_arms_is_named() -> None:
    arms = [played(f"icrl+memory=last:{k}", 0.5, 0.5) for k in range(1, 8)]
    lucky = played("icrl+memory=last:9", 0.5, 0.5)
    for task, one in enumerate(lucky):  # ahead on 12 of 16 tasks: p .03 or so alone
        best = highest(arms[0][task]) + (0.1 if task % 4 else -0.08)
        episodes = [attempt(at, 0.1 if at else best) for at in range(ROUNDS)]
        lucky[task] = row(Cell(one["arm"], one["item"], 0), episodes)
    said, summary = told(*arms, lucky)
    (pair,) = (pair for pair in summary["pairs"] if pair["arm"] == "icrl+memory=last:9")
    assert pair["p"] is not None
    assert pair["adjusted"] is not None
    assert pair["p"] < 0.05 < pair["adjusted"]
    assert any(line.startswith("icrl+memory=last:9 may be a lucky winner") for line in said["against"])
    assert said["best"][0].startswith("No method is shown to differ")


def test_an_arm_that_copies_its_earlier_answers_is_named_with_the_share_of_new_ones_by_round() -> None:
    copying = played("icrl", 0.5, 0.5, response="the same")
    said, summary = told(copying, SIDE)
    assert [point["mean"] for point in the("icrl", summary)["new"]] == [1.0] + [0.0] * (ROUNDS - 1)
    assert [point["mean"] for point in the("best_of_n", summary)["new"]] == [1.0] * ROUNDS
    assert any(line.startswith("icrl mostly repeats its answers: 1 ") for line in said["against"])
    assert not any("best_of_n mostly repeats" in line for line in said["against"])


def test_to_answer_the_same_once_the_task_is_solved_is_not_to_copy() -> None:
    solved = [row(Cell("icrl", f"t{task}", 0), [attempt(0, 0.1), *({**attempt(at, 1.0), "response": "it"} for at in range(1, 6))]) for task in range(4)]  # fmt: skip  # noqa: E501
    _, summary = told(solved, solved_at=1.0)
    assert the("icrl", summary)["repeated"]["mean"] == 0.0


def test_of_runs_that_end_at_their_best_learning_is_not_told() -> None:
    """The last attempt of a run that stops at its target is its best also where all is chance."""
    ended = [{**one, "stopped": "success"} for one in LEARNER]
    said, summary = told(ended, SIDE)  # type: ignore[arg-type]
    assert the("icrl", summary)["rise"] is None
    assert summary["learning"] == []
    assert "not told. Runs end by their rewards" in said["learning"][0]
    _, both = told(ended, [{**one, "stopped": "success"} for one in ZERO])  # type: ignore[arg-type]
    assert {pair["arm"] for pair in both["learning"]} == {"icrl+show=zero"}  # of arms that stop alike it is fair


def test_attempts_without_a_score_are_told_as_the_least_and_the_most_that_they_can_change() -> None:
    def silent(arm: str, count: int) -> list[Row]:
        made = played(arm, 0.4, 0.4)
        for one in made[:count]:
            for each in one["episodes"]:
                each["reward"]["value"] = None
        return [row(Cell(arm, one["item"], 0), one["episodes"]) for one in made]

    said, summary = told(silent("icrl", 4), silent("best_of_n", 0), options={"bounds": [0, 1]})
    (pair,) = summary["pairs"]
    assert pair["lowest"] < 0 < pair["highest"]
    assert any("what is unscored could make the difference anything from" in line for line in said["against"])
    assert any("4 of 16 answers have no score; with all of them at the lowest" in line for line in said["against"])
    assert any("lowest" in each for each in summary["learning"])


def test_a_better_method_is_named_with_by_how_much_how_sure_and_at_what_cost() -> None:
    said, summary = told(LEARNER, SIDE, solved_at=0.6)
    assert the("icrl", summary)["per_solved"]["usd"]["mean"] == pytest.approx(ROUNDS * 0.25 / the("icrl", summary)["equal"]["success"]["mean"], rel=1e-4)  # type: ignore[operator]  # fmt: skip  # noqa: E501
    (first,) = (line for line in said["best"] if "share of tasks solved" in line and "icrl has a" in line)
    assert "best_of_n (-" in first
    assert "has less than icrl" in first
    assert "50% icrl" in said["money"][1]
    assert "For each task solved, in dollars: icrl 1.5" in said["money"][-1]


def test_a_single_method_is_compared_with_nothing() -> None:
    said, summary = told(LEARNER)
    assert said["best"][0].endswith("It was compared with nothing.")
    assert "so that may be owed to something else" in said["learning"][0]
    assert summary["learning"] == []


def test_where_nothing_speaks_against_it_that_is_said_with_what_was_looked_for() -> None:
    said, _ = told(LEARNER, ZERO, SIDE)
    assert said["against"][0].startswith("Nothing that is looked for here")


def test_methods_that_are_highest_together_are_all_named() -> None:
    lower = played("icrl", 0.2, 0.2)
    side = [row(Cell("best_of_n", one["item"], 0), one["episodes"]) for one in ZERO]
    said, _ = told(lower[:2], ZERO[:2], side[:2])
    assert "icrl+show=zero and best_of_n are highest, with a reward of" in said["best"][0]
    alike = [row(Cell("icrl", one["item"], 0), one["episodes"]) for one in ZERO]
    said, _ = told(alike[:2], ZERO[:2])
    assert "all are alike, with a reward of" in said["best"][0]


def test_what_holds_for_several_methods_is_said_once() -> None:
    ended = [row(Cell(arm, f"t{n}", 0), [attempt(0, 1.0)]) for arm in ("icrl", "icrl+width=2") for n in range(4)]
    for one in ended:
        one["stopped"] = "success"
    said, _ = told(ended[:4], ended[4:])
    assert said["learning"] == [
        "icrl, icrl+width=2: not told. Runs end by their rewards, so that the last attempt is the best one also where "
        "all is chance; without target, patience and stop it would be."
    ]
