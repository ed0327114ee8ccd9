"""Reflexion, Self-Refine and the selections of Best-of-N: what their prompts show, what they answer, what they cost."""

import asyncio
import json
import re
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from icrl_graph import improve
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.layouts import LAYOUTS
from icrl_graph.prompts.plan import make_plan
from icrl_graph.prompts.templates import CRITIQUE, LONG_COT, REFINE, REFLECT, RETRY
from icrl_graph.state.reward import Reward
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import (
    TOPOLOGIES,
    create_best_of_n,
    create_icrl,
    create_reflexion,
    create_self_refine,
)
from tests.helpers import GAME, nearness, play, thread, without_cost


def _asked(messages: Any) -> str:
    return str(messages[-1]["content"])


def reflecting(messages: Any) -> str:
    """Reflects on how far off it was; answers what its last reflection says; 10 at first."""
    if REFLECT in _asked(messages):
        (value,) = re.findall(r"Reward: (\S+)", _asked(messages))
        return (
            "No idea." if value == "hidden" else f"try {int(messages[-2]['content']) + round(100 * (1 - float(value)))}"
        )
    tried = re.findall(r"try (\d+)", _asked(messages))
    return tried[-1] if tried else "10"


def refining(messages: Any) -> str:
    """Finds each answer too small by 10."""
    if CRITIQUE in _asked(messages):
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        return f"too small: {(answers or re.findall('<attempt>.([0-9]+)', _asked(messages), re.S))[-1]}"
    small = re.findall(r"too small: (\d+)", _asked(messages))
    return str(int(small[-1]) + 10) if small else "10"


# ----------------------------------------------------------------------------------------------------------- Reflexion


def test_reflexion_reflects_on_a_failed_attempt_and_succeeds_by_its_reflection() -> None:
    model = ScriptedModel(reflecting)
    output, episodes = play(create_reflexion(model, nearness, target=1.0))
    assert (output["answer"], output["stopped"], output["rounds_done"]) == ("42", "success", 2)
    assert [episode.get("reflection") for episode in episodes] == ["try 42", None]  # none after a success
    assert output["usage"]["calls"] == len(model.prompts) == 3


def test_its_prompts_show_the_last_three_reflections_and_neither_attempts_nor_rewards() -> None:
    model = ScriptedModel(lambda messages: "never again" if REFLECT in _asked(messages) else "7")
    play(create_reflexion(model, nearness, rounds=6))
    attempts = [prompt for prompt in model.prompts if REFLECT not in _asked(prompt)]
    assert [_asked(prompt).count("never again") for prompt in attempts] == [0, 1, 2, 3, 3, 3]
    assert [RETRY in _asked(prompt) for prompt in attempts] == [False] + 5 * [True]
    assert all(len(prompt) == 1 and "Reward:" not in _asked(prompt) for prompt in attempts)


def test_its_reflection_is_written_from_the_last_attempt_alone() -> None:
    model = ScriptedModel(reflecting)
    play(create_reflexion(model, nearness, rounds=3))
    for prompt in model.prompts:
        if REFLECT in _asked(prompt):
            assert [message["role"] for message in prompt] == ["user", "assistant", "user"]
            assert _asked(prompt).count("Reward:") == 1


def test_attempts_are_shown_if_asked_for() -> None:
    model = ScriptedModel(reflecting)
    play(create_reflexion(model, nearness, rounds=2, show_attempts=True))
    assert [message["role"] for message in model.prompts[-1]] == ["user", "assistant", "user"]
    assert "Reward: 0.68" in _asked(model.prompts[-1])
    assert "try 42" in _asked(model.prompts[-1])


@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_an_ablation_reaches_the_reflection_too(layout: str) -> None:
    model = ScriptedModel(lambda messages: "hm" if REFLECT in _asked(messages) else "7")
    play(
        create_reflexion(model, lambda: Reward(value=0.7312, feedback="sesame"), show="hidden", rounds=3, layout=layout)
    )
    assert not [prompt for prompt in model.prompts if "0.7312" in json.dumps(prompt) or "sesame" in json.dumps(prompt)]


