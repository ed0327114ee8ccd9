"""People who reward, look over, and step in between rounds; and the branches that come of it."""

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from icrl_graph.evaluators.human import human_reward, reviewed
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.prompts.layouts import parse
from icrl_graph.state.reward import Reward
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion
from icrl_graph.topologies.revision import arevise, revise
from tests.helpers import GAME, climber, digest, nearness, thread

HAIKU: Any = {"task": "Write a haiku."}


def _kept(graph: Any, **options: Any) -> Any:
    return graph.compile(checkpointer=InMemorySaver(), **options)


def _question(output: Any) -> Any:
    (asked,) = output["__interrupt__"]
    return asked.value


def _episodes(graph: Any, config: Any = None) -> Any:
    return graph.get_state(config or thread()).values["episodes"]


# ------------------------------------------------------------------------------------------------------ human rewards


def test_an_interrupt_asks_a_person_for_the_reward_and_a_comment_that_the_model_reads() -> None:
    model = ScriptedModel(["first", "second"])
    graph = _kept(create_icrl(model, human_reward(bounds=(0, 10)), rounds=2))
    asked = _question(graph.invoke(HAIKU, thread()))
    assert (asked["task"], asked["response"], asked["history"], asked["bounds"]) == (
        "Write a haiku.",
        "first",
        [],
        [0, 10],
    )
    asked = _question(graph.invoke(Command(resume={"reward": 7, "comment": "More frogs."}), thread()))
    assert asked["history"] == [{"response": "first", "reward": 7.0, "feedback": "More frogs."}]
    assert "Reward: 7\n<feedback>\nMore frogs." in model.prompts[1][-1]["content"]
    output = graph.invoke(Command(resume=3), thread())
    assert (output["answer"], output["reward"], output["rewarded_by"]) == ("first", 7.0, "human")
    assert len(model.prompts) == 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("often", "a number"),
        (True, "a number"),
        ([7], "a number"),
        ({"comment": "fine"}, "a number"),
        ({"reward": 7, "colour": "red"}, "a number"),
        (11, "outside the declared range"),
        ({"reward": float("nan")}, "finite"),
    ],
)
def test_an_unreadable_answer_interrupts_again_with_the_reason(said: Any, message: str) -> None:
    graph = _kept(create_icrl(lambda: "x", human_reward(bounds=(0, 10)), rounds=1))
    assert _question(graph.invoke(HAIKU, thread()))["error"] is None
    assert message in _question(graph.invoke(Command(resume=said), thread()))["error"]
    assert graph.invoke(Command(resume="7.5"), thread())["reward"] == 7.5


def test_an_interrupt_states_the_bounds_of_the_graph_and_enforces_them() -> None:
    for evaluator in (human_reward(), reviewed(lambda: 5.0)):
        graph = _kept(create_icrl(lambda: "x", evaluator, rounds=1, bounds=(0, 10)))
        assert _question(graph.invoke(HAIKU, thread()))["bounds"] == [0, 10]
        assert "outside the declared range" in _question(graph.invoke(Command(resume=70), thread()))["error"]
        assert graph.invoke(Command(resume=7), thread())["reward"] == 7.0


def test_a_revised_reward_is_reported_as_rewarded_by_oracle_and_human() -> None:
    graph = _kept(create_icrl(lambda: "7", nearness, rounds=1))
    assert graph.invoke(GAME, thread())["rewarded_by"] == "oracle"
    assert graph.invoke(None, revise(graph, thread(), reward=0.9))["rewarded_by"] == "oracle and human"


def test_no_reward_from_a_person_leaves_the_attempt_unscored() -> None:
    graph = _kept(create_icrl(lambda: "x", human_reward(), rounds=1))
    graph.invoke(HAIKU, thread())
    graph.invoke(Command(resume={"reward": None, "comment": "I can't tell."}), thread())
    assert _episodes(graph)[0]["reward"] == {
        "value": None,
        "error": "the person gave no reward",
        "feedback": "I can't tell.",
    }


def test_the_candidates_of_best_of_n_are_asked_about_one_after_another() -> None:
    graph = _kept(create_best_of_n(ScriptedModel(["a", "b"]), human_reward(), n=2))
    asked = [_question(graph.invoke(HAIKU, thread()))["response"]]
    asked.append(_question(graph.invoke(Command(resume=len(asked)), thread()))["response"])
    output = graph.invoke(Command(resume=2), thread())
    assert sorted(asked) == ["a", "b"]
    assert output["answer"] == asked[1]


