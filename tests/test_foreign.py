"""Programs of other libraries as topologies: counted, capped, saved and resumed like any other method."""

import asyncio
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from icrl_graph import aimprove, chat_model, compare, improve, llm_judge
from icrl_graph.benchmarks import Benchmark
from icrl_graph.benchmarks.arms import graph_of, read_arm
from icrl_graph.benchmarks.plan import read_plan
from icrl_graph.benchmarks.report import write_report
from icrl_graph.environments import rollout
from icrl_graph.environments.cellar import Cellar
from icrl_graph.errors import MissingExtra, ModelError, ThreadMismatch
from icrl_graph.preview import preview
from icrl_graph.state.selection import last_answered
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.programs import ForeignGraph, Host, foreign

BENCHMARK = Benchmark(
    about="long answers",
    items=lambda: ["one", "two"],
    read=lambda name: {"task": f"Write {name}.", "task_data": {}},
    evaluator=lambda response: len(response) / 10,
    rounds=3,
)


@foreign("json")
def create_loop(host: Host) -> str:
    """Asks again with the best answer so far."""
    best, highest = "", -1.0
    for number in range(host.rounds):
        answer = host.ask(f"{host.task} Number {number}, better than: {best}").text
        if (score := host.score(answer)) > highest:
            best, highest = answer, score
    return best


def length(response: str) -> float:
    return len(response) / 10


def rising(messages: list[dict[str, Any]]) -> str:
    """An answer that grows with the number in the prompt."""
    return "a" * (1 + int(messages[-1]["content"].partition("Number ")[2].partition(",")[0] or 0))


def spent_at(server: OpenAIServer) -> dict[str, int]:
    sums = {"input": "prompt_tokens", "output": "completion_tokens"}
    return {
        "calls": server.counts["calls"],
        **{ours: sum(each[theirs] for each in server.reported) for ours, theirs in sums.items()},
    }


def counted(usage: Any) -> dict[str, int]:
    return {name: usage.get(name, 0) for name in ("calls", "input", "output")}


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_program_spends_is_what_the_server_has_counted(is_async: bool) -> None:
    with OpenAIServer(rising) as server:
        model: Any = chat_model("openai:any", base_url=server.base_url)
        arguments: Any = {"model": model, "topology": create_loop, "rounds": 4}
        result = (
            asyncio.run(aimprove("Write.", length, **arguments)) if is_async else improve("Write.", length, **arguments)
        )
        assert result.answer == "aaaa"
        assert result.rewards == [0.1, 0.2, 0.3, 0.4]
        assert counted(result.usage) == spent_at(server)
        assert server.counts["calls"] == 4


@given(calls=st.integers(1, 12), rounds=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_no_call_is_made_beyond_a_cap(calls: int, rounds: int) -> None:
    model = ScriptedModel(rising)
    result = improve("Write.", length, model=model, topology=create_loop, rounds=rounds, max_calls=calls)
    assert len(model.prompts) == result.usage["calls"] == min(calls, rounds)
    assert result.stopped == ("rounds" if calls >= rounds else "calls")
    assert result.answer == "a" * min(calls, rounds)


@given(tokens=st.integers(1, 200))
@settings(max_examples=20, deadline=None)
def test_a_cap_of_tokens_is_passed_by_the_call_in_flight_alone(tokens: int) -> None:
    usage: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    model = ScriptedModel(rising, usage=usage)
    result = improve("Write.", length, model=model, topology=create_loop, rounds=8, max_tokens=tokens)
    used = result.usage["input"] + result.usage["output"]
    assert used == 15 * len(model.prompts)
    assert used < tokens + 15


def test_a_judge_that_is_paid_is_counted_and_capped_with_the_program() -> None:
    with OpenAIServer(lambda messages: "Score: 7" if "rubric" in str(messages).lower() else "a") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        arguments: Any = {"model": model, "topology": create_loop, "rounds": 4, "max_calls": 5}
        result = improve("Write.", llm_judge(model, "A rubric."), **arguments)
        assert counted(result.usage) == spent_at(server)
        assert server.counts["calls"] == 5
        assert result.stopped == "calls"


def test_a_target_ends_a_program_as_any_other_method() -> None:
    result = improve("Write.", length, model=rising, topology=create_loop, rounds=8, target=0.3)
    assert (result.stopped, len(result.episodes), result.answer) == ("success", 3, "aaa")


def test_the_answer_is_the_one_that_the_program_gives_not_its_best_attempt() -> None:
    @foreign("json", otherwise=last_answered)
    def last(host: Host) -> str:
        texts = [host.ask(f"Number {number},").text for number in (3, 5, 0)]
        for text in texts:
            host.judge(text)
        return texts[-1]

    result = improve("Write.", length, model=rising, topology=last)
    assert (result.answer, result.reward) == ("a", 0.1)
    assert result.regret == pytest.approx(0.5)
    short = improve("Write.", length, model=rising, topology=last, rounds=2)  # its third attempt is one too many
    assert (short.answer, short.stopped, len(short.episodes)) == ("a" * 6, "rounds", 2)


def test_an_answer_that_was_not_judged_is_judged_and_counts_as_an_attempt() -> None:
    @foreign("json")
    def made_over(host: Host) -> str:
        host.judge(host.ask(host.task).text)
        return "a longer one"

    result = improve("Write.", length, model=rising, topology=made_over)
    assert (result.answer, result.reward, len(result.episodes)) == ("a longer one", 1.2, 2)


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (lambda: {"a": 1}["missing"], "KeyError: 'missing'"),
        (lambda: sys.exit(3), "SystemExit: 3"),
        (lambda: 3, "TypeError: the answer of a program is a text, got 3"),
    ],
)
def test_what_a_program_raises_is_data_beside_the_attempts_before_it(ends: Any, told: str) -> None:
    @foreign("json")
    def broken(host: Host) -> str:
        host.judge(host.ask(host.task).text)
        return ends()  # type: ignore[no-any-return]

    result = improve("Write.", length, model=rising, topology=broken)
    assert (result.stopped, result.answer, result.usage["calls"]) == ("error", "a", 1)
    assert result.episodes[-1]["error"] == told


