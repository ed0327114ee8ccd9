"""Aggregation over wide rounds: draws of the latest round, its majority, and one text about all of it."""

import asyncio
from itertools import count
from pathlib import Path
from random import Random
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph import FunctionModel, ModelError, improve
from icrl_graph.benchmarks.arms import read_arm
from icrl_graph.evaluators.mathematics import majority
from icrl_graph.preview import preview
from icrl_graph.prompts.layouts import LAYOUTS, flat, parse
from icrl_graph.prompts.memory import sample
from icrl_graph.prompts.templates import AGGREGATE, DISTILL
from icrl_graph.state.episode import Episode
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl, create_reflexion, create_self_refine
from icrl_graph.topologies.nodes import prompt
from icrl_graph.topologies.revision import revise
from tests.helpers import GAME, digest, nearness, play, thread, without_cost
from tests.promises.ways import WAYS
from tests.test_wide_rounds import words

AGGREGATED: Any = {"memory": "sample:2", "schedule": "aggregate", "width": 4, "rounds": 3, "seed": 1}
DISTILLED: Any = {"topology": "reflexion", "distill": True, "memory": "reflections:1", "width": 3, "rounds": 3}


def shown(episode: Any) -> list[int]:
    return [at for start, end in episode["plan"]["shown"] for at in range(start, end)]


def asked(messages: Any) -> str:
    return parse(messages).instruction


# --------------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("way", WAYS)
def test_each_attempt_of_a_round_draws_for_itself_of_the_round_before(way: str) -> None:
    result = WAYS[way](**GAME, score=nearness, model=FunctionModel(reply=words), **AGGREGATED)
    assert [shown(each) for each in result.episodes[:4]] == [[]] * 4
    for number in (1, 2):
        draws = [shown(each) for each in result.episodes[4 * number : 4 * number + 4]]
        assert all(len(draw) == 2 and {*draw} <= {*range(4 * number - 4, 4 * number)} for draw in draws)
        assert len({*map(tuple, draws)}) > 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_holds_what_was_drawn_and_asks_for_one_better_attempt_of_it(layout: str) -> None:
    model = ScriptedModel(words)
    result = improve(**GAME, score=nearness, model=model, layout=layout, **AGGREGATED)
    prompts = {tuple(attempt.response for attempt in parse(prompt).attempts) for prompt in model.prompts[4:]}
    drawn = {tuple(result.episodes[at]["response"] for at in shown(each)) for each in result.episodes[4:]}
    assert prompts == drawn
    assert [*map(asked, model.prompts)] == [""] * 4 + [AGGREGATE] * 8


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), max_size=4), st.integers(1, 5), st.integers())
def test_draws_are_different_answered_attempts_of_the_latest_round_that_has_any(
    rounds: list[list[bool]], count: int, seed: int
) -> None:
    past: list[Episode] = [
        {"round": number, "candidate": at, **({"response": "x"} if answered else {})}
        for number, attempts in enumerate(rounds)
        for at, answered in enumerate(attempts)
    ]
    latest = max((each["round"] for each in past if "response" in each), default=None)
    pool = {at for at, each in enumerate(past) if "response" in each and each["round"] == latest}
    drawn = sample(count)(past, Random(seed))
    assert {*drawn} <= pool
    assert len({*drawn}) == len(drawn) == min(count, len(pool))


def test_draws_repeat_with_the_seed_and_differ_without() -> None:
    def draws(seed: int) -> Any:
        _, episodes = play(create_icrl(digest, nearness, **{**AGGREGATED, "width": 9, "seed": seed}))
        return [shown(each) for each in episodes]

    assert draws(1) == draws(1) != draws(2)


def test_a_memory_of_ones_own_draws_for_each_attempt_if_it_takes_a_generator() -> None:
    def any_one(past: Any, random: Random) -> list[int]:
        assert "reward" not in str(past)
        return [random.randrange(len(past))] if past else []

    for create in (create_icrl, create_self_refine):
        _, episodes = play(create(digest, lambda: 0.5, memory=any_one, width=9, rounds=2, seed=1))
        draws = [shown(each) for each in episodes[9:]]
        assert all(len(draw) == 1 for draw in draws)
        assert len({*map(tuple, draws)}) > 1


@pytest.mark.parametrize("setting", ["memory", "switch_memory"])
def test_more_than_a_round_has_can_not_be_drawn(setting: str) -> None:
    given: Any = {setting: "sample:3", **({"switch_after": 1} if setting == "switch_memory" else {})}
    refusal = f"{setting}='sample:3' draws 3 attempts of a round, which has width=.: .*sample:., or width=3"
    for width in (1, 2):
        with pytest.raises(ValueError, match=refusal):
            create_icrl(digest, nearness, width=width, **given)
    with pytest.raises(ValueError, match=refusal):
        play(create_icrl(digest, nearness, width=3, **given), context={"width": 2})
    create_icrl(digest, nearness, width=3, **given)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fails_at", [2, 6, 11])