def test_a_reflection_that_fails_is_data_and_the_run_goes_on() -> None:
    def model(messages: Any) -> str:
        if REFLECT in _asked(messages):
            raise RuntimeError("out of words")
        return "10"

    output, episodes = play(create_reflexion(ScriptedModel(model), nearness, rounds=3))
    assert output["rounds_done"] == 3
    assert "out of words" in episodes[0]["reflection_error"]
    assert output["usage"]["calls"] == 5  # the failed ones count
    assert "reflection" not in episodes[0]


def test_where_there_is_no_response_there_is_nothing_to_reflect_on() -> None:
    model = ScriptedModel([RuntimeError("down"), "10", "try 42", "42"])
    output, _ = play(create_reflexion(model, nearness, rounds=3, target=1.0))
    assert (output["answer"], len(model.prompts)) == ("42", 4)


def test_another_model_may_reflect() -> None:
    answers, words = ScriptedModel(reflecting), ScriptedModel(reflecting)
    output, _ = play(create_reflexion(answers, nearness, reflector=words, target=1.0))
    assert (output["answer"], len(answers.prompts), len(words.prompts)) == ("42", 2, 1)


@pytest.mark.parametrize("create", [create_reflexion, create_self_refine])
@pytest.mark.parametrize("cap", [1, 2, 3, 4, 5, 8])
def test_no_cap_of_calls_is_passed_and_every_attempt_that_is_begun_is_judged(create: Any, cap: int) -> None:
    model = ScriptedModel(lambda: "10")
    judge: Any = RunnableLambda(lambda given: 0.5)
    output, episodes = play(create(model, judge, rounds=9, max_calls=cap))
    assert output["usage"]["calls"] <= cap
    assert len(model.prompts) <= cap
    if cap >= 3:
        assert all(episode["reward"]["value"] == 0.5 for episode in episodes)


@pytest.mark.parametrize(("create", "model"), [(create_reflexion, reflecting), (create_self_refine, refining)])
def test_async_gives_the_same_as_sync(create: Any, model: Any) -> None:
    graph = create(model, nearness, rounds=4).compile(checkpointer=InMemorySaver())
    asyncio.run(graph.ainvoke(GAME, thread("async")))
    graph.invoke(GAME, thread("sync"))
    both = [graph.get_state(thread(name)).values["episodes"] for name in ("async", "sync")]
    assert without_cost(both[0]) == without_cost(both[1])


def test_every_call_of_a_seeded_run_has_a_seed_of_its_own() -> None:
    seen: list[float] = []

    def model(messages: Any, rng: Any) -> str:
        seen.append(rng.random())
        return "10"

    play(create_reflexion(model, nearness, rounds=4, seed=1))
    once, seen[:] = list(seen), []
    play(create_reflexion(model, nearness, rounds=4, seed=1))
    assert seen == once
    assert len(set(once)) == 7


# --------------------------------------------------------------------------------------------------------- Self-Refine


def test_self_refine_follows_its_own_feedback_and_answers_with_its_last_attempt() -> None:
    model = ScriptedModel(refining)
    output, episodes = play(create_self_refine(model, nearness, rounds=5))
    assert [episode["response"] for episode in episodes] == ["10", "20", "30", "40", "50"]
    assert (output["answer"], output["reward"]) == ("50", 0.92)
    assert output["regret"] == pytest.approx(0.06)  # 40 was nearer
    assert output["usage"]["calls"] == len(model.prompts) == 9


@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_its_prompts_show_all_answers_with_their_feedback_and_never_a_reward(layout: str) -> None:
    model = ScriptedModel(refining)
    judge = lambda response: Reward(value=0.7312, feedback="sesame", steps=[0.9177])  # noqa: E731
    play(create_self_refine(model, judge, rounds=4, layout=layout))
    told = [json.dumps(prompt) for prompt in model.prompts]
    assert not [text for text in told if any(secret in text for secret in ("0.7312", "sesame", "0.9177", "Reward"))]
    last = told[-1]
    assert all(f"too small: {number}" in last for number in (10, 20, 30))
    assert REFINE in last
    assert CRITIQUE not in last


