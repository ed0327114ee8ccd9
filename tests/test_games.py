"""Games of one hidden instance: what is fixed, what is chance, how actions are read, and what the references reach."""

import asyncio
import random
from random import Random
from typing import Any

import pytest

from icrl_graph.environments import EnvironmentFailed, EnvironmentLost, Outcome, ReplayDivergence, restores
from icrl_graph.environments.games import GAMES, Games, game, task
from icrl_graph.environments.games.arms import RockPaperScissors
from icrl_graph.environments.games.blackjack import Blackjack, total
from icrl_graph.environments.games.game import read_action
from icrl_graph.environments.games.grids import Maze, distances
from icrl_graph.environments.games.guessing import CODES, marks, pegs
from icrl_graph.environments.games.minesweeper import Minesweeper, around, needed
from icrl_graph.environments.games.players import Player, Seen, as_model, forgetful, play, success_by_episode
from icrl_graph.environments.games.vocabulary import words
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.topologies.methods import create_best_of_n, create_icrl
from tests.corridor import Corridor
from tests.helpers import play as play_graph

EVERY = pytest.mark.parametrize("name", GAMES)


def _data(name: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = task(name, seed, **more)["task_data"]
    return data


def _steps(name: str, data: Any, actions: list[str], episode: Any = 0) -> list[Outcome]:
    played = game(name).make()
    played.reset(data, episode)
    return [played.step(action) for action in actions]


def _episode_of(name: str, data: Any, seed: int) -> list[str]:
    """The actions of a random player, and one that no game understands."""
    actions: list[str] = []

    def player(seen: Seen, rng: Random) -> str:
        actions.append("I don't know" if len(seen.turns) == 1 else game(name).references["random"](seen, rng))
        return actions[-1]

    play(game(name).make(), player, data, 1, Random(seed))
    return actions


# -------------------------------------------------------------------------------------------------------- the instance


@EVERY
def test_an_instance_is_the_same_after_other_episodes(name: str) -> None:
    played = game(name).make()
    for seed in range(3):
        data = _data(name, seed)
        asyncio.run(restores(played, data, _episode_of(name, data, seed), episode=seed))


@EVERY
def test_the_seed_and_the_split_decide_the_instance_and_nothing_global_does(name: str) -> None:
    before = random.getstate()

    def told(data: Any) -> Any:
        return [
            _steps(name, data, _episode_of(name, _data(name), seed)[: game(name).make.turns]) for seed in range(3)
        ], game(name).make().reset(data)

    assert told(_data(name)) == told(_data(name))
    others = [told(_data(name, seed, split=split)) for seed in range(4) for split in ("train", "test")]
    assert any(other != told(_data(name)) for other in others)
    assert random.getstate() == before


@pytest.mark.parametrize("name", ["rock_paper_scissors", "safe_arm", "bandit"])
def test_chance_differs_between_episodes_and_is_the_same_in_an_episode_that_is_repeated(name: str) -> None:
    data = _data(name)
    (action,) = {"rock_paper_scissors": ["rock"], "safe_arm": ["safe"]}.get(name) or _episode_of(name, data, 0)
    actions = [action] * game(name).make.turns
    episodes = [_steps(name, data, actions, episode) for episode in range(20)]
    assert episodes == [_steps(name, data, actions, episode) for episode in range(20)]
    assert any(episode != episodes[0] for episode in episodes)


class Dying(RockPaperScissors):
    """Dies at the last step of every second episode, once."""

    steps = 0

    def step(self, action: str) -> Outcome:
        Dying.steps += 1
        if Dying.steps % 9 == 0:
            raise EnvironmentLost("it died")
        return super().step(action)


def test_an_episode_with_chance_is_repeated_exactly_where_its_environment_was_lost() -> None:
    def observed(make: Any) -> Any:
        graph = create_icrl(rollout(lambda messages: "rock", make), episode_return, rounds=6)
        return [[step["observation"] for step in episode["steps"]] for episode in play_graph(graph, given)[1]]

    given = task("rock_paper_scissors", 1)
    assert observed(Dying) == observed(RockPaperScissors)
    assert Dying.steps > 6 * 5


class Told(Corridor):
    """Shows which episode it is told to be."""

    def reset(self, task_data: Any, episode: Any = None) -> str:
        super().reset({})
        return f"episode {episode}"


def test_an_environment_that_asks_is_told_round_and_candidate_and_another_is_not() -> None:
    seen: list[str] = []

    def model(messages: Any) -> str:
        seen.extend(part for part in str(messages[-1]["content"]).split("\n") if "episode (" in part)
        return "right"

    policy = rollout(model, Told, max_steps=1)
    play_graph(create_icrl(policy, episode_return, rounds=2), {"task": "Go."})
    assert seen == ["episode (0, 0)", "episode (1, 0)"]
    seen.clear()
    play_graph(create_best_of_n(policy, episode_return, n=3), {"task": "Go."})
    assert sorted(seen) == ["episode (0, 0)", "episode (0, 1)", "episode (0, 2)"]
    policy = rollout(model, Corridor, max_steps=1)
    assert play_graph(create_icrl(policy, episode_return, rounds=1), {"task": "Go."})[1][0]["reward"]["value"] == 0.1


class Drifting(Corridor):
    """Each episode pays a little more."""

    pays, shows = 0.0, False

    def step(self, action: str) -> Outcome:
        self.pays += 0.1
        outcome = super().step(action)._replace(reward=self.pays)
        return outcome._replace(observation=f"{self.pays:g}") if self.shows else outcome


def test_an_environment_that_is_not_the_same_after_a_reset_is_detected() -> None:
    for shows in (True, False):
        drifting = Drifting()
        drifting.shows = shows
        with pytest.raises(ReplayDivergence, match=r"step 1 gave .*0.5.* and not .*0.1"):
            asyncio.run(restores(drifting, {}, ["right", "left"]))
    asyncio.run(restores(Corridor(), {}, ["right", "left"]))


# ------------------------------------------------------------------------------------------------------------- actions


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("up", "up"),
        ("Action: UP.", "up"),
        (r"I think \boxed{up} is best", "up"),
        (r"not \boxed{down}, but \boxed{\text{hit 12}}", "hit 12"),
        ("First I look.\n**Action:** reveal 2 3\nThen I wait.", "reveal 2 3"),
        ("<action>stand</action> or not", "stand"),
        ("My guess: crane", "crane"),
        ("１２３", "123"),
        ("", ""),
    ],
)
def test_an_action_is_read_in_any_usual_form(text: str, action: str) -> None:
    assert read_action(text) == action


