"""Word games: their splits, what answers earn, and the reference players."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import pytest

from icrl_graph import compare, create_icrl
from icrl_graph.benchmarks.registry import find_benchmark, find_item
from icrl_graph.tasks.word_games import vocabularies, wordings
from icrl_graph.tasks.word_games.answers import data, earned, read_answer, write_answer
from icrl_graph.tasks.word_games.families import AMOUNTS, FAMILIES, answers
from icrl_graph.tasks.word_games.instances import GAMES, HELD_OUT, SPLITS, instance, items, read_item
from icrl_graph.tasks.word_games.references import posterior, uniform, within
from icrl_graph.tasks.word_games.wordings import Game, read, write
from icrl_graph.topologies.methods import TOPOLOGIES, build
from tests.helpers import play

REFERENCES = "icrl_graph.tasks.word_games.references:"
SCALES = ((0, 1), (0, 10), (0, 100), (-1, 1))
COLORS = ("red", "blue", "green", "white")
PRIZE = next(form for form in wordings.TRAINING["prize"] if "{same}" not in form)


def words_of(*parts: vocabularies.Vocabulary) -> set[str]:
    """All words of vocabularies, those for their categories included."""
    return {word.casefold() for part in parts for noun, words in part.items() for word in (noun, *words)}


def told(*texts: str) -> set[str]:
    return set(re.findall(r"[a-z]+", " ".join(texts).casefold()))


TRAINING_WORDS = words_of(vocabularies.TRAINING, vocabularies.TRAINING_SCALES)
HELD_OUT_WORDS = words_of(vocabularies.HELD_OUT, vocabularies.HELD_OUT_SCALES)
ALL_SCALES = (*vocabularies.TRAINING_SCALES.values(), *vocabularies.HELD_OUT_SCALES.values())

# -------------------------------------------------------------------------------------------------------------- splits


def test_no_word_of_training_is_held_out() -> None:
    assert not TRAINING_WORDS & HELD_OUT_WORDS


def test_no_held_out_word_stands_in_a_wording_of_training() -> None:
    texts = [wording for forms in wordings.TRAINING.values() for wording in forms]
    assert not told(*texts, *wordings.TRAINING_SAME) & HELD_OUT_WORDS


@pytest.mark.parametrize("family", FAMILIES)
def test_wordings_of_training_and_held_out_ones_are_different_and_enough(family: str) -> None:
    training, held_out = wordings.TRAINING[family], wordings.HELD_OUT[family]
    assert len(set(training)) >= 8
    assert len(set(held_out)) >= 3
    assert not set(training) & set(held_out)


@pytest.mark.parametrize("vocabulary", ["TRAINING", "HELD_OUT", "TRAINING_SCALES", "HELD_OUT_SCALES"])
def test_each_category_has_enough_words_and_each_is_one_word(vocabulary: str) -> None:
    for noun, words in getattr(vocabularies, vocabulary).items():
        assert len(set(map(str.casefold, words))) == len(words) >= (5 if "SCALES" in vocabulary else 6), noun
        assert all(word.isalnum() and word.casefold() not in ("a", "i") for word in (noun, *words))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_game_has_words_and_a_wording_of_its_split(family: str, split: Any) -> None:
    new_words, new_wording = split in ("words", "wordings"), split == "wordings"
    forms = wordings.HELD_OUT[family] if new_wording else wordings.TRAINING[family]
    openings = tuple(form.split("{")[0] for form in forms)
    for seed in range(30):
        made = instance(family, split, seed)
        assert {word.casefold() for word in made.game.options} <= (HELD_OUT_WORDS if new_words else TRAINING_WORDS)
        assert made.task.startswith(openings)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_game_is_made_of_family_split_and_seed_alone(family: str, split: Any) -> None:
    made = [instance(family, split, seed) for seed in range(30)]
    assert made == [instance(family, split, seed) for seed in range(30)]
    assert len({game.task for game in made}) > 20


def test_the_games_stay_what_they_are() -> None:
    """Figures are reported on them: a change of words, wordings or of the draw is a change of the benchmark."""
    assert instance("prize", "words", 17).task == (
        "Let us play a game. I picked one instrument out of piano, harp, guitar, organ, trumpet, banjo, and you try "
        "to find out which. You can try again and again."
    )
    assert instance("mastermind", "wordings", 3).task == (
        "The safe wants two distinct labels from violin, cello, organ, piano. Every slot that matches raises your "
        "score. Rest assured that this is permanent."
    )


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_game_says_a_where_an_belongs(family: str, split: Any) -> None:
    tasks = [instance(family, split, seed).task for seed in range(256)]
    assert [task for task in tasks if re.search(r"\b[Aa] [aeiou]", task)] == []


def test_a_scale_changes_rewards_and_nothing_else_of_a_game() -> None:
    plain, scaled = instance("prize", "train", 3), instance("prize", "train", 3, scale=(0, 100))
    assert (plain.secret, plain.game.options) == (scaled.secret, scaled.game.options)
    assert scaled.task.endswith("Rewards go from 0 to 100.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chess", "train", 0), "unknown family 'chess'; choose one of prize, amounts"),
        (("prize", "test", 0), "unknown split 'test'; choose one of train, seeds, words, wordings"),
    ],
)
def test_an_unknown_family_or_split_is_an_error_with_the_choices(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instance(*arguments)


@pytest.mark.parametrize("scale", [(1, 0), (0, 0), (0, float("inf")), (float("nan"), 1)])
def test_an_empty_scale_is_an_error(scale: Any) -> None:
    with pytest.raises(ValueError, match="from its lowest to its highest"):
        instance("prize", scale=scale)


# ----------------------------------------------------------------------------------------------------- texts and games


def every_text() -> Iterator[tuple[Game, str]]:
    for forms, scale in product((wordings.TRAINING, wordings.HELD_OUT), SCALES):
        for family, kind in FAMILIES.items():
            for wording, length in product(forms[family], kind.lengths):
                options = vocabularies.TRAINING_SCALES["digit"][2:9] if kind.on_scale else COLORS[: kind.sizes[-1]]
                game = Game(family, options, length, scale)
                yield game, write(game, wording, "color", wordings.HELD_OUT_SAME[0])


def test_every_wording_tells_the_game() -> None:
    assert all(read(text) == game for game, text in every_text())


@pytest.mark.parametrize(("family", "split"), [("closeness", "train"), ("prize", "words")])
def test_mixed_options_are_refused_where_they_are_none_of_the_game(family: str, split: Any) -> None:
    with pytest.raises(ValueError, match=f"mixed options are for training .* got '{family}', '{split}'"):
        instance(family, split, is_mixed=True)


def test_mixed_options_are_of_several_categories_of_training() -> None:
    made = [instance("prize", "train", seed, sizes=[6], is_mixed=True).game.options for seed in range(20)]
    of_one = [set(words) for words in vocabularies.TRAINING.values()]
    assert not any(set(options) <= words for options in made for words in of_one)
    assert not {word.casefold() for options in made for word in options} & HELD_OUT_WORDS


@pytest.mark.parametrize("words", ALL_SCALES)
def test_a_part_of_a_scale_is_read_off_its_ends(words: Any) -> None:
    wording = next(form for form in wordings.TRAINING["closeness"] if "{first}" in form and "{options}" not in form)
    game = Game("closeness", words[1:])
    assert read(write(game, wording, "step", wordings.TRAINING_SAME[0])) == game


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_game_is_read_off_its_text(family: str, split: Any) -> None:
    for seed, scale in product(range(20), SCALES):
        made = instance(family, split, seed, scale=scale)
        assert read(made.task) == made.game


def test_a_text_that_tells_no_game_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of the word games.*Say hello"):
        read("Say hello.")


def test_no_text_tells_a_game_of_two_families() -> None:
    for game, text in every_text():
        told_by = {
            family for family, pattern in wordings._patterns() if pattern.fullmatch(text.split(" Rewards go")[0])
        }
        assert told_by == {game.family}


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("blue", ("blue",)),
        ("Blue.", ("blue",)),
        ('"BLUE"', ("blue",)),
        ("“blue”", ("blue",)),
        ("**blue**", ("blue",)),
        ("_blue_", ("blue",)),
        ("My guess is blue!", ("blue",)),
        ("blue, because blue is best", ("blue",)),
        ("ｂｌｕｅ", ("blue",)),
        (r"\boxed{blue}", ("blue",)),
        ("red or blue", None),
        ("not red, blue", None),
        ("bluebird", None),
        ("purple", None),
        ("", None),
    ],
)
def test_an_answer_is_the_only_option_that_it_names(text: str, answer: Any) -> None:
    assert read_answer(text, COLORS) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("blue, red", ("blue", "red")),
        ("1. Blue\n2. Red", ("blue", "red")),
        ("First blue and then red.", ("blue", "red")),
        ("blue", None),
        ("blue, blue", None),
        ("blue, red, green", None),
        ("blue, red. That is: blue, red", None),
    ],
)
def test_an_answer_of_two_words_names_two_each_once(text: str, answer: Any) -> None:
    assert read_answer(text, COLORS, 2) == answer


DIGITS = vocabularies.TRAINING_SCALES["digit"]


@pytest.mark.parametrize(
    ("game", "world", "response", "value", "metric"),
    [
        (Game("prize", COLORS), ("blue",), "blue", 1, 1),
        (Game("prize", COLORS), ("blue",), "red", 0, 0),
        (Game("prize", COLORS, scale=(-1, 1)), ("blue",), "red", -1, 0),
        (Game("prize", COLORS, scale=(0, 100)), ("blue",), "blue", 100, 1),
        (Game("amounts", COLORS), (0.2, 0.7, 0.0, 0.5), "white", 0.5, 0),
        (Game("amounts", COLORS), (0.2, 0.7, 0.0, 0.5), "blue", 0.7, 1),
        (Game("amounts", COLORS, scale=(0, 10)), (0.2, 0.7, 0.0, 0.5), "blue", 7, 1),
        (Game("closeness", DIGITS), ("3",), "3", 1, 1),
        (Game("closeness", DIGITS), ("3",), "9", 0.4, 0),
        (Game("closeness", DIGITS[:6]), ("0",), "5", 0, 0),
        (Game("order", COLORS[:3], 3), ("blue", "red", "green"), "blue, red, green", 1, 1),
        (Game("order", COLORS[:3], 3), ("blue", "red", "green"), "red, blue, green", 0.67, 0),
        (Game("order", COLORS[:3], 3), ("blue", "red", "green"), "green, red, blue", 0, 0),
        (Game("mastermind", COLORS, 2), ("blue", "red"), "blue, green", 0.5, 0),
        (Game("mastermind", COLORS, 2), ("blue", "red"), "red, blue", 0, 0),
        (Game("mastermind", COLORS, 3), ("blue", "red", "green"), "blue, red, white", 0.67, 0),
        (Game("mastermind", COLORS, 3, (-1, 1)), ("blue", "red", "green"), "blue, white, red", -0.34, 0),
    ],
)
def test_what_an_answer_earns(game: Game, world: Any, response: str, value: float, metric: float) -> None:
    assert earned(response, data(game, world)) == {"value": value, "metric": metric}


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_no_answer_earns_the_lowest_reward_without_a_word(scale: Any) -> None:
    task_data = data(Game("prize", COLORS, scale=scale), ("blue",))
    assert earned("purple", task_data) == {"value": scale[0], "metric": 0.0}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rewards_are_in_their_range_and_the_best_answer_alone_is_solved(family: str, scale: Any) -> None:
    for seed in range(10):
        made = instance(family, "train", seed, scale=scale)
        rewards = [earned(write_answer(answer), made.inputs()["task_data"]) for answer in answers(made.game)]
        values: list[Any] = [reward["value"] for reward in rewards]
        assert all(scale[0] <= value <= scale[1] for value in values)
        assert [reward["metric"] for reward in rewards] == [float(value == max(values)) for value in values]
        assert values.count(max(values)) == 1


def test_task_data_survive_being_stored() -> None:
    task_data = instance("amounts", "words", 5).inputs()["task_data"]
    assert json.loads(json.dumps(task_data)) == task_data


@pytest.mark.parametrize("wrong", [{}, {"secret": "#00f"}, {**data(Game("prize", COLORS), ("blue",)), "family": "x"}])
def test_other_task_data_are_an_error(wrong: Any) -> None:
    with pytest.raises(ValueError, match="task_data must be those of a word game"):
        earned("blue", wrong)


# ---------------------------------------------------------------------------------------------------------- references


def curve(family: str, game: Game, games: int, rounds: int) -> list[float]:
    """The teacher's mean share of the highest reward by round, over secrets drawn anew."""
    kind, rng, sums = FAMILIES[family], Random(0), [0.0] * rounds
    for _ in range(games):
        secret, seen = kind.fitting(game, (), rng), list[Any]()
        for number in range(rounds):
            world = kind.fitting(game, seen, rng)
            assert secret is not None
            assert world is not None
            answer = kind.best(game.options, world)
            seen.append((answer, kind.pay(game.options, answer, secret)))
            sums[number] += seen[-1][1]
    return [total / games for total in sums]


