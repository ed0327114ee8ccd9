"""Prompts that do not fit into a model's context: less of the history is shown, and the run goes on."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ContextOverflowError

from icrl_graph import (
    RateLimit,
    aimprove,
    chat_model,
    compare,
    create_best_of_n,
    create_icrl,
    improve,
    parse,
)
from icrl_graph.benchmarks.benchmark import Benchmark
from icrl_graph.execution.overflow import is_overflow
from icrl_graph.execution.retry import is_transient
from icrl_graph.prompts.memory import everything
from icrl_graph.prompts.plan import make_plan, shrink
from icrl_graph.state.episode import Episode, LoopState, Plan, cost_of
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.nodes import prompt
from tests.command_line import icrl
from tests.helpers import GAME, play
from tests.overflow_wordings import OTHERS, OVERFLOWS
from tests.raw_http import COMPLETION, RawServer, answer


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


@pytest.mark.parametrize("way", [improve, aimprove])
@pytest.mark.parametrize("topology", ["reflexion", "self_refine"])
def test_a_reflection_on_more_than_fits_is_made_on_less_and_never_without_the_last_attempt(
    topology: str, way: Any
) -> None:
    with OpenAIServer(lambda: "1" * 400, context=500) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        options: Any = {"model": model, "topology": topology, "rounds": 8, "memory": "all"}
        called = way("Guess.", lambda: 0.5, **options)
        result = asyncio.run(called) if way is aimprove else called
        assert len(result.episodes) == 8
        assert server.counts["overflow"] > 0
        assert ["reflection" in each for each in result.episodes] == [True] * 7 + [False]


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


def test_that_the_history_was_shortened_is_told_by_the_result_the_commands_and_the_notes_of_a_comparison(
    tmp_path: Path,
) -> None:
    told = "from round 5 on prompts leave out the oldest attempts"
    with OpenAIServer(lambda: "1" * 400, context=600) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        assert told in repr(improve("Guess.", lambda: 0.5, model=model, rounds=6))
        assert told not in repr(improve("Guess.", lambda: 0.5, model=model, rounds=3))
        tasks = Benchmark(
            "two tasks", items=lambda: ["a", "b"], read=lambda item: {"task": item}, evaluator=lambda: 0.5
        )
        notes = str(compare(tasks, "icrl", model=model, rounds=6))
        assert "icrl: in 2 of 2 runs the history was shortened: in one, " + told in " ".join(notes.split())
        (tmp_path / "half.py").write_text("def half():\n    return 0.5\n")
        options = [
            "--model",
            "openai:any",
            "--base-url",
            server.base_url,
            "--evaluator",
            f"{tmp_path}/half.py:half",
            "--out",
            str(tmp_path / "run"),
        ]
        run = icrl("run", "Guess.", *options, "--rounds", "6")
        assert told in " ".join(run.stderr.split())
        assert told in " ".join(icrl("show", str(tmp_path / "run")).stdout.split())


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


@pytest.mark.parametrize("words", OVERFLOWS.values(), ids=OVERFLOWS)
def test_an_overflow_is_known_by_its_meaning_and_not_repeated(words: str) -> None:
    error: Any = ValueError(f"Error code: 500 - {words}")
    error.status_code = 500
    assert is_overflow(error)
    assert not is_transient(error)


@pytest.mark.parametrize("words", OTHERS)
def test_other_errors_are_not_mistaken_for_an_overflow(words: str) -> None:
    assert not is_overflow(ValueError(words))


BODIES: dict[str, Any] = {
    "llama.cpp": {"code": 400, "message": "no", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8},
    "OpenAI": {"code": "context_length_exceeded", "message": "no", "type": "invalid_request_error"},
    "Ollama": {"message": "prompt too long; exceeded max context length by 4 tokens", "type": "api_error"},
    "vLLM": {"message": OVERFLOWS["vLLM passed"], "type": "BadRequestError", "param": "input_tokens", "code": 400},
    "only text": OVERFLOWS["SGLang"],
}


def _small(limit: int, status: int, refusal: Any) -> Callable[[bytes], list[bytes]]:
    """A server that takes requests of so many bytes."""
    return lambda request: (
        [answer(COMPLETION)] if len(request) <= limit else [answer(json.dumps(refusal).encode(), status=status)]
    )


def _twelve_rounds(way: Any, server: RawServer, streaming: bool = False, **options: Any) -> Any:
    model = chat_model("openai:any", base_url=f"http://{server.address}/v1", streaming=streaming)
    options = {"rounds": 12, "rate_limit": RateLimit(max_backoff=0.01), **options}
    played = way("Say 42.", lambda: {"value": 0.5, "feedback": "why " * 20}, model=model, **options)
    return asyncio.run(played) if asyncio.iscoroutine(played) else played


@pytest.mark.parametrize("way", [improve, aimprove])
@pytest.mark.parametrize("dialect", BODIES)
def test_the_history_is_shortened_for_every_server(dialect: str, way: Any) -> None:
    with RawServer(_small(1500, 500 if dialect == "only text" else 400, {"error": BODIES[dialect]})) as server:
        result = _twelve_rounds(way, server)
        assert (result.rewards, result.stopped) == ([0.5] * 12, "rounds")
        assert 12 < server.calls <= 18


@pytest.mark.parametrize("way", [improve, aimprove])
def test_the_history_is_shortened_where_a_stream_says_that_it_is_too_long(way: Any) -> None:
    """As vLLM did before 0.10.1, with a status of 200 and without the word "error" where it is now."""
    end = b'data: {"choices": [{"index": 0, "delta": {"content": "42"}, "finish_reason": "stop"}]}\n\n'
    refusal = {"object": "error", "message": OVERFLOWS["vLLM old"], "type": "BadRequestError", "code": 400}

    def sends(request: bytes) -> list[bytes]:
        event = end if len(request) <= 1500 else b"data: %b\n\n" % json.dumps(refusal).encode()
        return [answer(event + b"data: [DONE]\n\n").replace(b"application/json", b"text/event-stream")]

    with RawServer(sends) as server:
        result = _twelve_rounds(way, server, streaming=True)
        assert (result.rewards, result.stopped) == ([0.5] * 12, "rounds")


@pytest.mark.parametrize("way", [improve, aimprove])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_longer_prompt_that_is_refused_for_an_unknown_reason_is_tried_with_half_of_the_history(
    status: int, way: Any
) -> None:
    with RawServer(_small(1500, status, {"detail": "no"})) as server:
        result = _twelve_rounds(way, server)
        assert (result.rewards, result.stopped) == ([0.5] * 12, "rounds")
        assert 12 < server.calls <= 18


@pytest.mark.parametrize("way", [improve, aimprove])
def test_a_refusal_that_has_nothing_to_do_with_the_length_costs_one_call_more_and_no_history(way: Any) -> None:
    fourth: Any = iter(range(99))

    def moody(request: bytes) -> list[bytes]:
        return [
            answer(b'{"error": {"message": "flagged"}}', status=400) if next(fourth) in (3, 4) else answer(COMPLETION)
        ]

    with RawServer(moody) as server:
        result = _twelve_rounds(way, server, rounds=6)
        assert result.rewards == [0.5, 0.5, 0.5, None, 0.5, 0.5]
        assert "flagged" in result.episodes[3]["error"]
        assert [len(_shown(episode["plan"])) for episode in result.episodes] == [0, 1, 2, 3, 4, 5]
        assert server.calls == 7


def test_a_wrong_request_is_not_tried_again() -> None:
    with RawServer(answer(b'{"error": {"message": "unknown field seed"}}', status=400)) as server:
        result = _twelve_rounds(improve, server, rounds=2)
        assert result.rewards == [None, None]
        assert server.calls == 2