def test_a_run_that_breaks_off_draws_the_same_again_and_pays_nothing_twice_but_what_was_in_flight(
    way: str, fails_at: int, tmp_path: Path
) -> None:
    prompts: list[Any] = []

    def reply(messages: Any, rng: Random) -> str:
        prompts.append(messages)
        if len(prompts) == fails_at:
            raise ModelError("the key has expired")
        return words(messages, rng)

    run: Any = {**GAME, "score": nearness, **AGGREGATED}
    whole = improve(**run, model=FunctionModel(reply=words))
    once: Any = {**run, "model": FunctionModel(reply=reply), "path": tmp_path / "run.sqlite"}
    with pytest.raises(ModelError):
        WAYS[way](**once)
    assert without_cost(WAYS[way](**once).episodes) == without_cost(whole.episodes)
    assert len(prompts) <= 12 + 1 + (3 if way == "async" else 0)


def test_an_extended_run_draws_of_its_last_round() -> None:
    graph = create_icrl(digest, nearness, **AGGREGATED).compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    graph.invoke({"more": 1}, thread())
    drawn = [shown(each) for each in graph.get_state(thread()).values["episodes"][12:]]
    assert [len(each) for each in drawn] == [2] * 4
    assert all(8 <= at < 12 for each in drawn for at in each)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_prompt_of_each_attempt_of_a_round_is_made_again_from_what_it_drew(layout: str) -> None:
    model = ScriptedModel(words)
    graph = create_icrl(model, nearness, layout=layout, **AGGREGATED)
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke(GAME, thread())
    state: Any = compiled.get_state(thread()).values
    made = [flat(prompt(state, graph.parts, at)) for at in range(12)]
    assert sorted(map(str, made)) == sorted(map(str, model.prompts))


def test_events_tell_how_much_each_attempt_of_a_round_is_made_of() -> None:
    events: list[Any] = list(create_icrl(digest, nearness, **AGGREGATED).compile().stream(GAME, stream_mode="custom"))
    told = [(each["attempts"], each["shown"], each["left_out"]) for each in events if each["type"] == "round"]
    assert told == [(4, 0, 0), (4, 2, 2), (4, 2, 6)]


@pytest.mark.parametrize("spread", ["same", "differ"])
def test_attempts_that_drew_differently_do_not_wait_for_each_others_prompt(spread: str) -> None:
    both, turns = Barrier(2), count()

    def model(messages: Any) -> str:
        if parse(messages).attempts:
            both.wait(timeout=30)
        return "7"

    def one_each(past: Any, random: Random) -> list[int]:
        return [next(turns) % 2] if past else []

    options: Any = {"memory": one_each, "layout": "transcript", "spread": spread, "width": 2, "rounds": 2}
    result = improve("Write. " * 3000, lambda: 0.5, model=FunctionModel(reply=model), **options)
    assert [each.get("response") for each in result.episodes] == ["7"] * 4


# ------------------------------------------------------------------------------------------------------------ majority


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("select", "answer"), [("reward", "42"), ("majority", "5"), ("last_majority", "7")])
def test_the_answer_may_be_the_majority_of_all_attempts_or_of_the_last_round(
    way: str, select: str, answer: str
) -> None:
    turns = iter([*"5555", "42", *"771"])
    options: Any = {"score": nearness, "model": lambda: next(turns), "select": select, "width": 4, "rounds": 2}
    assert WAYS[way](**GAME, **options).answer == answer


def test_an_arm_may_be_answered_by_the_majority_of_its_last_round() -> None:
    arm = read_arm("icrl+width=4+memory=sample:2+schedule=aggregate+show=hidden+select=last_majority")
    options = arm.arguments(8, {})
    assert (options["rounds"], options["select"]) == (2, "last_majority")
    with pytest.raises(ValueError, match="retests require select='reward'"):
        create_icrl(digest, nearness, select="majority", retests=2)


@pytest.mark.parametrize("way", WAYS)
def test_an_evaluator_may_ask_for_the_other_attempts_of_the_round(way: str) -> None:
    seen = []

    def score(response: str, siblings: Any) -> float:
        seen.append((response, sorted(each["response"] for each in siblings)))
        return 0.5

    turns = iter("123456")
    WAYS[way]("Say it.", score, model=lambda: next(turns), width=3, rounds=2)
    assert sorted(seen) == [(a, [b for b in group if b != a]) for group in ("123", "456") for a in group]


def test_the_majority_of_a_wide_round_is_its_reward() -> None:
    turns = iter(["1", "1", "2", "2", "2", "3"])
    result = improve("Guess.", majority, model=lambda: f"<answer>{next(turns)}</answer>", width=3, rounds=2)
    assert [sorted(result.rewards[at : at + 3], key=str) for at in (0, 3)] == [[0, 1, 1], [0, 1, 1]]
    assert result.rewarded_by == "self-judged"


# -------------------------------------------------------------------------------------------- one text about a round