# ----------------------------------------------------------------------------------------------------------- reviewed


@pytest.mark.parametrize(
    ("said", "value", "error"),
    [
        (True, 0.9, None),
        (0.2, 0.2, None),
        (False, None, "vetoed by a person"),
        ({"reward": None}, None, "the person gave no reward"),
    ],
)
def test_a_person_accepts_edits_or_vetoes_a_reward(said: Any, value: Any, error: Any) -> None:
    def score(response: str) -> Reward:
        return Reward(value=0.9, metric=1.0, feedback="Good.")

    graph = _kept(create_icrl(lambda: "x", reviewed(score), rounds=1))
    asked = _question(graph.invoke(HAIKU, thread()))
    assert (asked["response"], asked["reward"], asked["metric"], asked["feedback"]) == ("x", 0.9, 1.0, "Good.")
    graph.invoke(Command(resume=said), thread())
    reward = _episodes(graph)[0]["reward"]
    assert (reward["value"], reward.get("error"), reward["metric"], reward["feedback"]) == (value, error, 1.0, "Good.")


@pytest.mark.parametrize("n", [1, 3])
def test_a_judge_under_review_is_paid_once_across_interrupts(n: int) -> None:
    judge = ScriptedModel(lambda: "Fine.\nScore: 8")
    graph = _kept(create_best_of_n(lambda: "x", reviewed(llm_judge(judge, "Is it good?")), n=n))
    output = graph.invoke(HAIKU, thread())
    for _ in range(n):
        assert _question(output)["reward"] == 8.0
        output = graph.invoke(Command(resume=True), thread())
    assert len(judge.prompts) == n
    assert (output["rewarded_by"], output["usage"]["calls"]) == ("human", 2 * n)


def test_a_runnable_is_reviewed_like_a_function() -> None:
    graph = _kept(create_icrl(lambda: "x", reviewed(RunnableLambda(lambda asked: 0.5)), rounds=1))
    assert _question(graph.invoke(HAIKU, thread()))["reward"] == 0.5
    assert graph.invoke(Command(resume=True), thread())["reward"] == 0.5


# ------------------------------------------------------------------------------------------------------ between rounds


def test_a_run_pauses_after_each_round_and_a_person_steers_it() -> None:
    model = ScriptedModel(digest)
    graph = _kept(create_icrl(model, nearness, rounds=3), interrupt_after=["evaluate"])
    graph.invoke(GAME, thread())
    revise(graph, thread(), reward=0.125, comment="Too low.")
    revise(graph, thread(), instruction="Go higher.")
    graph.invoke(None, thread())
    asked = parse(model.prompts[1])
    assert [(attempt.value, attempt.feedback) for attempt in asked.attempts] == [(0.125, "Too low.")]
    assert asked.instruction == "Go higher."
    graph.invoke(None, thread())
    assert parse(model.prompts[2]).instruction != "Go higher."
    assert graph.invoke(None, thread())["rounds_done"] == 3


def test_an_ablation_holds_for_a_reward_that_a_person_has_given() -> None:
    model = ScriptedModel(digest)
    graph = _kept(create_icrl(model, nearness, rounds=2, show="zero"), interrupt_after=["evaluate"])
    graph.invoke(GAME, thread())
    revise(graph, thread(), reward=0.75)
    graph.invoke(None, thread())
    assert parse(model.prompts[1]).attempts[0].value == 0.0
    assert _episodes(graph)[0]["reward"]["value"] == 0.75


def test_a_fork_at_an_old_round_resumes_with_another_reward_and_both_branches_stay() -> None:
    graph = _kept(create_icrl(digest, nearness, rounds=4))
    graph.invoke(GAME, thread())
    trunk = graph.get_state(thread())
    branch = revise(graph, thread(), 1, reward=0.0, schedule="explore", rounds=5)
    graph.invoke(None, branch)
    old, new = _episodes(graph, trunk.config), _episodes(graph)
    assert [len(old), len(new)] == [4, 5]
    assert old[0] == new[0]
    assert old[1]["reward"]["value"] != new[1]["reward"]["value"] == 0.0
    assert [e["response"] for e in old[2:]] != [e["response"] for e in new[2:4]]
    assert [e["plan"]["instruction"] for e in new[2:]] == ["explore"] * 3


