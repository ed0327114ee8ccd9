"""The shipped learner of Game of 24, its base policies, and the arms of the demo, through the graph."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

import icrl_graph.models.learners
from icrl_graph.benchmarks.demos import game24 as demo
from icrl_graph.benchmarks.demos import play
from icrl_graph.benchmarks.report import write_report
from icrl_graph.benchmarks.results import read_results
from icrl_graph.errors import UnknownTask
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.learners import LEARNERS
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.ablations import shuffled
from icrl_graph.state.events import is_episode
from icrl_graph.tasks.game24.game import blind, no_base, player, split
from icrl_graph.tasks.game24.puzzles import task
from icrl_graph.tasks.game24.verifier import grade, verify
from icrl_graph.topologies.methods import create_icrl
from icrl_graph.topologies.settings import Settings
from tests.command_line import Done, process

PUZZLES = demo.choose(50, seed=3)
LEARNER = chat_model("learner:game24")


def _solved(graph: Any, puzzles: Any = PUZZLES) -> list[list[bool]]:
    compiled = graph.compile()
    streams = (compiled.stream(task(p), context=Settings(seed=i), stream_mode="custom") for i, p in enumerate(puzzles))
    return [[event["metric"] == 1.0 for event in filter(is_episode, stream)] for stream in streams]


def _within(solved: list[list[bool]], k: int) -> float:
    return sum(any(game[:k]) for game in solved) / len(solved)


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Any:
    return demo.choose(25 if request.config.getoption("--soak") else 10, seed=4)


@pytest.fixture(scope="module")
def slack(request: pytest.FixtureRequest) -> float:
    """How much farther the few puzzles of the short form may lie off by chance."""
    return 0.0 if request.config.getoption("--soak") else 0.1


@pytest.fixture(scope="module")
def demonstrated(played: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The folder of a demo, and what it printed; as a process, as it starts processes of its own."""
    folder = tmp_path_factory.mktemp("played")
    done = process("demo", "game24", "--tasks", str(len(played)), "--seed", "4", "--out", "here", cwd=folder)
    return folder / "here", done


@pytest.fixture(scope="module")
def rows(demonstrated: tuple[Path, Done]) -> Any:
    folder, _ = demonstrated
    return {base: read_results(folder / base).rows for base in demo.BASES}


@pytest.fixture(scope="module")
def summary(played: Any, rows: Any) -> Any:
    return demo.summarize(demo.plans(played), rows, ["row 901, 1 2 3 4: needs fractions"])


@pytest.fixture(scope="module")
def arms(summary: Any) -> Any:
    return {(arm["base"], arm["name"]): arm for arm in summary["arms"]}


def _share(arm: Any, k: int = 16) -> float:
    return float(arm["solved_within"][k - 1]["mean"])


# The bars of 400 puzzles, lowered by what 25 puzzles may lie off by chance; the short form plays fewer.


def test_without_a_base_a_frozen_network_learns_to_solve_nearly_every_puzzle(arms: Any, slack: float) -> None:
    icrl = arms["none", "icrl"]
    assert _share(icrl, 1) <= 0.08 + slack
    assert _share(icrl, 8) >= 0.36 - slack
    assert _share(icrl) >= 0.84 - slack
    assert icrl["solved_at"][-1]["mean"] >= 0.84 - slack
    assert icrl["step_reward"][-1]["mean"] - icrl["step_reward"][0]["mean"] >= 0.7


@pytest.mark.parametrize("control", ["best_of_n", "no_repeats", "avoid_tried", "zero", "shuffled", "hidden", "outcome"])
def test_without_its_true_step_rewards_little_is_solved(control: str, arms: Any, slack: float) -> None:
    arm = arms["none", control]
    assert _share(arm) <= 0.48 + slack
    assert arm["icrl_ahead"]["16"]["low"] > 0.2 - slack
    if control in ("zero", "shuffled", "hidden"):
        assert arm["solved_at"][-1]["mean"] <= 0.12 + slack


def test_it_is_as_good_as_the_search_that_it_was_taught(arms: Any, slack: float) -> None:
    for base in ("none", "weak"):
        assert abs(arms[base, "teacher"]["icrl_ahead"]["16"]["difference"]) <= 0.16 + slack


def test_on_a_weak_base_it_is_well_ahead_of_sampling_and_of_variety(arms: Any, slack: float) -> None:
    for control in ("best_of_n", "no_repeats"):
        assert arms["weak", control]["icrl_ahead"]["8"]["difference"] >= 0.08
    assert arms["weak", "avoid_tried"]["solved_at"][-1]["mean"] <= 0.12 + slack
    assert arms["weak", "icrl"]["solved_at"][-1]["mean"] >= 0.84 - slack


