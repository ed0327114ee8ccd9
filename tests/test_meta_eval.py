"""`icrl meta-eval`: whether a model learns in its context, by its rewards and beside its controls."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from icrl_graph.benchmarks.experiment import make_plan
from icrl_graph.benchmarks.results import Cell
from icrl_graph.cli.shared import app
from icrl_graph.meta_rl.evaluation import CONTROLS, SUITES, Learning, arms, chosen_items, claims, learning
from icrl_graph.testing import OpenAIServer

WORDS = SUITES["words"]


def meta_eval(*options: str) -> Any:
    return CliRunner().invoke(app, ["meta-eval", *options], catch_exceptions=False)


def groups_of(folder: Path, model: str, *options: str) -> list[Learning]:
    done = meta_eval(model, "--json", "--out", str(folder), *options)
    assert done.exit_code == 0, done.output
    groups: list[Learning] = json.loads(done.stdout)
    return groups


def shown(**rewards: Sequence[Sequence[float | None]]) -> Learning:
    """What tasks show that earned these rewards, by player; the others earned what `icrl` did."""
    plan, _ = make_plan("words", [*arms(WORDS).values()], model=WORDS.references["random"])
    rows: dict[Cell, Any] = {}
    for name, arm in arms(WORDS).items():
        for at, earned in enumerate(rewards.get(name.replace(" ", "_"), rewards["icrl"])):
            episodes = [
                {"round": k, "response": f"{value}", "reward": {"value": value}} for k, value in enumerate(earned)
            ]
            chosen = [0 for _ in episodes]
            rows[Cell(arm, f"prize:words:{at}", 0)] = {"episodes": episodes, "stopped": "rounds", "chosen": chosen}
    (group,) = learning(plan, rows, WORDS)
    return group


def means(points: Sequence[Any]) -> list[float | None]:
    return [point["mean"] for point in points]


def test_a_player_that_reads_its_rewards_is_said_to_learn_in_its_context(tmp_path: Path) -> None:
    (group,) = groups_of(tmp_path, WORDS.references["teacher"], "--item", "prize:words:*", "--instances", "8")
    assert group["group"] == "prize:words"
    assert group["tasks"] == 8
    assert group["learns"]
    icrl = group["players"]["icrl"]
    assert icrl["success"][-1]["mean"] == 1.0
    assert icrl["reward"] == group["players"]["teacher"]["reward"]  # the same player, by the same seeds
    assert (tmp_path / "learning.png").stat().st_size > 10_000


def test_a_player_that_answers_blindly_is_not_though_it_has_often_been_right_once(tmp_path: Path) -> None:
    (group,) = groups_of(tmp_path, WORDS.references["random"], "--item", "prize:words:*", "--instances", "6")
    assert not group["learns"]
    assert group["says"] == "no rise that is clear of 0"
    icrl = group["players"]["icrl"]
    assert icrl["within"][-1]["mean"] > 2 * icrl["success"][-1]["mean"]  # type: ignore[operator]


def test_the_groups_of_games_are_told_apart_and_the_same_command_resumes_them(tmp_path: Path) -> None:
    options = ["--suite", "games", "--instances", "3", "--item", "mastermind:test:*", "--item", "hidden_arm:test:*"]
    model = SUITES["games"].references["across"]
    groups = groups_of(tmp_path, model, *options)
    assert [group["group"] for group in groups] == ["mastermind:test", "hidden_arm:test"]
    assert means(groups[0]["players"]["across"]["success"])[1:] == [1.0, 1.0]
    played = (tmp_path / "results.jsonl").read_bytes()
    assert groups_of(tmp_path, model, *options) == groups
    assert (tmp_path / "results.jsonl").read_bytes() == played


def test_the_tables_fit_a_terminal_and_end_with_what_they_show(tmp_path: Path) -> None:
    done = meta_eval(
        WORDS.references["teacher"],
        "--item",
        "order:words:*",
        "--instances",
        "2",
        "--episodes",
        "8",
        "--out",
        str(tmp_path),
    )
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert max(map(len, lines[:10])) <= 80
    rows = [" ".join(line.split()[:2]) for line in lines[:13] if "[" in line]
    assert [row.split()[0] for row in rows] == ["icrl", "zero", "shuffled", "no", "swapped", "random", "teacher"]
    assert "order:words: " in done.stdout


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_where_a_total_is_spent_it_ends_with_1_and_says_how_to_go_on(more: list[str], tmp_path: Path) -> None:
    options = ["--item", "prize:words:*", "--instances", "2", "--out", str(tmp_path / "spent"), *more]
    with OpenAIServer(lambda: "red") as server:
        where = ["openai:any", "--base-url", server.base_url]
        spent = meta_eval(*where, "--total-calls", "5", *options)
        assert server.counts["calls"] <= 5  # those of the players without a model count, too
    assert spent.exit_code == 1
    assert "icrl resume" in spent.stderr
    assert spent.stdout.strip() == "[]" if more else "prize:words" not in spent.stdout


def test_a_rise_that_comes_without_rewards_too_is_no_learning() -> None:
    """As of a model that finds the answer by thinking longer, or that a task tells more each time."""
    group = shown(icrl=[[0, 1, 1, 1]] * 20)
    assert group["rise"]["low"] > 0  # type: ignore[operator]
    assert not group["learns"]
    assert group["says"].endswith(
        "not clearly above zero, shuffled, no memory, swapped: that is not learning from its context"
    )


@pytest.mark.parametrize("control", ["zero", "shuffled", "no_memory"])
def test_learning_must_be_above_every_control(control: str) -> None:
    flat, rising = [[0, 0, 0, 0]] * 20, [[0, 1, 1, 1]] * 20
    controls: Any = {name.replace(" ", "_"): flat for name in CONTROLS}
    assert shown(icrl=rising, **controls)["learns"]
    assert not shown(icrl=rising, **{**controls, control: rising})["learns"]


def test_success_after_failure_counts_no_success_that_is_repeated() -> None:
    group = shown(icrl=[[0, 1, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]])
    played = group["players"]["icrl"]
    assert means(played["success"]) == [0.25, 0.5, 0.5]
    assert means(played["within"]) == [0.25, 0.5, 0.75]
    assert means(played["after_failure"]) == [0.25, pytest.approx(1 / 3, abs=1e-6), 0.5]
    assert [point["tasks"] for point in played["after_failure"]] == [4, 3, 2]


def test_an_answer_that_could_not_be_scored_is_no_0() -> None:
    icrl = shown(icrl=[[0, 0.5], [0, None]])["players"]["icrl"]
    assert means(icrl["reward"]) == [0.0, 0.5]
    assert icrl["reward"][-1]["scored"] == 1


def test_new_answers_are_counted_after_nothing_but_failures() -> None:
    """The answers of `shown` are the rewards: 0 .5 0 has a new one of two, 1 0 0 has had its success."""
    group = shown(icrl=[[0, 0.5, 0], [1, 0, 0]])
    assert group["players"]["icrl"]["new_after_failure"]["mean"] == 0.5
    assert group["players"]["icrl"]["new_after_failure"]["tasks"] == 1


def test_regret_is_to_the_best_reference_over_all_episodes() -> None:
    group = shown(icrl=[[0, 0, 1], [0, 1, 1]], teacher=[[0, 1, 1], [1, 1, 1]])
    assert group["players"]["icrl"]["regret"]["mean"] == 1.0  # type: ignore[index]
    assert group["players"]["teacher"]["regret"] is None


def test_as_many_tasks_of_each_group_are_chosen() -> None:
    items = chosen_items(WORDS, ["prize:words:*", "order:wordings:*"], 3)
    assert items == [f"prize:words:{at}" for at in range(3)] + [f"order:wordings:{at}" for at in range(3)]
    assert len(chosen_items(WORDS, [], 2)) == 2 * 15


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--suite", "chess"], "unknown suite 'chess'; choose one of 'words', 'games'"),
        (["--item", "prizes:*"], "no task is named like 'prizes:*'"),
        (["--suite", "games", "--item", "chess:test:1"], "unknown game 'chess'"),
        (["--suite", "games", "--item", "maze:1"], "is written like 'maze:test:17'"),
    ],
)
def test_a_wrong_suite_or_task_is_an_error_before_anything_is_played(
    options: list[str], told: str, tmp_path: Path
) -> None:
    done = meta_eval(WORDS.references["random"], "--out", str(tmp_path / "new"), *options)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert not (tmp_path / "new").exists()


def test_histories_are_swapped_within_a_group_and_say_nothing_of_the_task(tmp_path: Path) -> None:
    options = ["--item", "prize:words:*", "--instances", "3", "--episodes", "3"]
    (group,) = groups_of(tmp_path, WORDS.references["teacher"], *options)
    tasks = [json.loads(line) for line in (tmp_path / "swapped.jsonl").read_text().splitlines()]
    assert [len(task["task"]) for task in tasks] == [1, 3, 5] * 3  # the task, then answers and their rewards
    told = [[message["content"] for message in task["task"]] for task in tasks]
    chats = [json.loads(line)["episodes"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    own = {tuple(episode["response"] for episode in episodes[:2]) for episodes in chats}
    assert all(tuple(texts[1::2]) in own for texts in told[2::3])
    assert len(group["players"]["swapped"]["reward"]) == 3
    played = (tmp_path / "swapped" / "results.jsonl").read_bytes()
    assert groups_of(tmp_path, WORDS.references["teacher"], *options) == [group]
    assert (tmp_path / "swapped" / "results.jsonl").read_bytes() == played


PLAYER_WITH_OUTAGES = """
from pathlib import Path
from random import Random
from icrl_graph.tasks.word_games.references import posterior