def test_not_even_its_memory_sees_a_reward() -> None:
    model = ScriptedModel(refining)
    seen: list[Any] = []

    def spy(past: Any) -> list[int]:
        seen.extend(past)
        return list(range(len(past)))

    play(create_self_refine(model, nearness, rounds=3, memory=spy))
    assert seen
    assert not [episode for episode in seen if "reward" in episode or episode.get("shown")]
    with pytest.raises(ValueError, match="hidden"):
        play(create_self_refine(model, nearness), context={"show": "true"})


# ----------------------------------------------------------------------------------------------------------- Best-of-N


def test_the_majority_selects_the_answer_that_occurs_most_often() -> None:
    model = ScriptedModel(["41", "50", "42", "50"])
    output, _ = play(create_best_of_n(model, nearness, n=4, select="majority"))
    assert output["answer"] == "50"
    assert output["regret"] == pytest.approx(0.08)


def test_a_selector_of_ones_own_selects_and_is_counted_and_the_reward_does_not() -> None:
    model = ScriptedModel(["41", "42", "7"])
    judge: Any = RunnableLambda(lambda given: float(given["response"] == "7"))
    output, episodes = play(create_best_of_n(model, nearness, n=3, select=judge))
    assert (output["answer"], output["reward"]) == ("7", 0.65)
    assert output["regret"] == pytest.approx(0.35)
    assert output["usage"]["calls"] == 6
    chosen = {episode["response"]: episode["selection"]["value"] for episode in episodes}
    assert chosen == {"41": 0.0, "42": 0.0, "7": 1.0}


def test_what_its_selector_cannot_judge_is_not_selected() -> None:
    def judge(response: str) -> float:
        if response == "42":
            raise RuntimeError("no opinion")
        return 0.1

    output, _ = play(create_best_of_n(ScriptedModel(["42", "41"]), nearness, n=2, select=judge))
    assert output["answer"] == "41"


def test_by_reward_there_is_no_regret() -> None:
    output, _ = play(create_best_of_n(ScriptedModel(["42", "41"]), nearness, n=2))
    assert output["regret"] == 0.0