def test_a_strong_base_leaves_next_to_nothing_to_gain(arms: Any, slack: float) -> None:
    assert _share(arms["strong", "icrl"], 1) >= 0.72 - slack
    assert abs(arms["strong", "best_of_n"]["icrl_ahead"]["8"]["difference"]) <= 0.08 + slack


def test_both_layouts_give_it_the_same_history() -> None:
    one, other = (
        _solved(create_icrl(LEARNER, grade, rounds=8, layout=name), PUZZLES[:6]) for name in ("turns", "transcript")
    )
    assert one == other


def test_a_foreign_history_is_used() -> None:
    """After six random attempts it solves far more than six of its own rounds would have given."""
    stranger, own = player(blind, no_base), LEARNERS["game24"]

    def begun(messages: Any, rng: Random) -> str:
        return (stranger if len(messages) < 13 else own)(messages, rng, None)

    solved = _solved(create_icrl(FunctionModel(reply=begun), grade, rounds=16), PUZZLES[:20])
    assert _within(solved, 6) <= 0.3
    assert _within(solved, 16) >= 0.8


def test_it_plays_twice_as_many_rounds_as_it_was_trained_for() -> None:
    solved = _solved(create_icrl(LEARNER, grade, rounds=32), PUZZLES[:8])
    assert sum(game[-1] for game in solved) >= 7


def test_its_base_policies_know_the_more_the_more_they_were_trained_on() -> None:
    first = {
        name: sum(game[0] for game in _solved(create_icrl(f"learner:{name}", grade, rounds=1)))
        for name in ("game24", "game24-weak", "game24-strong")
    }
    assert first["game24"] < 6 < first["game24-weak"] < 25 < 38 < first["game24-strong"]


@pytest.mark.parametrize("name", ["game24", "game24-weak", "game24-strong"])
def test_it_answers_in_the_benchmarks_text_whatever_stands_in_its_history(name: str) -> None:
    for said, told in (("no steps", "unscored"), ("8 / 3 = 8/3 (left: 4 8/3)", "hidden"), ("5 + 6 = 11", "1e+06")):
        history = [
            {"role": "user", "content": task((4, 5, 6, 10))["task"]},
            {"role": "assistant", "content": said},
            {"role": "user", "content": f"Reward: {told}"},
        ]
        answer = LEARNERS[name](history, Random(0), None)
        assert verify(answer, (4, 5, 6, 10)).value is not None
        assert len(grade(answer, {"numbers": [4, 5, 6, 10]})["steps"]) == 3


def test_it_refuses_another_task() -> None:
    with pytest.raises(UnknownTask, match="Game of 24 only"):
        LEARNER.invoke("What is love?")


def test_its_weights_are_small() -> None:
    folder = Path(icrl_graph.models.learners.__file__).parent
    assert sum((folder / f"game24{part}.npz").stat().st_size for part in ("", "_weak", "_strong")) <= 300_000


def test_an_attempt_takes_at_most_5_ms_of_cpu() -> None:
    """The issue's bound, with 16 attempts to read; the fastest of several, so that a busy machine does not matter."""
    history: list[Any] = [{"role": "user", "content": task((4, 5, 6, 10))["task"]}]
    start = list(history)
    for seed in range(16):
        said = LEARNERS["game24"](start, Random(seed), None)
        history += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": "Reward: 0.2\nReward by step: 1, 0, 0"},
        ]

    def cost() -> float:
        begun = time.process_time()
        for seed in range(10):
            LEARNERS["game24-weak"](history, Random(seed), None)
        return (time.process_time() - begun) / 10

    assert min(cost() for _ in range(5)) <= 0.005


# ------------------------------------------------------------------------------------------------------------ the demo


def test_the_demo_shows_its_arms_on_every_base(demonstrated: tuple[Path, Done], played: Any) -> None:
    folder, done = demonstrated
    assert (done.returncode, done.stderr) == (0, "")
    for base in demo.BASES:
        assert f"Game of 24, {len(played)} held-out puzzles, base policy: {base}" in done.stdout
    assert {path.name for path in folder.iterdir()} == {*demo.BASES, "demo.json", "demo.png"}


def _responses(rows: Any) -> Any:
    """By base and run, what was answered."""
    return {
        (base, *cell): [episode["response"] for episode in row["episodes"]]
        for base, made in rows.items()
        for cell, row in made.items()
    }


