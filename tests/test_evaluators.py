"""What is known of an evaluator survives every wrapper: its name, calls, models, frame, source and cost."""

import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from icrl_graph.benchmarks.judges import judge_game24, judge_writing, judge_writing_relative
from icrl_graph.evaluators import (
    BoundEvaluator,
    Reward,
    bind_evaluator,
    human_reward,
    isolated,
    llm_judge,
    pairwise_judge,
    reviewed,
)
from icrl_graph.models import chat_model
from icrl_graph.preview import preview
from icrl_graph.state.choices import name_of_part
from icrl_graph.topologies.methods import create_best_of_n, create_icrl
from tests.helpers import play

RUBRIC = "Is it vivid? " * 50


def halved(evaluator: BoundEvaluator) -> BoundEvaluator:
    """A custom wrapper, as the documentation shows it."""

    def half(**offered: Any) -> Generator[Any, Any, Reward]:
        reward: Reward = yield from evaluator(**offered)
        return {**reward, "value": None if reward["value"] is None else reward["value"] / 2}

    return replace(evaluator, part=half, name=f"halved({evaluator.name})")


JUDGES: dict[str, Callable[[Any], BoundEvaluator]] = {
    "llm_judge": lambda model: llm_judge(model, RUBRIC, samples=3),
    "pairwise_judge": lambda model: pairwise_judge(model, RUBRIC),
    "judge_game24": judge_game24,
    "judge_writing": judge_writing,
    "judge_writing_relative": judge_writing_relative,
}
WRAPPERS: dict[str, Callable[[BoundEvaluator], BoundEvaluator]] = {
    "bound": bind_evaluator,
    "reviewed": reviewed,
    "reviewed twice": lambda judge: reviewed(reviewed(judge, "Sure?")),
    "custom": halved,
    "custom, reviewed": lambda judge: reviewed(halved(judge)),
}
CALLS = {"llm_judge": 3, "pairwise_judge": 2, "judge_game24": 4, "judge_writing": 1, "judge_writing_relative": 1}


@pytest.fixture(scope="module")
def model() -> BaseChatModel:
    return chat_model("openai:judge", base_url="http://127.0.0.1:9/v1")


@pytest.fixture(scope="module")
def other() -> BaseChatModel:
    return chat_model("openai:policy", base_url="http://127.0.0.1:9/v1")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("judge", JUDGES)
def test_a_wrapper_keeps_calls_models_and_frame_and_has_its_judge_in_its_name(
    judge: str, wrapper: str, model: Any
) -> None:
    inner = JUDGES[judge](model)
    outer = WRAPPERS[wrapper](inner)
    assert (outer.calls, outer.models, outer.frame) == (CALLS[judge], (model,), inner.frame)
    assert inner.frame
    assert inner.name in outer.name == name_of_part(outer)
    assert bind_evaluator(outer) is outer


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_judges_are_told_apart_in_a_saved_run_through_every_wrapper(wrapper: str, model: Any, other: Any) -> None:
    judges = [
        *(make(each) for make in JUDGES.values() for each in (model, other)),
        llm_judge(model, "Is it short?"),
        judge_writing(model, (0, 1)),
    ]
    saved = {
        create_icrl(lambda: "x", WRAPPERS[wrapper](judge)).settings().parts["evaluator"]  # what a run is compared by
        for judge in judges
    }
    assert len(saved) == len(judges)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("judge", JUDGES)
def test_a_judge_that_is_the_policy_is_recognised_through_every_wrapper(
    judge: str, wrapper: str, model: Any, other: Any
) -> None:
    evaluator = WRAPPERS[wrapper](JUDGES[judge](model))
    sources = [create_icrl(policy, evaluator).parts.rewarded_by() for policy in (model, other)]
    assert sources == (["human"] * 2 if "reviewed" in wrapper else ["self-judged", "judged"])


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("judge", JUDGES)
def test_a_preview_costs_the_same_through_every_wrapper(judge: str, wrapper: str, model: Any, other: Any) -> None:
    prices: Any = {"judge": {"input": 1.0, "output": 2.0}, "policy": {"input": 3.0, "output": 4.0}}
    inner = JUDGES[judge](model)
    alone, wrapped, free = (
        preview("Write.", score, model=other, rounds=2, prices=prices)
        for score in (inner, WRAPPERS[wrapper](inner), lambda: 0.0)
    )
    assert wrapped == alone
    assert alone["calls"] - free["calls"] == 2 * CALLS[judge]
    assert alone["input"] - free["input"] > 2 * CALLS[judge] * len(inner.frame) // 4
    assert alone["usd"] > free["usd"] > 0