def noting(messages: Any, rng: Random) -> str:
    """Attempts that any change of the prompt changes; notes that hold the attempts that they are about."""
    prompt = parse(messages)
    if prompt.instruction == DISTILL:
        return f"notes on {' and '.join(attempt.response for attempt in prompt.attempts)}"
    return words(messages, rng)


@pytest.mark.parametrize("way", WAYS)
def test_one_text_is_written_about_all_attempts_of_a_round_and_the_next_see_it_alone(way: str) -> None:
    model = ScriptedModel(noting)
    result = WAYS[way](**GAME, score=nearness, model=model, **DISTILLED)
    assert [at for at, each in enumerate(result.episodes) if "reflection" in each] == [2, 5]
    attempts = [each["response"] for each in result.episodes]
    assert result.episodes[5]["reflection"] == f"notes on {' and '.join(attempts[3:6])}"
    assert result.usage["calls"] == len(model.prompts) == 11
    last = [prompt for prompt in model.prompts if asked(prompt) != DISTILL][6:]
    assert all(result.episodes[5]["reflection"] in str(prompt) for prompt in last)
    assert not any(result.episodes[2]["reflection"] in str(prompt) for prompt in last)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fails_at", [2, 4, 7, 8])
def test_a_run_with_such_texts_that_breaks_off_goes_on_as_if_it_had_not(
    way: str, fails_at: int, tmp_path: Path
) -> None:
    prompts: list[Any] = []

    def reply(messages: Any, rng: Random) -> str:
        prompts.append(messages)
        if len(prompts) == fails_at:
            raise ModelError("the key has expired")
        return noting(messages, rng)

    run: Any = {**GAME, "score": nearness, "seed": 1, **DISTILLED}
    whole = improve(**run, model=FunctionModel(reply=noting))
    once: Any = {**run, "model": FunctionModel(reply=reply), "path": tmp_path / "run.sqlite"}
    with pytest.raises(ModelError):
        WAYS[way](**once)
    assert without_cost(WAYS[way](**once).episodes) == without_cost(whole.episodes)
    assert len(prompts) <= 11 + 1 + (2 if way == "async" else 0)


@pytest.mark.parametrize("cap", range(1, 12))
def test_a_cap_of_calls_pays_no_such_text_that_no_attempt_reads(cap: int) -> None:
    model = ScriptedModel(noting)
    judge: Any = RunnableLambda(lambda given: 0.5)
    options: Any = {**DISTILLED, "rounds": 9}
    free = improve(**GAME, score=lambda: 0.5, model=model, max_calls=cap, **options)
    assert free.usage["calls"] == len(model.prompts) <= cap
    assert cap - len(model.prompts) <= (cap % 4 == 0)  # a text alone is not begun
    assert "reflection" not in free.episodes[-1]
    judged = improve(**GAME, score=judge, model=ScriptedModel(noting), max_calls=cap, **options)
    assert judged.usage["calls"] <= cap
    assert cap == 1 or all(each["reward"]["value"] == 0.5 for each in judged.episodes)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_more_rounds_begin_with_the_text_that_is_missing_and_write_none_twice(is_async: bool) -> None:
    model = ScriptedModel(noting)
    options: Any = {name: value for name, value in DISTILLED.items() if name != "topology"}
    graph = create_reflexion(model, nearness, **{**options, "rounds": 1}).compile(checkpointer=InMemorySaver())
    for inputs in (GAME, {"more": 1}, {"more": 1}):
        _ = asyncio.run(graph.ainvoke(inputs, thread())) if is_async else graph.invoke(inputs, thread())
    episodes = graph.get_state(thread()).values["episodes"]
    assert [at for at, each in enumerate(episodes) if "reflection" in each] == [2, 5]
    assert len(model.prompts) == 11


def test_a_preview_counts_one_text_a_round() -> None:
    assert preview("x", nearness, model=FunctionModel(reply=words), **DISTILLED)["calls"] == 11


def test_where_no_attempt_of_a_round_was_answered_there_is_no_text() -> None:
    model = ScriptedModel([RuntimeError("down")] * 3 + ["1", "2", "3"])
    result = improve(**GAME, score=nearness, model=model, **{**DISTILLED, "rounds": 2})
    assert (len(model.prompts), [each for each in result.episodes if "reflection" in each]) == (6, [])


def test_a_text_about_a_round_is_written_anew_on_a_reward_that_a_person_changed() -> None:
    options: Any = {name: value for name, value in DISTILLED.items() if name != "topology"}
    model = ScriptedModel(noting)
    graph = create_reflexion(model, nearness, **{**options, "rounds": 2}).compile(checkpointer=InMemorySaver())
    graph.invoke(GAME, thread())
    branch = revise(graph, thread(), 0, candidate=1, reward=0.125)
    graph.invoke(None, branch)
    episodes = graph.get_state(thread()).values["episodes"]
    assert [at for at, each in enumerate(episodes) if "reflection" in each] == [2]
    asked_again = [prompt for prompt in model.prompts if asked(prompt) == DISTILL]
    assert [0.125 in [each.value for each in parse(prompt).attempts] for prompt in asked_again] == [False, True]