def test_a_program_without_an_answer_has_tried_and_failed() -> None:
    @foreign("json")
    def silent(host: Host) -> None:
        host.ask(host.task)

    result = improve("Write.", length, model=rising, topology=silent)
    assert (result.answer, result.reward, result.usage["calls"]) == (None, None, 1)
    assert result.episodes[0]["error"] == "the program gave no answer"


def test_unscored_stays_unscored_and_a_program_that_needs_a_number_gets_the_worst() -> None:
    seen = list[float]()

    @foreign("json")
    def scoring(host: Host) -> str:
        seen.append(host.score(host.ask(host.task).text))
        return "a"

    result = improve("Write.", lambda response: None, model=rising, topology=scoring, bounds=(-1.0, 1.0))
    assert seen == [-1.0]
    assert result.reward is None


def test_calls_of_several_threads_are_made_and_counted_one_by_one() -> None:
    @foreign("json")
    def parallel(host: Host) -> str:
        with ThreadPoolExecutor(4) as pool:
            texts = list(pool.map(lambda number: host.ask(f"Number {number},").text, range(4)))
            list(pool.map(host.judge, texts))
        return max(texts)

    with OpenAIServer(rising) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = improve("Write.", length, model=model, topology=parallel)
        assert counted(result.usage) == spent_at(server)
        assert (result.answer, len(result.episodes)) == ("aaaa", 4)


def test_no_thread_is_left_behind_by_a_program_that_was_ended() -> None:
    before = threading.active_count()
    improve("Write.", length, model=rising, topology=create_loop, rounds=8, max_calls=2)
    for thread in threading.enumerate():
        if thread.name == "icrl-foreign":
            thread.join(5)
    assert threading.active_count() <= before


def test_a_killed_run_finds_the_replies_of_its_program_again(tmp_path: Path) -> None:
    judged = 0

    def dies_once(response: str) -> float:
        nonlocal judged
        judged += 1
        if judged == 3:
            raise KeyboardInterrupt
        return length(response)

    with OpenAIServer(rising) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        arguments: Any = {"model": model, "topology": create_loop, "rounds": 4, "path": tmp_path / "run.sqlite"}
        with pytest.raises(KeyboardInterrupt):
            improve("Write.", dies_once, **arguments)
        assert server.counts["calls"] == 3
        result = improve("Write.", dies_once, **arguments)
        assert (result.answer, server.counts["calls"]) == ("aaaa", 4)
        assert counted(result.usage) == spent_at(server)
        assert improve("Write.", dies_once, **arguments) == result
        assert server.counts["calls"] == 4
        with pytest.raises(ThreadMismatch):  # a program can't be played for longer
            improve("Write.", dies_once, **{**arguments, "rounds": 6})


def test_rows_of_a_program_are_in_results_tables_report_and_resume_like_any_other(tmp_path: Path) -> None:
    with OpenAIServer(lambda: "abc") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        arguments: Any = {"model": model, "folder": tmp_path / "both", "rounds": 3}
        here = f"{Path(__file__)}:create_loop"
        comparison = compare(BENCHMARK, ["icrl", here], **arguments)
        rows = [json.loads(line) for line in (tmp_path / "both" / "results.jsonl").read_text().splitlines()]
        assert {row["arm"] for row in rows} == {"icrl", here}
        assert sum(row["usage"]["calls"] for row in rows) == server.counts["calls"] == 12
        assert sum(row["usage"]["input"] for row in rows) == spent_at(server)["input"]
        assert [method["attempts"] for method in comparison.summary["methods"]] == [6, 6]
        compare(BENCHMARK, ["icrl", here], **arguments)
        assert server.counts["calls"] == 12
        page = next(path for path in write_report(tmp_path / "both", trust=True) if path.suffix == ".html")
        assert "loop writes prompts of its own, which are not saved." in page.read_text()