def test_the_unknown_price_of_a_judge_is_refused_through_a_wrapper(model: Any) -> None:
    prices: Any = {"policy": {"input": 1.0, "output": 1.0}}
    for wrap in WRAPPERS.values():
        with pytest.raises(ValueError, match="judge"):
            create_icrl(lambda: "x", wrap(llm_judge(model, RUBRIC)), max_usd=1.0, prices=prices)


# ----------------------------------------------------------------------------------------------------- free evaluators


def nearness(response: str) -> float:
    """An evaluator of a module."""
    return float(response == "fine")


@tool
def checked(response: str) -> float:
    """A tool."""
    return float(response == "fine")


FREE = {"a function": nearness, "a tool": checked, "one that is bound": replace(bind_evaluator(nearness), name="mine")}


@pytest.mark.parametrize("form", FREE)
def test_an_isolated_evaluator_keeps_name_and_arguments_and_is_free(form: str) -> None:
    inner, outer = bind_evaluator(FREE[form]), isolated(FREE[form], workers=1)
    assert (outer.name, outer.names, outer.calls, outer.flow) == (inner.name, inner.names, 0, False)
    assert name_of_part(outer) == name_of_part(FREE[form])
    assert create_icrl(lambda: "x", outer).parts.rewarded_by() == "oracle"
    assert outer(response="fine") == {"value": 1.0}
    assert reviewed(outer).name == f"reviewed({inner.name})"


def test_a_person_can_not_be_isolated() -> None:
    for evaluator in (human_reward(), reviewed(nearness)):
        with pytest.raises(ValueError, match="or a person"):
            isolated(evaluator)


def test_a_worker_loads_no_language_model_library() -> None:
    heavy = isolated(lambda: float("langchain_core" in sys.modules or "pydantic" in sys.modules), workers=1)
    assert heavy() == {"value": 0.0}


def test_a_person_is_the_source_of_a_human_reward_and_costs_nothing() -> None:
    evaluator = human_reward()
    assert (evaluator.calls, evaluator.models, evaluator.rewarded_by) == (0, (), "human")
    assert create_icrl(lambda: "x", evaluator).parts.rewarded_by() == "human"
    assert preview("Write.", evaluator, model=lambda: "x", rounds=3) == {"calls": 3}


def test_a_bound_evaluator_is_called_like_what_it_holds() -> None:
    assert bind_evaluator(nearness)(response="fine") == 1.0
    assert bind_evaluator(checked)(response="fine") == 1.0
    assert bind_evaluator(RunnableLambda(lambda offered: len(offered["response"])))(response="fine") == 4


def test_the_source_of_a_reward_can_be_declared() -> None:
    paid: Any = RunnableLambda(lambda offered: 1.0)
    exact = replace(bind_evaluator(paid), rewarded_by="oracle")
    assert [create_icrl(lambda: "x", each).parts.rewarded_by() for each in (paid, exact)] == ["judged", "oracle"]


# ---------------------------------------------------------------------------------------------------- custom judges


def test_a_custom_flow_that_declares_its_calls_is_budgeted_and_previewed_by_them() -> None:
    judge = llm_judge(lambda: "Score: 8", "Is it good?", samples=3)
    custom = halved(judge)
    output, episodes = play(create_icrl(lambda: "x", custom, rounds=9, max_calls=8), {"task": "x"})
    assert [episode["reward"]["value"] for episode in episodes] == [4.0, 4.0]  # a third round could not be paid
    assert output["usage"]["calls"] == 8
    assert preview("x", custom, model=lambda: "x", rounds=2) == {"calls": 8}


@pytest.mark.parametrize(
    ("roles", "options"),
    [
        (("metric",), {}),
        (("select",), {}),
        (("metric", "select"), {}),
        (("metric",), {"retests": 2}),
    ],
)
def test_judges_in_every_role_are_previewed_with_the_calls_that_they_make(roles: Any, options: Any) -> None:
    arguments: Any = {"n": 4, **{role: llm_judge(lambda: "Score: 8", role) for role in roles}, **options}
    judge = llm_judge(lambda: "Score: 5", "Is it good?", samples=2)
    output, _ = play(create_best_of_n(lambda: "x", judge, **arguments), {"task": "x"})
    estimate = preview("x", judge, model=lambda: "x", topology="best_of_n", **arguments)
    assert estimate == {"calls": output["usage"]["calls"]}
