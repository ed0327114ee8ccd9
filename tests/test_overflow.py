"""Prompts that do not fit into a model's context: less of the history is shown, and the run goes on."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ContextOverflowError

from icrl_graph import chat_model, create_best_of_n, create_icrl, parse
from icrl_graph.prompts.memory import everything
from icrl_graph.prompts.plan import make_plan, shrink
from icrl_graph.state.episode import Episode, LoopState, Plan, cost_of
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.nodes import prompt
from tests.helpers import GAME, play


def _shown(plan: Plan) -> list[int]:
    return [i for start, end in plan["shown"] for i in range(start, end)]


@given(st.sets(st.integers(0, 50)), st.integers(0, 5))
def test_shrinking_drops_the_older_half_and_ends_with_nothing(shown: set[int], hidden: int) -> None:
    plan: Plan | None = Plan(shown=[[i, i + 1] for i in sorted(shown)], instruction="plain", left_out=hidden)
    total = len(shown) + hidden
    while plan is not None:
        before, plan = plan, shrink(plan)
        if plan is None:
            assert not _shown(before)
            return
        kept = _shown(plan)
        assert kept == _shown(before)[-(len(_shown(before)) // 2) :][: len(kept)]
        assert len(kept) == len(_shown(before)) // 2
        assert plan["left_out"] + len(kept) == total
        assert all(i >= plan["first"] for i in kept)


def test_the_rounds_after_a_shrunk_prompt_show_nothing_from_before_it() -> None:
    past: Any = [Episode(round=k, candidate=0, plan=Plan(shown=[], instruction="", left_out=0)) for k in range(6)]
    past[-1]["plan"] = {**past[-1]["plan"], "first": 3}
    plan = make_plan(6, past, everything, lambda number, episodes: "explore")
    assert (_shown(plan), plan["left_out"], plan["first"]) == ([3, 4, 5], 3, 3)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_run_in_a_small_context_reaches_its_end_over_real_http(way: str) -> None:
    with OpenAIServer(lambda: "1" * 400, context=600) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        graph = create_icrl(model, lambda: 0.5, rounds=12).compile()
        out = graph.invoke(GAME) if way == "invoke" else asyncio.run(graph.ainvoke(GAME))
        assert (out["rounds_done"], out["stopped"], out["reward"]) == (12, "rounds", 0.5)
        assert server.counts["answered"] == 12
        assert 1 <= server.counts["overflow"] <= 5  # by half each time, so not in every round
        assert out["usage"]["calls"] == server.counts["calls"]


def test_the_shrunk_prompt_is_recorded_and_can_be_made_again() -> None:
    def small(messages: list[Any]) -> str:
        if len(parse(messages).attempts) > 3:
            raise ContextOverflowError("too long")
        return "10"

    model = ScriptedModel(small)
    graph = create_icrl(model, lambda: 0.5, rounds=6)
    _, episodes = play(graph)
    assert [len(_shown(episode["plan"])) for episode in episodes] == [0, 1, 2, 3, 2, 3]
    assert [cost_of(episode)["calls"] for episode in episodes] == [1, 1, 1, 1, 2, 1]
    frozen: Any = graph.parts.schema().model_dump()
    state = LoopState(inputs=GAME, settings=frozen, episodes=episodes)
    sent = [asked for asked in model.prompts if len(parse(asked).attempts) <= 3]
    assert [prompt(state, graph.parts, at) for at in range(6)] == sent


@pytest.mark.parametrize("create", [create_icrl, create_best_of_n])
def test_a_task_that_is_too_long_by_itself_is_a_failed_attempt(create: Any) -> None:
    def full() -> str:
        raise ContextOverflowError("too long")

    out, episodes = play(create(full, lambda: 0.5, **{"n" if create is create_best_of_n else "rounds": 2}))
    assert all("too long" in episode["error"] for episode in episodes)
    assert out["answer"] is None


def test_a_budget_of_calls_holds_while_a_prompt_is_made_to_fit() -> None:
    def small(messages: list[Any]) -> str:
        if parse(messages).attempts:
            raise ContextOverflowError("too long")
        return "10"

    out, episodes = play(create_icrl(small, lambda: 0.5, rounds=9, max_calls=2))
    assert (out["usage"]["calls"], out["stopped"], len(episodes)) == (2, "calls", 2)