UNDERSTOOD = {
    "rock_paper_scissors": ["rock", r"\boxed{Paper}", "I play scissors."],
    "minesweeper": ["reveal 0 0", "Reveal row 2, column 3", "(4, 4)", "flag 1 1"],
    "hangman": ["e", "Letter E", "cat", "c a t"],
    "wordle": ["crane", "my guess: CRANE", "zzzzz"],
    "blackjack": ["stand", "hit 12", "Hit card 47.", "12"],
    "maze": ["up", "go left", r"\boxed{down}"],
    "mastermind": ["123", "4 1 5", "1, 2, 3", r"\boxed{615}"],
    "key_door": ["right", "Action: up"],
    "safe_arm": ["safe", "the safe arm"],
}
NOT_UNDERSTOOD = {
    "rock_paper_scissors": ["lizard", "rock or paper"],
    "minesweeper": ["reveal 5 0", "reveal", "1 2 3"],
    "hangman": ["cats", "é", "7"],
    "wordle": ["cat", "cranes"],
    "blackjack": ["hit 48", "hit", "hit 1 2", "hit me"],
    "maze": ["north", "up, then down"],
    "mastermind": ["112", "789", "1234", "no"],
}


@pytest.mark.parametrize(("name", "action"), [(name, each) for name, texts in UNDERSTOOD.items() for each in texts])
def test_an_action_that_is_understood_is_done(name: str, action: str) -> None:
    (outcome,) = _steps(name, _data(name, 3), [action])
    assert "not understood" not in outcome.observation


@pytest.mark.parametrize(
    ("name", "action"),
    [*((name, each) for name, texts in NOT_UNDERSTOOD.items() for each in texts), *((n, "") for n in GAMES)],
)
def test_an_action_that_is_not_understood_costs_a_turn_and_says_what_is(name: str, action: str) -> None:
    made = game(name).make
    *first, last = _steps(name, _data(name), [action] * made.turns)
    assert all(outcome[1:4] == (0.0, False, False) and made.form in outcome.observation for outcome in first)
    assert last[1:4] == (0.0, True, False)


# --------------------------------------------------------------------------------------------------------------- rules


@EVERY
def test_an_episode_pays_one_for_success_and_ends_at_its_last_turn(name: str) -> None:
    for seed in range(5):
        steps = _steps(name, _data(name, seed), _episode_of(name, _data(name, seed), seed))
        assert sum(step.reward for step in steps) == steps[-1].success
        assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
        assert len(steps) <= game(name).make.turns