@pytest.mark.parametrize("size", [4, 5, 6])
def test_the_teacher_finds_a_prize_as_fast_as_can_be(size: int) -> None:
    """One word of `size` is tried after the other: it is found by round e with a probability of e / size."""
    wins = curve("prize", Game("prize", vocabularies.TRAINING["color"][:size]), 3000, 6)
    assert wins == pytest.approx([min(1, number / size) for number in range(1, 7)], abs=0.03)


def test_the_teacher_draws_the_amounts_that_it_does_not_know_from_those_that_are_left() -> None:
    """All three others are below .8 with a probability of (8 of 10 over 3) = 7/15: then it keeps to what it has."""
    game, rng = Game("amounts", COLORS), Random(0)
    worlds = [FAMILIES["amounts"].fitting(game, [(("red",), 0.8)], rng) for _ in range(6000)]
    drawn = [world for world in worlds if world is not None]
    kept = sum(FAMILIES["amounts"].best(COLORS, world) == ("red",) for world in drawn) / 6000
    assert kept == pytest.approx(7 / 15, abs=0.02)
    assert all(world[0] == 0.8 and len(set(world) & set(AMOUNTS)) == 4 for world in drawn)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"amounts"}))  # there it may try a worse word at any time
def test_the_teacher_has_found_the_secret_in_the_end(family: str) -> None:
    for seed in range(2):
        made = instance(family, "wordings", seed)
        output, episodes = play(create_icrl(posterior, earned, rounds=10, schedule="plain", seed=seed), made.inputs())
        assert episodes[-1]["reward"]["metric"] == 1.0
        assert output["answer"] == write_answer(FAMILIES[family].best(made.game.options, made.secret))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_answers_what_every_reward_so_far_allows(family: str, scale: Any) -> None:
    made = instance(family, "train", 1, scale=scale)
    _, episodes = play(create_icrl(posterior, earned, rounds=5, schedule="plain", seed=2), made.inputs())
    values: list[Any] = [episode["reward"]["value"] for episode in episodes]
    given = [episode["response"] for episode in episodes]
    for number, response in enumerate(given[1:], 1):
        if response in given[:number]:  # it comes back to the best one alone
            assert values[number] == max(values[:number])