def test_a_round_is_looked_for_in_the_branch_that_is_meant() -> None:
    graph = _kept(create_icrl(digest, nearness, rounds=4))
    graph.invoke(GAME, thread())
    trunk = graph.get_state(thread()).config
    graph.invoke(None, revise(graph, thread(), 0, reward=0.0))
    again = revise(graph, trunk, 2, reward=1.0)
    assert [e["response"] for e in _episodes(graph, again)] == [e["response"] for e in _episodes(graph, trunk)][:3]


def test_a_target_reached_by_a_revised_reward_ends_the_run() -> None:
    graph = _kept(create_icrl(lambda: "7", nearness, rounds=9, target=1.0), interrupt_after=["evaluate"])
    graph.invoke(GAME, thread())
    output = graph.invoke(None, revise(graph, thread(), reward=1.0))
    assert (output["stopped"], output["rounds_done"]) == ("success", 1)


def test_a_vetoed_attempt_gives_no_answer() -> None:
    graph = _kept(create_icrl(climber, nearness, rounds=2))
    assert graph.invoke(GAME, thread())["answer"] == "42"
    assert graph.invoke(None, revise(graph, thread(), 1, reward=None))["answer"] == "10"
    assert _episodes(graph)[1]["reward"] == {"value": None, "error": "vetoed by a person"}


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("is_async", [False, True])
def test_with_reflexion_one_reflection_is_written_on_the_new_reward(width: int, number: int, is_async: bool) -> None:
    seen: list[Any] = []

    def reflector(messages: Any) -> str:
        seen.append(parse(messages).attempts[-1].value)
        return "Hm."

    graph = _kept(create_reflexion(lambda: "7", nearness, reflector=reflector, rounds=3, width=width))
    graph.invoke(GAME, thread())
    assert seen == [pytest.approx(0.65)] * 2 * width
    options: Any = {"candidate": width - 1, "reward": 0.125}
    if is_async:
        asyncio.run(graph.ainvoke(None, asyncio.run(arevise(graph, thread(), number, **options))))
    else:
        graph.invoke(None, revise(graph, thread(), number, **options))
    assert seen[2 * width] == 0.125
    assert seen.count(0.125) == 1
    branch = graph.get_state(thread()).values["episodes"]
    assert sum(each["costs"]["reflect"]["calls"] for each in branch if "reflect" in each["costs"]) == 2 * width


def test_one_candidate_of_best_of_n_is_revised() -> None:
    graph = _kept(create_best_of_n(ScriptedModel(["1", "2", "3"]), nearness, n=3))
    graph.invoke(GAME, thread())
    said = _episodes(graph)[1]["response"]
    assert graph.invoke(None, revise(graph, thread(), candidate=1, reward=5.0))["answer"] == said


def test_a_thread_is_revised_from_async_code_and_in_sqlite(tmp_path: Any) -> None:
    async def main() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "x.sqlite")) as saver:
            graph = create_icrl(digest, nearness, rounds=3).compile(checkpointer=saver)
            await graph.ainvoke(GAME, thread())
            await graph.ainvoke(None, await arevise(graph, thread(), 0, reward=0.0))
            return (await graph.aget_state(thread())).values["episodes"]

    episodes = asyncio.run(main())
    assert (len(episodes), episodes[0]["reward"]["value"]) == (3, 0.0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"round": 7}, "round 7"),
        ({"candidate": 3, "reward": 1.0}, "no attempt 3"),
        ({"reward": "good"}, "a number"),
        ({"reward": float("inf")}, "finite"),
        ({"colour": "red"}, "unknown setting 'colour'"),
        ({"rounds": 0}, "rounds=0"),
    ],
)
def test_an_invalid_revision_is_refused_and_changes_nothing(asked: Any, message: str) -> None:
    graph = _kept(create_icrl(digest, nearness, rounds=2))
    graph.invoke(GAME, thread())
    before = graph.get_state(thread()).config
    with pytest.raises(ValueError, match=message):
        revise(graph, thread(), **asked)
    assert graph.get_state(thread()).config == before


def test_only_a_topology_is_revised() -> None:
    with pytest.raises(ValueError, match="topology of icrl_graph"):
        revise(create_icrl(digest, nearness), thread(), reward=1.0)