def test_three_of_five_rounds_are_a_success() -> None:
    for seed in range(40):
        steps = _steps("rock_paper_scissors", _data("rock_paper_scissors", seed), ["rock"] * 5)
        assert steps[-1].success == (sum("You win" in step.observation for step in steps) >= 3)


def test_mines_lie_where_they_lie_whatever_is_revealed_first() -> None:
    board = Minesweeper()
    for seed in range(20):
        first = board.reset(_data("minesweeper", seed))
        mines = {cell for cell in range(25) if _mined(board, seed, cell)}
        row, column = int(first.split()[1][:-1]), int(first.split()[3])
        assert len(mines) == 5
        assert not mines & {5 * row + column, *around(5 * row + column)}
        assert needed(frozenset(mines)) <= Minesweeper.turns


def _mined(board: Minesweeper, seed: int, cell: int) -> bool:
    board.reset(_data("minesweeper", seed))
    return "A mine" in board.step(f"reveal {cell // 5} {cell % 5}").observation


def test_a_zero_opens_all_around_it_and_a_flag_opens_nothing() -> None:
    board = Minesweeper()
    first = board.reset(_data("minesweeper", 0))
    row, column = first.split()[1][:-1], first.split()[3]
    flagged = board.step(f"flag {row} {column}").observation
    assert flagged.count("F") == 1
    assert flagged.count(".") == 24
    opened = board.step(f"reveal {row} {column}").observation
    assert opened.split("\n")[int(row)].split()[int(column)] == "0"
    assert opened.count(".") <= 16


@pytest.mark.parametrize(
    ("guess", "word", "expected"),
    [
        ("crane", "crane", "GGGGG"),
        ("allee", "apple", "GYXXG"),
        ("eerie", "there", "YXYXG"),
        ("aabbb", "caacc", "YGXXX"),
    ],
)
def test_a_letter_is_marked_as_often_as_the_word_has_it_right_places_first(
    guess: str, word: str, expected: str
) -> None:
    assert marks(guess, word) == expected


def test_pegs_count_places_and_digits() -> None:
    assert len(CODES) == 120
    assert [pegs(guess, "123") for guess in ("123", "132", "312", "456", "145", "214")] == [
        (3, 0), (1, 2), (0, 3), (0, 0), (1, 0), (0, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hand", "worth"), [([10, 1], 21), ([1, 1], 12), ([10, 5, 1], 16), ([1, 1, 9], 21), ([10, 9, 5], 24)]
)
def test_an_ace_counts_eleven_where_that_is_not_too_much(hand: list[int], worth: int) -> None:
    assert total(hand) == worth


def test_the_dealer_stands_at_seventeen_and_is_beaten_by_more_alone() -> None:
    table = Blackjack()
    for seed in range(60):
        table.reset(_data("blackjack", seed))
        assert 17 <= total(table.dealer) <= 21
        assert table.step("stand").success == (total(table.dealt) > total(table.dealer))


def test_cards_lie_in_the_same_places_in_each_episode_and_too_many_lose() -> None:
    data = _data("blackjack", 5)
    first, second = (_steps("blackjack", data, ["hit 3", "hit 17"], episode) for episode in range(2))
    assert first == second
    lost = [_steps("blackjack", _data("blackjack", seed), ["hit 0", "hit 1", "hit 2"]) for seed in range(20)]
    ended = [next((step for step in steps if step.done), None) for steps in lost]
    assert any(step and "too much. The dealer has" in step.observation and not step.success for step in ended)


def test_the_goal_of_a_maze_is_the_farthest_cell_and_within_reach() -> None:
    maze = Maze()
    for seed in range(30):
        maze.reset(_data("maze", seed))
        steps = distances(maze.start, maze.paths)
        assert steps.keys() == maze.paths
        assert steps[maze.goal] == max(steps.values())
        assert steps[maze.goal] in (7, 8)


# ------------------------------------------------------------------------------------------------- names, tasks, splits


@pytest.mark.parametrize("length", [3, 5])
def test_held_out_words_are_never_words_to_train_on(length: int) -> None:
    train, test = words(length, "train"), words(length, "test")
    assert set(train) | set(test) == set(words(length))
    assert not set(train) & set(test)
    assert {len(word) for word in words(length)} == {length}
    assert min(len(train), len(test)) >= 25


def test_an_unknown_game_split_or_parameter_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown game 'chess'; choose one of 'rock_paper_scissors', 'minesweeper'"):
        game("chess")
    with pytest.raises(ValueError, match="unknown split 'dev'; choose one of 'train', 'test'"):
        task("maze", 0, "dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown parameter of bandit 'arm'; choose one of 'arms'"):
        task("bandit", 0, arm=3)
    with pytest.raises(ValueError, match="arms must be 2 to .*, got 1"):
        game("hidden_arm").make().reset(_data("hidden_arm", arms=1))


def test_task_data_without_a_seed_ends_the_run_and_says_so() -> None:
    graph = create_icrl(rollout(lambda messages: "up", Maze), episode_return, rounds=1)
    with pytest.raises(EnvironmentFailed, match="task data of 'maze' must have a 'seed'"):
        play_graph(graph, {"task": "Find the goal."})


@pytest.mark.parametrize(("arms", "safe"), [(2, 1.0), (5, 0.0)])
def test_parameters_of_an_instance_stand_in_its_task_data(arms: int, safe: float) -> None:
    played = game("safe_arm").make()
    assert played.reset(_data("safe_arm", arms=arms, safe=safe)).count(",") == arms
    assert played.step("safe").success == (safe == 1.0)


# ---------------------------------------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("name", "reference", "expected", "instances"),
    [  # the first nine as measured on ORBIT's own settings
        ("mastermind", "random", [0.03, 0.02, 0.02], 300),
        ("mastermind", "within", [0.35, 0.35, 0.35], 300),
        ("mastermind", "across", [0.35, 1.00, 1.00], 300),
        ("rock_paper_scissors", "random", [0.21, 0.21, 0.21], 300),
        ("rock_paper_scissors", "within", [0.58, 0.59, 0.58], 300),
        ("rock_paper_scissors", "across", [0.59, 0.72, 0.77], 300),
        ("maze", "random", [0.00, 0.02, 0.01], 100),
        ("maze", "within", [0.36, 0.38, 0.41], 150),
        ("maze", "across", [0.36, 0.58, 0.74], 150),
        ("key_door", "across", [0.27, 0.93, 1.00], 150),
        ("blackjack", "within", [0.34, 0.35, 0.35], 300),
        ("blackjack", "across", [0.34, 0.52, 0.70], 300),
        ("hidden_arm", "across", [0.25, 0.50, 0.75, 1.00], 300),
        ("safe_arm", "within", [0.40, 0.40, 0.40, 0.40], 300),
        ("safe_arm", "across", [0.25, 0.50, 0.75, 1.00], 300),
    ],
)
def test_a_reference_reaches_what_it_is_known_to_reach(
    name: str, reference: str, expected: list[float], instances: int
) -> None:
    played = _curve(name, game(name).references[reference], len(expected), instances)
    for share, known in zip(played, expected, strict=True):
        spread = (max(known * (1 - known), 0.02) / instances) ** 0.5
        assert share == pytest.approx(known, abs=3.5 * spread + 0.02)