def test_an_attempt_depends_on_its_puzzle_alone(rows: Any, played: Any, tmp_path: Path) -> None:
    """Not on how many processes play, nor on what else is played; but the shuffled rewards are those of all puzzles."""
    again = _responses(play({"weak": demo.plans(played[:2])["weak"]}, tmp_path))
    before = _responses(rows)
    assert len(again) == 2 * len(demo.BASES["weak"])
    assert all(len(responses) == 16 for responses in again.values())
    own = {key for key in again if "shuffled" not in key[1]}
    assert {key: again[key] for key in own} == {key: before[key] for key in own}


def test_a_demo_is_a_comparison_that_can_be_reported(demonstrated: tuple[Path, Done]) -> None:
    """Also of arms with models of their own."""
    written = {path.name for path in write_report(demonstrated[0] / "weak")}
    assert {"report.html", "summary.json", "curves.png"} <= written


def test_no_puzzle_of_a_ranked_list_is_scored_that_the_learner_was_trained_on() -> None:
    test, trained, chosen = split("test")[0], split("train")[0], split("validation")[0]
    kept, left_out = demo.held_out({900: test, 901: trained, 902: chosen, 903: (3, 3, 8, 8)})
    assert kept == [test]
    assert [line.split(": ")[1] for line in left_out] == [
        "is in the train split",
        "is in the validation split",
        "needs fractions",
    ]
    assert left_out[2].startswith("row 903, 3 3 8 8: ")


@pytest.mark.parametrize(("how", "once"), [("SIGINT", "started"), ("SIGINT", "played"), ("SIGKILL", "played")])
def test_however_the_demo_is_ended_no_process_of_it_is_left(how: str, once: str, tmp_path: Path) -> None:
    """All processes share the pipe of their output: it ends when the last of them does."""
    script = tmp_path / "play.py"
    script.write_text(
        f"if __name__ != '__main__' and {once == 'started'}:\n"
        "    print('started\\n', end='', flush=True)  # at once, for there are two\n"
        "from pathlib import Path\n"
        "from icrl_graph.benchmarks.demos import game24 as demo, play\n"
        "from tests.ctrl_c import accept_ctrl_c\n"
        "if __name__ == '__main__':\n"
        "    accept_ctrl_c()\n"
        f"    tell = lambda base, done: {once == 'played'} and done and print('played', flush=True)\n"
        "    play(demo.plans(demo.choose(400, seed=0)), Path('out'), tell, workers=2)\n"
    )
    running = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == f"{once}\n"
        if how == "SIGINT":
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        else:
            running.kill()
        _, told = running.communicate(timeout=60)
        assert running.returncode != 0
    finally:
        with suppress(ProcessLookupError):  # where it has not ended as it should
            os.killpg(running.pid, signal.SIGKILL)
    assert told.count("Traceback") == (how == "SIGINT")


def _words(summary: Any) -> list[str]:
    return [line for line in demo.report(summary) if isinstance(line, str)]


def test_the_words_say_what_the_controls_say(summary: Any) -> None:
    words = " ".join(_words(summary))
    for claim in ("gain is driven by rewards", "steps are needed", "only true rewards", "left to gain"):
        assert claim in words


def test_the_words_claim_nothing_that_the_figures_do_not_show(rows: Any, played: Any) -> None:
    """Of rows in which every arm does the same, no gain is told."""
    rewards = [{"value": float(at == 15), "metric": float(at == 15), "steps": [1.0, 0.0, 0.0]} for at in range(16)]

    def alike(row: Any) -> Any:
        episodes = [{**episode, "reward": reward} for episode, reward in zip(row["episodes"], rewards, strict=True)]
        return {**row, "episodes": episodes, "chosen": list(range(16))}

    same = {base: {cell: alike(row) for cell, row in made.items()} for base, made in rows.items()}
    words = " ".join(_words(demo.summarize(demo.plans(played), same)))
    for claim in ("gain is driven by rewards", "are needed", "rewards add to it", "only true rewards"):
        assert claim not in words


def test_a_summary_is_json_and_names_what_was_left_out(summary: Any, played: Any) -> None:
    summary = json.loads(json.dumps(summary))
    assert summary["puzzles"] == len(played)
    assert "Not played, 1 puzzles: row 901, 1 2 3 4: needs fractions." in _words(summary)


def test_rewards_of_steps_are_drawn_with_the_number_they_belong_to() -> None:
    draw = shuffled([{"value": 0.4, "steps": [1.0, 0.0, 0.0]}])
    assert draw({"value": 1.0, "steps": [1.0, 1.0, 1.0], "feedback": "x"}, Random(0)) == {
        "value": 0.4,
        "steps": [1.0, 0.0, 0.0],
    }