@pytest.mark.parametrize("wrong", ["best", "", 3])
def test_another_selection_is_refused_with_the_choices(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'reward', 'majority'|selector must be"):
        create_best_of_n(lambda: "", nearness, select=wrong)


def test_one_attempt_that_is_asked_to_think_is_chain_of_thought() -> None:
    model = ScriptedModel(["42"])
    play(create_best_of_n(model, nearness, n=1, schedule="long_cot"))
    assert LONG_COT in _asked(model.prompts[0])


# ------------------------------------------------------------------------------------------------------------- retests


def _regret(retests: int, games: int = 30) -> float:
    """Mean regret of the selection among 8 attempts, whose rewards are much noisier than they differ."""
    rng, regrets = Random(0), list[float]()
    for game in range(games):
        attempts = Random(game)

        def judge(response: str) -> float:
            return float(response) + rng.gauss(0, 1)

        model = ScriptedModel(lambda attempts=attempts: f"{attempts.random():.3f}")
        graph = create_best_of_n(model, judge, metric=lambda response: float(response), n=8, retests=retests)
        regrets.append(play(graph)[0]["regret"])
    return sum(regrets) / games


def test_leaders_that_are_judged_again_are_chosen_with_less_regret_than_the_luckiest() -> None:
    assert _regret(retests=16) < 0.8 * _regret(retests=0)


def test_of_retested_leaders_one_half_of_the_later_judgements_chooses_and_the_other_is_reported() -> None:
    judged = iter([0.9, 0.5, 0.6, *[0.1, 0.8, 0.3], *[1.0, 0.5, 1.0], *[1.0, 0.4, 1.0]])
    output, episodes = play(create_icrl(ScriptedModel(list("abc")), lambda: next(judged), rounds=3, retests=3))
    assert [len(episode["retests"]) for episode in episodes] == [3, 3, 3]
    assert [episode["retests"][0] for episode in episodes] == [0.1, 0.3, 0.8]  # the leaders in their order
    assert (output["answer"], output["reward"], output["metric"]) == ("c", 0.45, 0.45)  # (.6 + .8) / 2 chooses
    assert output["regret"] is None  # the best of noisy numbers is too good, so it has none


def test_a_metric_that_comes_with_the_reward_is_reported_by_the_same_judgements_as_that() -> None:
    judged = iter([0.9, 0.5, 0.1, 0.7])
    graph = create_icrl(lambda: "a", lambda: {"value": (v := next(judged)), "metric": 10 * v}, rounds=2, retests=1)
    output, _ = play(graph)
    assert (output["reward"], output["metric"]) == (0.1, 1.0)


def test_a_metric_of_another_evaluator_was_not_what_chose_and_is_reported_as_it_is() -> None:
    judged = iter([0.9, 0.5, 0.1, 0.7])
    graph = create_icrl(ScriptedModel(["3", "4"]), lambda: next(judged), metric=float_of, rounds=2, retests=1)
    output, _ = play(graph)
    assert (output["reward"], output["metric"], output["regret"]) == (0.1, 3.0, 1.0)


def float_of(response: str) -> float:
    return float(response)


@pytest.mark.parametrize("later", [[None] * 4, [0.5, None, None, 0.5]])
def test_without_a_judgement_that_did_not_choose_there_is_no_reward_and_the_reason_is_saved(later: list[Any]) -> None:
    judged = iter([0.9, 0.5, *later])
    output, episodes = play(create_icrl(lambda: "a", lambda: next(judged), rounds=2, retests=2))
    assert (output["answer"], output["reward"], output["metric"]) == ("a", None, None)
    assert "not judged again" in episodes[0]["reported"][0]["error"]


def test_a_result_says_why_it_has_no_reward() -> None:
    judged = iter([0.9, 0.5, None, None])
    result = improve("t", lambda: next(judged), model=lambda: "a", rounds=2, retests=1)
    assert "no reward: it was not judged again" in repr(result)


def test_calls_are_left_to_judge_the_leaders_again() -> None:
    judge: Any = RunnableLambda(lambda given: 0.5)
    output, _ = play(create_icrl(ScriptedModel(lambda: "a"), judge, rounds=9, retests=1, max_calls=12))
    assert (output["stopped"], output["reward"], output["rounds_done"]) == ("calls", 0.5, 4)


def test_of_retests_only_those_count_that_all_leaders_got_before_the_budget_ended() -> None:
    judge: Any = RunnableLambda(lambda given: 0.5)
    output, episodes = play(create_icrl(ScriptedModel(lambda: "a"), judge, rounds=2, retests=4, max_calls=9))
    assert output["usage"]["calls"] == 9
    assert [episode["retests"] for episode in episodes] == [[0.5, 0.5], [0.5, 0.5]]


def test_a_run_that_gave_up_on_its_model_is_not_judged_again_until_it_ends() -> None:
    model = ScriptedModel(["10", *[RuntimeError("down")] * 3])
    _, episodes = play(create_icrl(model, nearness, rounds=9, retests=3))
    assert not [episode for episode in episodes if "retests" in episode]


def test_no_memory_sees_what_retests_and_selectors_found() -> None:
    plan: Any = {"shown": [], "instruction": "plain", "left_out": 0}
    secret: Any = {
        "round": 0,
        "candidate": 0,
        "plan": plan,
        "reward": {},
        "retests": [0.7],
        "reported": [{"value": 0.7}],
        "selection": {"value": 1.0},
    }
    seen: list[Any] = []
    make_plan(1, [secret], lambda past: seen.extend(past) or [], lambda number, past: "plain")  # type: ignore[func-returns-value]
    assert set(seen[0]) == {"round", "candidate", "plan"}


def test_where_the_reward_chooses_nothing_retests_are_refused() -> None:
    with pytest.raises(ValueError, match="retests=2"):
        create_self_refine(refining, nearness, retests=2)
    with pytest.raises(ValueError, match="retests require select='reward'"):
        create_best_of_n(refining, nearness, retests=2, select="majority")


@pytest.mark.parametrize("wrong", ["best:2", "positive:1"])
def test_self_refine_refuses_a_memory_that_goes_by_rewards(wrong: str) -> None:
    with pytest.raises(ValueError, match="Self-Refine hides"):
        create_self_refine(refining, nearness, memory=wrong)


# ---------------------------------------------------------------------------------------- what a second reader found


def test_the_rewards_bounds_are_not_the_selectors() -> None:
    judge = llm_judge(
        lambda messages: f"Score: {9 if '<attempt>.42' in str(messages).replace(chr(92) + 'n', '.') else 2}", "?"
    )
    model = ScriptedModel(["41", "42", "7"])
    output, _ = play(create_best_of_n(model, nearness, n=3, bounds=(0, 1), select=judge))
    assert output["answer"] == "42"


def test_a_selector_that_could_value_nothing_selects_nothing() -> None:
    output, episodes = play(create_best_of_n(ScriptedModel(["41", "42"]), nearness, n=2, select=lambda: None))
    assert (output["answer"], output["reward"], output["regret"]) == (None, None, None)
    assert len(episodes) == 2


class Number(BaseModel):
    number: int


@pytest.mark.parametrize("create", [create_reflexion, create_self_refine])
def test_words_about_an_answer_are_not_forced_into_the_answers_form(create: Any) -> None:
    def server_says(messages: Any) -> str:
        return (
            '{"number": 7}' if REFLECT not in str(messages[-1]) and CRITIQUE not in str(messages[-1]) else "In words."
        )

    with OpenAIServer(server_says) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        _, episodes = play(create(model, lambda answer: answer["number"] / 10, extract=Number, rounds=2))
    assert episodes[0]["answer"] == {"number": 7}
    assert episodes[0]["reflection"] == "In words."


def _without_words(model: Any, evaluator: Any, **options: Any) -> Any:
    return create_self_refine(model, evaluator, instructions={"refine": "", "critique": ""}, **options)


def _of_responses_alone(model: Any, evaluator: Any, **options: Any) -> Any:
    """A custom method that shows the responses and nothing of what became of them."""
    graph = Graph(model, evaluator, shows=("response",), **options)
    graph.add_edge("prepare", "build_context")
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph


METHODS = [*TOPOLOGIES.values(), _without_words, _of_responses_alone]
FAILURES: dict[str, Any] = {
    "attempts": lambda calls, reflects: calls % 2,
    "reflections": lambda calls, reflects: reflects,
    "both": lambda calls, reflects: reflects or calls % 3 == 0,
}


@pytest.mark.parametrize("create", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("schedule", ["preset", "plain", "retry", "refine"])
@pytest.mark.parametrize("failing", FAILURES)
def test_every_prompt_ends_with_the_users_turn_whatever_has_failed(
    create: Any, layout: str, schedule: str, failing: str
) -> None:
    def reply(messages: Any) -> str:
        calls = len(model.prompts)
        if FAILURES[failing](calls, REFLECT in _asked(messages) or CRITIQUE in _asked(messages)):
            raise RuntimeError("down")
        return str(calls)

    model = ScriptedModel(reply)
    size = {"n": 4} if create is create_best_of_n else {"rounds": 4, "layout": layout, "max_failures": 9}
    play(create(model, nearness, schedule=schedule, **size))
    for prompt in model.prompts:
        assert prompt[-1]["role"] == "user"
        assert not prompt[-1]["content"].startswith("\n")
        roles = [message["role"] for message in prompt]
        assert ("assistant", "assistant") not in pairwise(roles)


def test_the_last_reflections_stay_whatever_fails_after_them() -> None:
    down = [RuntimeError("down")] * 2
    model = ScriptedModel(["10", "lesson", *down, "20"])
    play(create_reflexion(model, nearness, rounds=4, memory="reflections:1"))
    assert "lesson" in _asked(model.prompts[-1])


def test_a_reflection_that_reaches_a_cap_ends_the_run_without_another_round() -> None:
    model = ScriptedModel(lambda: "10", usage={"input_tokens": 5, "output_tokens": 0, "total_tokens": 5})
    output, episodes = play(create_reflexion(model, nearness, rounds=9, max_tokens=8))
    assert (output["stopped"], len(episodes)) == ("tokens", 1)