@pytest.mark.parametrize("player", ["uniform", "within", "posterior"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_every_reference_plays_every_family_by_its_name(player: str, family: str, layout: str) -> None:
    made = instance(family, "words", 1)
    _, episodes = play(create_icrl(f"{REFERENCES}{player}", earned, rounds=4, layout=layout, seed=0), made.inputs())
    given = [read_answer(episode["response"], made.game.options, made.game.length) for episode in episodes]
    assert all(answer in answers(made.game) for answer in given)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_reference_plays_in_every_method(topology: str) -> None:
    graph = build(topology, posterior, earned, seed=0)
    _, episodes = play(graph, instance("order", "words", 1).inputs())
    assert len(episodes) == 8
    assert all(episode["reward"]["value"] is not None for episode in episodes)


@pytest.mark.parametrize("player", [uniform, within])
def test_references_that_read_no_rewards_answer_anything_as_often(player: Any) -> None:
    rng, prompt = Random(0), [{"role": "user", "content": write(Game("prize", COLORS), PRIZE, "color")}]
    counts = Counter(player(prompt, rng) for _ in range(400))
    assert counts.keys() == set(COLORS)
    assert max(counts.values()) < 140


@pytest.mark.parametrize("show", ["zero", "constant:0.05", "hidden"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_plays_on_where_rewards_are_not_true(family: str, show: str) -> None:
    made = instance(family, "seeds", 0)
    _, episodes = play(create_icrl(posterior, earned, rounds=8, show=show, seed=0), made.inputs())
    assert all("error" not in episode for episode in episodes)


def test_a_reference_plays_no_other_task() -> None:
    with pytest.raises(ValueError, match="none of the word games"):
        uniform([{"role": "user", "content": "Say hello."}], Random(0))


# ----------------------------------------------------------------------------------------------------------- benchmark


def test_the_first_games_of_the_benchmark_are_of_all_families_and_held_out_splits() -> None:
    names = items()
    kinds = [name.rpartition(":")[0] for name in names[:15]]
    assert kinds == [f"{family}:{split}" for split in HELD_OUT for family in FAMILIES]
    assert len(names) == 15 * GAMES


def test_games_are_chosen_by_split_and_family() -> None:
    benchmark = find_benchmark("words")
    assert len(benchmark.choose(["prize:words:*"])) == GAMES
    assert benchmark.choose(["prize:train:5"]) == ["prize:train:5"]
    item = find_item("words:order:wordings:7")
    assert item is not None
    assert item.inputs == instance("order", "wordings", 7).inputs()


@pytest.mark.parametrize("wrong", ["prize", "prize:words", "prize:words:x", "prize:words:-1", "chess:words:1"])
def test_an_item_that_there_is_not_is_an_error(wrong: str) -> None:
    with pytest.raises(ValueError, match="written like 'prize:words:17'|unknown family 'chess'"):
        read_item(wrong)


def test_a_comparison_shows_who_learns_from_rewards() -> None:
    arms = f"icrl,best_of_n,icrl+show=zero,icrl+model={REFERENCES}uniform"
    result = compare(
        "words", arms, model=f"{REFERENCES}posterior", items=["prize:words:?", "order:wordings:?"], rounds=6
    )
    assert not result.failures
    last: dict[str, list[Any]] = {}
    for row in result.rows.values():
        last.setdefault(row["arm"], []).append(row["episodes"][-1]["reward"]["metric"])
    solved = {arm: sum(metrics) / len(metrics) for arm, metrics in last.items()}
    assert solved.pop("icrl") == 1.0
    assert max(solved.values()) < 0.6


def test_the_chat_of_a_benchmark_game_is_answers_and_rewards_alone() -> None:
    made, benchmark = instance("prize", "words", 0), find_benchmark("words")
    prompts: list[Any] = []

    def player(messages: Any) -> str:
        prompts.append(messages)
        return "none of these"

    play(create_icrl(player, benchmark.evaluator, rounds=2, **benchmark.options), made.inputs())
    assert [message["content"] for message in prompts[-1]] == [made.task, "none of these", "Reward: 0"]
