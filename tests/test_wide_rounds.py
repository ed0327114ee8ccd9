"""Rounds of several attempts that are made side by side: `width` and `spread`, for every method that has rounds."""

import asyncio
import hashlib
import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph import FunctionModel, ModelError, RateLimit, chat_model, improve
from icrl_graph.models.learners import game24 as learner
from icrl_graph.preview import preview
from icrl_graph.prompts.layouts import parse
from icrl_graph.prompts.plan import SPREADS
from icrl_graph.prompts.templates import DIFFER, EXPLORE, INSTRUCTIONS, fill, told_apart
from icrl_graph.tasks.game24.game import player as game24_player
from icrl_graph.tasks.game24.game import prune
from icrl_graph.tasks.game24.puzzles import task as puzzle
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import create_icrl, create_reflexion
from icrl_graph.topologies.revision import arevise, revise
from tests.helpers import GAME, digest, nearness, play, thread, without_cost
from tests.promises.ways import WAYS

LOOPS = ("icrl", "reflexion", "self_refine")
REFLECTING = LOOPS[1:]
USAGE: Any = {"input_tokens": 50, "output_tokens": 10, "total_tokens": 60}


def words(messages: Any, rng: Random) -> str:
    """A number that any change of the prompt or the seed changes."""
    return str(int(hashlib.sha256(f"{json.dumps(messages)}{rng.random()}".encode()).hexdigest()[:6], 16) % 100)


def places(episodes: Any) -> list[tuple[int, int]]:
    return [(each["round"], each["candidate"]) for each in episodes]


def attempts(prompts: Any) -> list[list[Any]]:
    """The attempts that each prompt shows, for those that ask for one."""
    return [list(parse(prompt).attempts) for prompt in prompts]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", LOOPS)
def test_the_attempts_of_a_round_see_all_rounds_before_and_none_of_each_other(method: str, way: str) -> None:
    options: Any = {"topology": method, "memory": "all", "width": 3, "rounds": 3, "seed": 1}
    if method == "reflexion":
        options["show_attempts"] = True
    result = WAYS[way](**GAME, score=nearness, model=FunctionModel(reply=words), **options)
    assert places(result.episodes) == [(number, candidate) for number in range(3) for candidate in range(3)]
    for episode in result.episodes:
        assert episode["plan"]["shown"] == ([[0, 3 * episode["round"]]] if episode["round"] else [])
    reflected = [each["round"] for each in result.episodes if "reflection" in each]
    assert reflected == ([0, 0, 0, 1, 1, 1] if method in REFLECTING else [])
    assert result.usage["calls"] == 9 + len(reflected)


@pytest.mark.parametrize("way", WAYS)
def test_best_of_n_is_one_wide_round_of_icrl(way: str) -> None:
    run: Any = {**GAME, "score": nearness, "model": FunctionModel(reply=words), "schedule": "plain", "seed": 3}
    best = WAYS[way](**run, topology="best_of_n", n=5)
    wide = WAYS[way](**run, width=5, rounds=1)
    assert without_cost(best.episodes) == without_cost(wide.episodes)
    assert (best.answer, best.usage["calls"]) == (wide.answer, wide.usage["calls"])


@pytest.mark.parametrize("spread", SPREADS)
def test_a_round_of_one_attempt_is_the_same_whatever_the_spread(spread: str) -> None:
    run: Any = {**GAME, "score": nearness, "model": FunctionModel(reply=words), "rounds": 4, "seed": 3}
    assert without_cost(improve(**run).episodes) == without_cost(improve(**run, width=1, spread=spread).episodes)


def test_the_width_is_a_setting_of_a_run() -> None:
    _, episodes = play(create_icrl(digest, nearness, rounds=2), context={"width": 2})
    assert places(episodes) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": "two"}, {"spread": "explor"}, {"spread": lambda x: x}])