def _curve(name: str, player: Player, episodes: int, instances: int) -> list[float]:
    data = [_data(name, seed) for seed in range(instances)]
    return success_by_episode(game(name).make(), player, data, episodes)


@pytest.mark.parametrize(("name", "instances"), [("minesweeper", 10), ("hangman", 60), ("bandit", 150)])
def test_a_reference_that_remembers_beats_one_that_forgets_which_beats_chance(name: str, instances: int) -> None:
    random, within, across = (sum(_curve(name, each, 4, instances)[1:]) for each in game(name).references.values())
    assert random <= within + 0.1
    assert within < across


@pytest.mark.parametrize("layout", ["turns", "transcript"])
@EVERY
def test_a_player_knows_the_same_as_a_model_of_a_graph_as_in_a_loop(name: str, layout: str) -> None:
    def recorded(seen: Seen, rng: Random) -> str:
        knows.append(Seen(seen.first, tuple(seen.turns), tuple(map(tuple, seen.earlier))))
        action = game(name).references["across"](seen, Random(len([*seen.all_turns])))
        return f"**{action}**" if layout == "turns" else f"Action: {action}"

    knows: list[Seen] = []
    in_loop = play(game(name).make(), recorded, _data(name, 2), 3, Random())
    looped, knows = knows, []
    policy = rollout(as_model(recorded), Games, max_steps=20)
    graph = create_icrl(policy, episode_return, rounds=3, layout=layout, memory="all", patience=None)
    _, episodes = play_graph(graph, task(name, 2))
    assert knows == looped
    assert [episode["steps"][-1]["success"] for episode in episodes] == in_loop


def test_a_player_that_forgets_knows_its_episode_alone() -> None:
    knows: list[Seen] = []
    player = forgetful(lambda seen, rng: knows.append(seen) or "rock")  # type: ignore[func-returns-value]
    play(RockPaperScissors(), player, {"seed": 0}, 2, Random())
    assert [(len(seen.turns), seen.earlier) for seen in knows] == [(turn, ()) for turn in range(5)] * 2