def test_where_the_provider_fails_the_run_is_made_again_and_asks_for_what_is_missing(tmp_path: Path) -> None:
    with OpenAIServer(rising, faults={3: "500"}) as server:
        model = chat_model("openai:any", base_url=server.base_url, max_retries=0)
        arguments: Any = {"model": model, "folder": tmp_path / "runs", "items": ["one"], "attempts": 1}
        first = compare(BENCHMARK, [f"{Path(__file__)}:create_loop"], **arguments)
        assert len(first.failures) == 1
        second = compare(BENCHMARK, [f"{Path(__file__)}:create_loop"], **arguments)
        assert not second.failures
        assert server.counts["calls"] == 4
        assert counted(second.usage) == {**spent_at(server), "calls": 3}


def test_a_wrong_key_is_no_failure_of_the_program() -> None:
    with OpenAIServer(rising, faults={1: "401"}) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        with pytest.raises(ModelError):
            improve("Write.", length, model=model, topology=create_loop)


@foreign("no_such_package", extra="arena")
def create_missing(host: Host) -> str:
    """A program whose package is missing."""
    return host.ask(host.task).text


def test_a_missing_package_is_told_with_its_extra_before_anything_is_paid(tmp_path: Path) -> None:
    model = ScriptedModel(["a"])
    for call in (
        lambda: improve("Write.", length, model=model, topology=create_missing),
        lambda: compare(BENCHMARK, [f"{Path(__file__)}:create_missing"], model=model, folder=tmp_path / "runs"),
    ):
        with pytest.raises(MissingExtra, match=r"no_such_package is not installed; run: pip install 'icrl-graph\[ar"):
            call()
    assert not model.prompts
    assert not (tmp_path / "runs").exists()


def test_a_saved_comparison_is_looked_at_without_the_package(tmp_path: Path) -> None:
    compare(BENCHMARK, [f"{Path(__file__)}:create_loop"], model=rising, folder=tmp_path / "runs", items=["one"])
    plan = read_plan(tmp_path / "runs")
    assert isinstance(graph_of(plan, f"{Path(__file__)}:create_missing"), ForeignGraph)


def test_an_arm_leaves_out_the_shared_settings_of_loops_and_refuses_them_as_its_own() -> None:
    arm = read_arm(f"{Path(__file__)}:create_loop")
    taken = arm.arguments(3, {"patience": 2, "memory": "all", "target": 1.0, "max_calls": 5, "system": "Be brief."})
    assert {name: taken[name] for name in taken if name != "topology"} == {
        "rounds": 3,
        "target": 1.0,
        "max_calls": 5,
        "system": "Be brief.",
    }
    with pytest.raises(ValueError, match="unknown argument 'memory'"):
        improve("Write.", length, model=rising, topology=create_loop, memory="last:2")


def test_its_calls_can_not_be_handed_out(tmp_path: Path) -> None:
    arm = f"{Path(__file__)}:create_loop+allocate=8"
    with pytest.raises(ValueError, match="it can't be played for longer"):
        compare(BENCHMARK, [arm], model=rising, folder=tmp_path / "runs", bounds=(0.0, 1.0))


def test_a_preview_tells_the_most_calls_and_nothing_of_tokens() -> None:
    @foreign("json", calls=lambda rounds: 2 * rounds - 1)
    def twice(host: Host) -> None:
        raise AssertionError("a preview runs no program")

    usage = preview("Write.", length, model=rising, topology=twice, rounds=4)  # type: ignore[arg-type]
    assert usage == {"calls": 7}
    capped = preview("Write.", length, model=rising, topology=twice, rounds=4, max_calls=5)  # type: ignore[arg-type]
    assert capped == {"calls": 5}


def test_the_system_prompt_stands_before_the_task_and_reasoning_is_split_off() -> None:
    @foreign("json")
    def once(host: Host) -> str:
        return host.ask(host.task).text

    model = ScriptedModel(["<think>Hm.</think>Yes."])
    result = improve("Write.", length, model=model, topology=once, system="Be brief.")
    assert model.prompts[0][0]["content"] == "Be brief.\n\nWrite."
    assert result.answer == "Yes."


def test_a_chat_model_of_the_host_is_counted_like_its_own_asking() -> None:
    @foreign("json")
    def chain(host: Host) -> str:
        return host.chat_model().invoke([HumanMessage(host.task)], stop=["."]).text

    with OpenAIServer(rising) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        result = improve("Write.", length, model=model, topology=chain)
        assert counted(result.usage) == spent_at(server)
        assert result.answer == "a"


def test_a_program_may_not_stand_where_the_model_plays_episodes_of_many_turns() -> None:
    with pytest.raises(ValueError, match="plays no episodes of many turns"):
        improve("Write.", length, model=rollout(rising, Cellar, max_steps=2), topology=create_loop)