def test_a_wrong_width_or_spread_is_refused_where_the_graph_is_built(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        create_icrl(digest, nearness, **wrong)


# ------------------------------------------------------------------------------------------------------------- spreads


def test_all_but_the_first_attempt_of_a_round_may_explore_at_a_temperature_of_their_own() -> None:
    asked: list[Any] = []

    def reply(messages: Any, temperature: Any) -> str:
        asked.append((parse(messages).instruction, temperature))
        return "7"

    options: Any = {"schedule": "exploit", "spread": "explore", "sampling": {"explore": {"temperature": 1.3}}}
    improve(**GAME, score=nearness, model=FunctionModel(reply=reply), width=3, rounds=1, **options)
    assert sorted(asked, key=str) == sorted([(INSTRUCTIONS["exploit"], None), (EXPLORE, 1.3), (EXPLORE, 1.3)], key=str)


def test_the_attempts_of_a_round_may_be_told_their_numbers() -> None:
    model = ScriptedModel(lambda: "7")
    improve(**GAME, score=nearness, model=model, width=3, rounds=1, spread="differ")
    assert sorted(told_apart(parse(prompt).instruction) for prompt in model.prompts) == [(0, 3), (1, 3), (2, 3)]


@given(st.integers(1, 99), st.integers(1, 99))
def test_a_player_reads_which_attempt_it_is_told_to_make(number: int, width: int) -> None:
    assert told_apart(fill(DIFFER, number=number, width=width)) == (number - 1, width)
    assert told_apart(fill(DIFFER, number=number, width=width) + "!") == (0, 1)


def test_a_spread_may_be_a_function() -> None:
    def by_number(instruction: str, candidate: int, width: int) -> str:
        return f"{instruction} {candidate + 1}/{width}"

    _, episodes = play(create_icrl(digest, nearness, width=2, rounds=1, spread=by_number))
    assert [each["plan"]["instruction"] for each in episodes] == ["explore 1/2", "explore 2/2"]
    wrong: Any = lambda instruction, candidate, width: 3  # noqa: E731
    with pytest.raises(ValueError, match="the spread must return the name of an instruction or a text, got 3"):
        play(create_icrl(digest, nearness, width=2, spread=wrong))


@pytest.mark.parametrize("layout", ["turns", "transcript"])
@pytest.mark.parametrize("spread", SPREADS)
def test_prompts_of_wide_rounds_go_on_with_those_of_the_round_before(spread: str, layout: str) -> None:
    model = ScriptedModel(words)
    result = improve(**GAME, score=nearness, model=model, width=3, rounds=5, spread=spread, layout=layout)
    assert result.usage.get("breaks", 0) == 0
    if layout == "turns":  # what the first attempt of a round was asked is the beginning of all prompts of the next
        flat = ["".join(f"<{m['role']}>{m['content']}" for m in prompt) for prompt in model.prompts]
        rounds = [flat[at : at + 3] for at in range(0, 15, 3)]
        for before, after in pairwise(rounds):
            assert any(all(longer.startswith(first) for longer in after) for first in before)


def test_siblings_of_a_player_of_game_of_24_take_different_ways() -> None:
    """Once there is a history, which tells them apart from those of another run."""
    answers: list[str] = []
    reply = game24_player(prune, learner.base("none"))

    def recorded(messages: Any, rng: Random) -> str:
        answers.append(reply(messages, rng, None))
        return answers[-1]

    score: Any = lambda response: {"value": 0.0, "steps": [0, 0, 0]}  # noqa: E731
    task: Any = puzzle((4, 5, 6, 10))
    improve(**task, score=score, model=FunctionModel(reply=recorded), width=3, rounds=3, spread="differ", seed=1)
    for number in (1, 2):
        first_steps = {answer.splitlines()[0] for answer in answers[3 * number : 3 * number + 3]}
        assert len(first_steps) == 3


# ------------------------------------------------------------------------------------------ budgets, failures, resuming


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", LOOPS)
@pytest.mark.parametrize("cap", [2, 4, 5, 7])
def test_a_cap_of_calls_in_a_wide_round_loses_no_attempt_that_was_paid(method: str, way: str, cap: int) -> None:
    model = ScriptedModel(words)
    result = WAYS[way](**GAME, score=nearness, model=model, topology=method, width=3, rounds=9, max_calls=cap)
    answered = [each for each in result.episodes if "response" in each]
    reflected = [each for each in result.episodes if "reflection" in each]
    assert (result.stopped, result.usage["calls"]) == ("calls", len(model.prompts))
    assert len(model.prompts) == len(answered) + len(reflected) <= cap
    assert all(each["reward"]["value"] is not None for each in answered)
    latest = result.episodes[-1]["round"]
    assert all(each["round"] < latest for each in reflected)  # no words are paid that no attempt reads
    assert method != "icrl" or len(model.prompts) == cap


@pytest.mark.parametrize("way", WAYS)
def test_a_cap_of_tokens_in_a_wide_round_loses_no_attempt_that_was_paid(way: str) -> None:
    model = ScriptedModel(words, usage=USAGE)
    result = WAYS[way](**GAME, score=nearness, model=model, width=3, rounds=9, max_tokens=300)
    assert (result.stopped, len(model.prompts), result.usage["input"] + result.usage["output"]) == ("tokens", 5, 300)
    assert sorted(each["reward"]["value"] is not None for each in result.episodes) == [False] + [True] * 5
    assert result.reward == max(value for value in result.rewards if value is not None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", LOOPS)
@pytest.mark.parametrize("fails_at", [2, 6, 11])
def test_a_wide_run_that_breaks_off_pays_nothing_twice_but_what_was_in_flight(
    method: str, way: str, fails_at: int, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def reply(messages: Any, rng: Random) -> str:
        asked.append(messages)
        if len(asked) == fails_at:
            raise ModelError("the key has expired")
        return words(messages, rng)

    run: Any = {**GAME, "score": nearness, "topology": method, "width": 3, "rounds": 3, "seed": 1}
    whole = improve(**run, model=FunctionModel(reply=words))
    once: Any = {**run, "model": FunctionModel(reply=reply), "path": tmp_path / "run.sqlite"}
    if fails_at <= whole.usage["calls"]:
        with pytest.raises(ModelError):
            WAYS[way](**once)
    result = WAYS[way](**once)
    assert without_cost(result.episodes) == without_cost(whole.episodes)
    beside = 2 if way == "async" else 0
    assert whole.usage["calls"] <= len(asked) <= whole.usage["calls"] + 1 + beside


def test_more_rounds_begin_with_the_reflections_that_are_missing() -> None:
    compiled = create_reflexion(FunctionModel(reply=words), nearness, width=2, rounds=1).compile(
        checkpointer=InMemorySaver()
    )
    compiled.invoke(GAME, thread())
    compiled.invoke({"more": 1}, thread())
    episodes = compiled.get_state(thread()).values["episodes"]
    assert [("reflection" in each) for each in episodes] == [True, True, False, False]
    assert places(episodes) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("method", LOOPS)
def test_a_wide_run_is_extended(method: str, tmp_path: Path) -> None:
    run: Any = {
        **GAME,
        "score": nearness,
        "model": FunctionModel(reply=words),
        "topology": method,
        "width": 2,
        "seed": 1,
    }
    short = improve(**run, rounds=2, path=tmp_path / "run.sqlite")
    longer = improve(**run, rounds=3, path=tmp_path / "run.sqlite")
    assert [each.get("response") for each in longer.episodes[:4]] == [each["response"] for each in short.episodes]
    assert without_cost(longer.episodes) == without_cost(improve(**run, rounds=3).episodes)


@pytest.mark.parametrize("way", WAYS)
def test_one_failing_attempt_of_a_wide_round_does_not_lose_its_siblings(way: str) -> None:
    with OpenAIServer(lambda: "40", faults={2: "refused", 5: "refused"}) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        limit = RateLimit(max_concurrency=1)
        result = WAYS[way](**GAME, score=nearness, model=model, width=3, rounds=2, rate_limit=limit)
    assert sorted("response" in each for each in result.episodes) == [False, False, True, True, True, True]
    assert (result.stopped, result.reward) == ("rounds", 0.98)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_person_revises_one_attempt_of_a_round_and_asks_all_of_the_next(is_async: bool) -> None:
    graph = create_icrl(FunctionModel(reply=words), nearness, width=2, rounds=2, spread="differ").compile(
        checkpointer=InMemorySaver()
    )
    graph.invoke(GAME, thread())
    if is_async:
        branch = asyncio.run(arevise(graph, thread(), 0, candidate=1, reward=0.1, instruction="Be bold."))
    else:
        branch = revise(graph, thread(), 0, candidate=1, reward=0.1, instruction="Be bold.")
    graph.invoke(None, branch)
    episodes = graph.get_state(thread()).values["episodes"]
    assert episodes[1]["shown"]["value"] == 0.1
    assert [each["plan"]["instruction"] for each in episodes[2:]] == ["Be bold."] * 2


def test_events_tell_the_attempts_of_each_round() -> None:
    graph = create_icrl(FunctionModel(reply=words), nearness, width=2, rounds=2).compile()
    events: list[Any] = list(graph.stream(GAME, stream_mode="custom"))
    assert [each["attempts"] for each in events if each["type"] == "round"] == [2, 2]
    told = [places([each])[0] for each in events if each["type"] == "episode"]
    assert told == [(0, 0), (0, 1), (1, 0), (1, 1)]


# ------------------------------------------------------------------------------------------------ the provider's cache


def long_answer(messages: Any, rng: Random) -> str:
    return " ".join(f"{rng.randrange(10_000):04d}" for _ in range(120))


@pytest.mark.parametrize("way", WAYS)
def test_of_a_model_that_streams_siblings_find_their_prompt_in_the_providers_cache(way: str) -> None:
    with OpenAIServer(long_answer, cache_block=16, latency=0.01) as server:
        model = chat_model("openai:any", base_url=server.base_url, streaming=True)
        options: Any = {"model": model, "width": 3, "rounds": 6, "seed": 1}
        result = WAYS[way]("Write. " * 700, lambda: 0.5, **options)
    costs = [each["costs"]["generate"] for each in result.episodes]
    of_siblings = [
        sorted(cost["cached"] / cost["input"] for cost in costs[at : at + 3])[1:] for at in range(0, len(costs), 3)
    ]
    assert min(min(shares) for shares in of_siblings) >= 0.98


@pytest.mark.parametrize("way", WAYS)
def test_without_a_stream_only_the_first_round_waits_for_the_providers_cache(way: str) -> None:
    with OpenAIServer(lambda: "1", cache_block=16, latency=0.05) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = WAYS[way]("Write. " * 700, lambda: 0.5, model=model, width=2, rounds=2)
    first, second = ([each["costs"]["generate"]["cached"] for each in result.episodes[at : at + 2]] for at in (0, 2))
    assert sorted(value > 0 for value in first) == [False, True]
    assert second[0] == second[1] > 0


# ------------------------------------------------------------------------------------------ arms, previews, the command


def test_a_preview_counts_all_attempts_of_wide_rounds() -> None:
    run: Any = {"task": "x", "score": nearness, "model": FunctionModel(reply=words), "width": 3, "rounds": 2}
    assert preview(**run)["calls"] == 6
    assert preview(**run, topology="reflexion")["calls"] == 9
