"""The server of the Model Context Protocol, driven by the official client in memory, over stdio and over HTTP."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from icrl_graph.integrations.mcp_server import server
from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests import mcp_child
from tests.command_line import ROOT, icrl, started

ARGUMENTS = {"task": "Write a pangram."}


def score(response: str, task_data: dict[str, Any]) -> Any:
    if "fail" in task_data:
        raise ValueError("no score for it")
    return {"value": len(response) / 10, "feedback": "longer!"}


def climbing() -> ScriptedModel:
    numbers = count(1)
    return ScriptedModel(
        lambda: "abcdefghij"[: next(numbers)], usage={"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    )


def ask(made: Any, tool: str, arguments: Any = ARGUMENTS, **options: Any) -> Any:
    async def call() -> Any:
        async with Client(made) as client:
            return await client.call_tool(tool, arguments, **options)

    return asyncio.run(call())


def test_the_tools_say_what_they_take_and_give() -> None:
    async def listed() -> Any:
        async with Client(server(climbing(), score)) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(listed())}
    assert tools.keys() == {"improve", "judge", "check"}
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert all(
            "description" in field for name, field in tool.input_schema["properties"].items() if name != "response"
        )
    assert tools["improve"].input_schema["required"] == ["task"]
    assert "description" in tools["improve"].output_schema["properties"]["reward"]


@pytest.mark.parametrize("topology", ["icrl", "reflexion", "self_refine", "best_of_n"])
def test_improve_gives_the_best_answer_with_what_it_cost(topology: str) -> None:
    size: Any = {"n": 3} if topology == "best_of_n" else {"rounds": 3}
    model = climbing()
    given = ask(server(model, score, topology=topology, **size), "improve").structured_content
    assert (given["reward"], given["stopped"], given["rewarded_by"]) == (max(given["rewards"]), "rounds", "oracle")
    calls = len(model.prompts)
    assert (given["usage"]["calls"], given["usage"]["input"], given["usage"]["output"]) == (
        calls,
        10 * calls,
        2 * calls,
    )
    assert len(given["answer"]) / 10 == given["reward"]


def test_an_attempt_without_a_score_is_null() -> None:
    fails = iter([True, False])

    def sometimes(response: str) -> float:
        if next(fails):
            raise ValueError("no score for it")
        return 0.5

    given = ask(server(climbing(), sometimes, rounds=2), "improve").structured_content
    assert (given["reward"], given["rewards"]) == (0.5, [None, 0.5])


def test_an_answer_whose_evaluator_gives_none_is_unscored() -> None:
    given = ask(server(climbing(), lambda response: None, rounds=1), "improve").structured_content
    assert (given["answer"], given["reward"]) == ("a", None)
    assert given["error"] == "the evaluator returned None, which is no reward"


def test_an_evaluator_that_always_fails_is_an_error_of_the_call() -> None:
    result = ask(server(climbing(), score, rounds=2), "improve", {**ARGUMENTS, "task_data": {"fail": True}})
    assert result.is_error
    assert "the evaluator failed at every attempt: ValueError: no score for it" in result.content[0].text


@pytest.mark.parametrize("is_saved", [False, True])
def test_an_outage_is_never_a_result_and_the_same_call_after_it_has_all_its_calls(
    is_saved: bool, tmp_path: Path
) -> None:
    calls = count(1)

    def model() -> str:
        if next(calls) <= 6:
            raise RuntimeError("provider is down")
        return "abc"

    async def called() -> Any:
        path = tmp_path / "runs.sqlite" if is_saved else None
        async with Client(server(model, lambda response: 0.5, path=path, rounds=9, max_calls=6)) as client:
            return [await client.call_tool("improve", ARGUMENTS) for _ in range(3)]

    first, second, third = asyncio.run(called())
    assert first.is_error
    assert second.is_error
    assert "ModelError: the model answered no attempt: RuntimeError: provider is down" in second.content[0].text
    assert (third.structured_content["rewards"], third.structured_content["stopped"]) == ([0.5] * 6, "calls")


def test_progress_is_told_for_each_attempt() -> None:
    seen: list[Any] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    ask(server(climbing(), score, rounds=3), "improve", progress_callback=heard)
    assert [(progress, total) for progress, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1][2] == "attempt 3: reward 0.3, best 0.3"


@pytest.mark.parametrize(
    ("asked", "calls"), [({"rounds": 3}, 3), ({"rounds": 100}, 5), ({"max_calls": 2}, 2), ({"max_calls": 100}, 5)]
)
def test_of_two_limits_the_lower_one_holds(asked: Any, calls: int) -> None:
    model = climbing()
    ask(server(model, score, rounds=8, max_calls=5), "improve", {**ARGUMENTS, **asked})
    assert len(model.prompts) == calls


def test_check_asks_no_model_and_says_what_improve_would_cost() -> None:
    model = climbing()
    made = server(model, score, rounds=8)
    assert ask(made, "check", {**ARGUMENTS, "rounds": 4}).structured_content["usage"]["calls"] == 4
    assert ask(made, "check", {**ARGUMENTS, "max_calls": 3}).structured_content["usage"]["calls"] == 3
    assert model.prompts == []


def test_judge_gives_the_reward_of_an_answer() -> None:
    model = climbing()
    made = server(model, score)
    given = ask(made, "judge", {**ARGUMENTS, "response": "abc"}).structured_content
    assert given == {"value": 0.3, "feedback": "longer!", "error": None}
    failed = ask(made, "judge", {**ARGUMENTS, "response": "abc", "task_data": {"fail": 1}}).structured_content
    assert failed["value"] is None
    assert "no score for it" in failed["error"]
    assert model.prompts == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": ""}, "the task must be a text"),
        ({"task": "t", "rounds": 0}, "greater than or equal to 1"),
        ({"task": "t", "rounds": True}, "valid integer"),
        ({"task": "t", "maxCalls": 1}, "maxCalls"),
    ],
)
@pytest.mark.parametrize("tool", ["improve", "check"])
def test_what_is_wrong_is_told(tool: str, arguments: Any, words: str) -> None:
    result = ask(server(climbing(), score), tool, arguments)
    assert result.is_error
    assert words in result.content[0].text


def test_a_model_that_cannot_answer_is_told() -> None:
    with OpenAIServer(lambda: "x", faults=dict.fromkeys(range(1, 99), "401")) as refusing:
        from icrl_graph.models.registry import load_model

        model = load_model("openai:model", base_url=refusing.base_url)
        result = ask(server(model, score), "improve")
    assert result.is_error
    assert "ModelError: OpenAIAuthenticationError" in result.content[0].text


def test_an_unknown_setting_is_refused_when_the_server_is_made() -> None:
    with pytest.raises(ValueError, match="unknown argument 'turns'"):
        server(climbing(), score, turns=3)


# ----------------------------------------------------------------------------------------------- real transports


def params(address: str, *given: str) -> StdioServerParameters:
    arguments = [mcp_child.__file__ or "", address, *given]
    return StdioServerParameters(command=sys.executable, args=arguments, env={"PYTHONPATH": str(ROOT)})


@pytest.fixture
def upstream() -> Iterator[OpenAIServer]:
    numbers = count(1)
    with OpenAIServer(lambda: "abcdefghij"[: next(numbers)], latency=0.05) as running:
        yield running


def test_over_stdio_an_evaluator_that_prints_breaks_nothing_and_usage_is_the_servers_own_count(
    upstream: OpenAIServer,
) -> None:
    given = ask(params(upstream.base_url), "improve").structured_content
    tokens = [sum(usage[name] for usage in upstream.reported) for name in ("prompt_tokens", "completion_tokens")]
    assert given["usage"]["calls"] == upstream.counts["calls"] == 5
    assert [given["usage"]["input"], given["usage"]["output"]] == tokens
    assert given["stopped"] == "calls"


def test_after_a_cancel_at_most_the_call_in_flight_is_paid_and_the_same_call_goes_on(
    upstream: OpenAIServer, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async def cancelled() -> int:
        async with Client(params(upstream.base_url, str(tmp_path / "x"))) as client:
            call = asyncio.create_task(client.call_tool("improve", ARGUMENTS, progress_callback=heard))
            await begun.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            at_cancel = upstream.counts["calls"]
            await client.call_tool("judge", {**ARGUMENTS, "response": "abc"})  # it serves on
            await asyncio.sleep(0.5)  # time in which more would be paid
            assert upstream.counts["calls"] <= at_cancel + 1
            return upstream.counts["calls"]

    paid = asyncio.run(cancelled())
    given = ask(params(upstream.base_url, str(tmp_path / "x")), "improve").structured_content
    assert len(given["rewards"]) == 5
    assert upstream.counts["calls"] <= max(paid, 5) + 1
    before = upstream.counts["calls"]
    again = ask(params(upstream.base_url, str(tmp_path / "x")), "improve").structured_content
    assert (again["answer"], upstream.counts["calls"]) == (given["answer"], before)


def test_a_session_over_stdio_ends_without_a_traceback_and_what_was_printed_is_on_stderr(
    upstream: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def ended(*file: str) -> str:
        with (tmp_path / "stderr").open("w+", encoding="utf-8") as said:
            async with (
                stdio_client(params(upstream.base_url, *file), errlog=said) as streams,
                ClientSession(*streams) as session,
            ):
                await session.initialize()
                await session.call_tool("improve", ARGUMENTS)
            return (tmp_path / "stderr").read_text(encoding="utf-8")

    for file in [[], [str(tmp_path / "x")]]:
        errors = asyncio.run(ended(*file))
        assert "Traceback" not in errors
        assert errors.count("judged") == 5
    assert "Failed to parse" not in caplog.text


def test_a_server_of_another_model_does_not_go_on_with_the_run_of_the_first(
    upstream: OpenAIServer, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async def cancelled() -> None:
        async with Client(params(upstream.base_url, str(tmp_path / "x"))) as client:
            call = asyncio.create_task(client.call_tool("improve", ARGUMENTS, progress_callback=heard))
            await begun.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    asyncio.run(cancelled())
    with OpenAIServer(lambda: "another") as other:
        given = ask(params(other.base_url, str(tmp_path / "x"), "other"), "improve").structured_content
        assert other.counts["calls"] == 5
    assert (given["usage"]["calls"], given["rewards"]) == (5, [0.7] * 5)


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_call_that_timed_out_is_joined_by_its_repeat_and_paid_once(
    is_saved: bool, upstream: OpenAIServer, tmp_path: Path
) -> None:
    file = [str(tmp_path / "x")] if is_saved else []
    begun = asyncio.Event()

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async def repeated() -> Any:
        async with Client(params(upstream.base_url, *file)) as client:
            call = asyncio.create_task(client.call_tool("improve", ARGUMENTS, progress_callback=heard))
            await begun.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            return await client.call_tool("improve", ARGUMENTS)

    given = asyncio.run(repeated())
    assert not given.is_error
    assert len(given.structured_content["rewards"]) == upstream.counts["calls"] == 5


def test_over_http_many_calls_at_once_each_get_their_own(upstream: OpenAIServer, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "score.py").write_text("def score(response):\n    return len(response) / 10\n")
    command = ["mcp", "--model", "openai:model", "--base-url", upstream.base_url, "--evaluator", "score.py:score"]
    running = started(*command, "--rounds", "2", "--http", str(port), cwd=tmp_path, OPENAI_API_KEY="x")
    try:

        async def several() -> list[Any]:
            for _ in range(600):
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                return await asyncio.gather(*(client.call_tool("improve", {"task": f"t{i}"}) for i in range(8)))

        given = asyncio.run(several())
    finally:
        running.terminate()
        running.communicate(timeout=30)
    assert {each.structured_content["usage"]["calls"] for each in given} == {2}
    assert upstream.counts["calls"] == 16


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icrl_graph.integrations.mcp_server", None)
    done = icrl("mcp", "--model", "learner:hidden-color", "--evaluator", "icrl_graph.tasks.hidden_color:closeness")
    assert done.returncode != 0
    assert "pip install 'icrl-graph[mcp]'" in done.stderr


def test_a_wrong_evaluator_is_told_before_anything_is_served(tmp_path: Path) -> None:
    done = icrl("mcp", "--model", "learner:hidden-color", "--evaluator", str(tmp_path / "none.py:score"))
    assert done.returncode == 2
    assert "none.py" in done.stderr