def player(messages, rng):
    calls = Path(__file__).with_name("calls")
    count = len(calls.read_text()) if calls.exists() else 0
    calls.write_text("." * (count + 1))
    if count in range(20, 35) or count in range(90, 92):
        raise RuntimeError("outage")  # one that is not called again at once
    return posterior(messages, rng)
"""


def test_calls_that_an_outage_has_lost_are_no_episodes(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PLAYER_WITH_OUTAGES)
    options = ["--item", "prize:words:*", "--instances", "3", "--episodes", "6", "--concurrency", "1"]
    command = [f"{tmp_path / 'own.py'}:player", "--json", "--out", str(tmp_path / "out"), *options]
    done = meta_eval(*command)
    assert "outage" in done.output
    for _ in range(4):  # until all has been repeated, also of swapped histories
        if not done.exit_code:
            break
        done = meta_eval(*command)
    assert not done.exit_code, done.output
    (group,) = json.loads(done.stdout)
    for name in ("icrl", "zero", "no memory", "swapped"):
        assert [each["mean"] is None for each in group["players"][name]["reward"]] == [False] * 6
    assert means(group["players"]["icrl"]["reward"])[-1] == 1.0  # of at most six words the sixth answer is the prize


def test_what_may_be_spent_in_total_holds_for_swapped_histories_too(tmp_path: Path) -> None:
    """The six arms of the benchmark make 24 calls, swapped histories would make 4 more."""
    options = ["--item", "prize:words:*", "--instances", "2", "--episodes", "2", "--out", str(tmp_path)]
    spent = meta_eval(WORDS.references["random"], "--total-calls", "26", *options)
    assert spent.exit_code == 1
    rows = [json.loads(line) for line in (tmp_path / "swapped" / "results.jsonl").read_text().splitlines()]
    assert sum(row["usage"]["calls"] for row in rows) <= 2
    assert meta_eval(WORDS.references["random"], "--total-calls", "28", *options).exit_code == 0


def test_where_nothing_is_left_for_swapped_histories_the_rest_is_told(tmp_path: Path) -> None:
    options = ["--item", "prize:words:*", "--instances", "2", "--episodes", "2", "--total-calls", "24", "--json"]
    done = meta_eval(WORDS.references["random"], *options, "--out", str(tmp_path))
    assert done.exit_code == 0
    assert "swapped" not in json.loads(done.stdout)[0]["players"]


def test_claims_tell_splits_and_families_held_out_apart() -> None:
    groups: Any = [
        {"group": "prize:words", "learns": True},
        {"group": "order:words", "learns": False},
        {"group": "prize:seeds", "learns": True},
    ]
    assert claims(groups, WORDS) == [
        "On other games of its words, it learns in its context in prize.",
        "On new words, it learns in its context in prize; that is not shown in order.",
    ]
    assert claims(groups, WORDS, ["prize"])[-1] == "On new words of families held out, that is not shown in order."
    assert claims(groups[1:2], WORDS, ["prize"]) == ["On new words of families held out, that is not shown in order."]


def test_a_family_that_there_is_not_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    done = meta_eval(WORDS.references["random"], "--trained-on", "maze", "--out", str(tmp_path / "x"))
    assert done.exit_code == 2
    assert "unknown family 'maze'; choose" in " ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()


def test_seconds_of_swapped_histories_are_what_all_sessions_before_have_left(tmp_path: Path) -> None:
    options = ["--item", "prize:words:*", "--instances", "2", "--episodes", "2", "--out", str(tmp_path)]
    assert meta_eval(WORDS.references["random"], "--total-seconds", "1000", *options).exit_code == 0
    (tmp_path / "clock.json").write_text('{"seconds": 950}')
    assert meta_eval(WORDS.references["random"], "--total-seconds", "1000", *options).exit_code == 0
    assert 0 < json.loads((tmp_path / "swapped" / "bench.json").read_text())["total_seconds"] <= 50
