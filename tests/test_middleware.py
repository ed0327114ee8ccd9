"""ICRL as middleware of the real `create_agent` and `create_deep_agent`."""

import asyncio
import contextlib
import operator
import os
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Annotated, Any, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.errors import NodeCancelledError
from langgraph.types import Command
from pydantic import BaseModel

from icrl_graph.evaluators.human import human_reward
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.layouts import parse
from icrl_graph.testing import OpenAIServer, ScriptedModel
from icrl_graph.topologies.methods import create_icrl
from icrl_graph.topologies.tool import as_tool
from tests.helpers import thread

if find_spec("langchain") is None and not os.environ.get("CI"):
    pytest.skip("langchain is not installed: pip install 'icrl-graph[agents]'", allow_module_level=True)

from langchain.agents import create_agent
from langchain.agents.middleware import AgentState, ModelCallLimitMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ToolStrategy

from icrl_graph.integrations.middleware import ICRLMiddleware

DEEP = find_spec("deepagents") is not None or bool(os.environ.get("CI"))
needs_deepagents = pytest.mark.skipif(not DEEP, reason="needs deepagents: pip install 'icrl-graph[arena]'")
ASKED: Any = {"messages": [("user", "Do it.")]}
SCORES = {"poor": 0.2, "best": 0.9, "mid": 0.5}
TOKENS: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}


def create_deep(*args: Any, **kwargs: Any) -> Any:
    from deepagents import create_deep_agent

    return create_deep_agent(*args, **kwargs)


AGENTS = [
    pytest.param(create_agent, id="create_agent"),
    pytest.param(create_deep, id="create_deep_agent", marks=needs_deepagents),
]


@tool
def look(x: int) -> str:
    """Look at x."""
    return f"seen {x}"


def call(name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"{name} {args}"}])


def scored(response: str) -> float:
    return SCORES[response]


def scripted(replies: Any) -> ScriptedModel:
    return ScriptedModel(replies, takes_tools=True, usage=TOKENS)


def said(output: Any) -> list[str]:
    """The messages, each by its text or the tools that it calls."""
    return [m.text or "+".join(c["name"] for c in getattr(m, "tool_calls", [])) for m in output["messages"]]


def asked(agent: Any, is_async: bool = False, inputs: Any = ASKED, **kwargs: Any) -> Any:
    return asyncio.run(agent.ainvoke(inputs, **kwargs)) if is_async else agent.invoke(inputs, **kwargs)


# -------------------------------------------------------------------------------------------------------- the best back


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("create", AGENTS)
def test_the_best_attempt_comes_back_with_its_calls_of_tools(create: Any, is_async: bool) -> None:
    model = scripted([call("look", x=1), "poor", call("look", x=2), "best", call("look", x=3), "mid"])
    output = asked(create(model, [look], middleware=[ICRLMiddleware(scored, rounds=3)]), is_async)
    assert said(output) == ["Do it.", "look", "seen 2", "best"]
    result = output["icrl_result"]
    assert (result["answer"], result["reward"], result["stopped"], result["rounds_done"]) == ("best", 0.9, "rounds", 3)
    assert not any(key.startswith("icrl_") for key in output.keys() - {"icrl_result"})


def test_an_attempt_is_asked_for_by_the_prompt_of_its_round_and_its_own_messages_follow() -> None:
    model = scripted([call("look", x=1), "poor", call("look", x=2), "best"])
    asked(create_agent(model, [look], system_prompt="Be kind.", middleware=[ICRLMiddleware(scored, rounds=2)]))
    *prompt, called, seen = model.prompts[3]
    assert (called["tool_calls"][0]["function"]["arguments"], seen["content"]) == ('{"x": 2}', "seen 2")
    assert prompt[0] == {"role": "system", "content": "Be kind."}
    assert [(attempt.response, attempt.value) for attempt in parse(prompt[1:]).attempts] == [("poor", 0.2)]
    assert prompt == model.prompts[2]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_structured_response_of_the_best_comes_back_and_the_evaluator_gets_it(is_async: bool) -> None:
    class Poem(BaseModel):
        lines: int

    model = scripted([call("Poem", lines=n) for n in (1, 5, 3)])
    steps = ICRLMiddleware(lambda answer: answer["lines"] / 10, rounds=3)
    output = asked(create_agent(model, [], response_format=ToolStrategy(Poem), middleware=[steps]), is_async)
    assert output["structured_response"] == Poem(lines=5)
    assert (output["icrl_result"]["answer"], output["icrl_result"]["reward"]) == ({"lines": 5}, 0.5)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_agent_with_a_form_gives_its_object_in_the_place_of_a_model(is_async: bool) -> None:
    @dataclass
    class Poem:
        lines: int

    agent = create_agent(scripted([call("Poem", lines=n) for n in (1, 5)]), [], response_format=ToolStrategy(Poem))
    graph = create_icrl(agent, lambda answer: answer["lines"] / 10, rounds=2).compile()
    inputs = {"task": "Do it."}
    output: Any = asyncio.run(graph.ainvoke(inputs)) if is_async else graph.invoke(inputs)
    assert (output["answer"], output["reward"]) == ({"lines": 5}, 0.5)


def test_a_tool_that_returns_directly_gives_the_answer() -> None:
    @tool(return_direct=True)
    def write(text: str) -> str:
        """Write."""
        return text

    model = scripted([call("write", text="best"), call("write", text="poor")])
    output = asked(create_agent(model, [write], middleware=[ICRLMiddleware(scored, rounds=2)]))
    assert output["icrl_result"]["answer"] == output["messages"][-1].text == "best"


def test_a_second_turn_is_a_run_of_its_own_over_the_conversation() -> None:
    model = scripted(["poor", "best", "mid", "poor"])
    agent = create_agent(model, [], middleware=[ICRLMiddleware(scored, rounds=2)], checkpointer=InMemorySaver())
    asked(agent, config=thread())
    output = asked(agent, inputs={"messages": [("user", "Again.")]}, config=thread())
    assert said(output) == ["Do it.", "best", "Again.", "mid"]
    assert (output["icrl_result"]["reward"], output["icrl_result"]["usage"]["calls"]) == (0.5, 2)
    assert [message["role"] for message in model.prompts[2]] == ["user", "assistant", "user"]
    assert len(agent.get_state(thread()).values["icrl_episodes"]) == 2


def test_settings_come_by_the_context_and_task_data_by_the_state() -> None:
    model = scripted(["poor", "best", "mid"])
    steps = ICRLMiddleware(lambda response, task_data: float(response == task_data["right"]), rounds=3)
    inputs = {**ASKED, "task_data": {"right": "best"}}
    output = asked(create_agent(model, [], middleware=[steps]), inputs=inputs, context={"icrl": {"rounds": 2}})
    assert (output["icrl_result"]["reward"], output["icrl_result"]["rounds_done"]) == (1.0, 2)
    assert "best" not in str(model.prompts[0])
    assert "task_data" not in output


def test_tokens_of_each_attempt_are_streamed_once_and_the_rounds_as_events() -> None:
    agent = create_agent(scripted(["poor", "best", "mid"]), [], middleware=[ICRLMiddleware(scored, rounds=3)])
    parts: Any = list(agent.stream(ASKED, stream_mode=["messages", "custom"]))
    streamed = [part[0] for mode, part in parts if mode == "messages"]
    assert [message.text for message in streamed if isinstance(message, AIMessage)] == ["poor", "best", "mid"]
    told = [part["type"] for mode, part in parts if mode == "custom"]
    assert told == ["round", "response", "episode"] * 3 + ["done"]


def test_a_person_judges_each_attempt_and_the_agent_waits_for_it() -> None:
    steps = ICRLMiddleware(human_reward(bounds=(0, 1)), rounds=2)
    agent = create_agent(scripted(["one", "two"]), [], middleware=[steps], checkpointer=InMemorySaver())
    assert agent.invoke(ASKED, thread())["__interrupt__"][0].value["response"] == "one"
    assert agent.invoke(Command(resume=0.7), thread())["__interrupt__"][0].value["response"] == "two"
    output = agent.invoke(Command(resume=0.1), thread())
    assert said(output) == ["Do it.", "one"]
    assert output["icrl_result"]["rewarded_by"] == "human"


def test_reflexion_writes_about_each_attempt_by_its_reflector() -> None:
    model, reflector = scripted(["poor", "best"]), ScriptedModel(["Not so poor."])
    steps = ICRLMiddleware(scored, topology="reflexion", reflector=reflector, rounds=2)
    output = asked(create_agent(model, [], middleware=[steps]))
    assert "Not so poor." in str(model.prompts[1])
    assert (said(output)[-1], output["icrl_result"]["usage"]["calls"]) == ("best", 3)


def test_self_refine_answers_with_its_last_attempt_and_icrl_may_judge_the_leaders_again() -> None:
    refine = ICRLMiddleware(scored, topology="self_refine", critic=ScriptedModel(["Shorter."]), rounds=2)
    assert said(asked(create_agent(scripted(["best", "poor"]), [], middleware=[refine]))) == ["Do it.", "poor"]
    judged: list[str] = []

    def judge(response: str) -> float:
        judged.append(response)
        return scored(response)

    again = ICRLMiddleware(judge, rounds=2, retests=2)
    assert said(asked(create_agent(scripted(["best", "poor"]), [], middleware=[again]))) == ["Do it.", "best"]
    assert Counter(judged) == {"best": 3, "poor": 3}


@needs_deepagents
def test_sub_agents_take_it_too_side_by_side_and_the_agent_around_them_counts_what_they_use() -> None:
    sub = scripted(["poor", "best"] * 2)
    tasks = [{"name": "task", "args": {"description": "Solve.", "subagent_type": "solver"}, "id": i} for i in "12"]
    model = scripted([AIMessage("", tool_calls=tasks), "best", "poor"])
    solver = {"name": "solver", "description": "Solves.", "system_prompt": "Solve.", "model": sub}
    subagents = [{**solver, "middleware": [ICRLMiddleware(lambda response: SCORES[response], rounds=2)]}]
    output = asked(create_deep(model, [], subagents=subagents, middleware=[ICRLMiddleware(scored, rounds=2)]))
    assert len(sub.prompts) == 4
    assert "best" in [m.text for m in output["messages"] if isinstance(m, ToolMessage)]
    assert (said(output)[-1], output["icrl_result"]["usage"]["calls"]) == ("best", 3 + 4)


# ------------------------------------------------------------------------------------------------ what goes wrong in it


def test_an_evaluator_that_raises_leaves_its_attempt_unscored_and_the_run_goes_on() -> None:
    def flaky(response: str) -> float:
        if response == "poor":
            raise RuntimeError("503")
        return scored(response)

    output = asked(create_agent(scripted(["poor", "best"]), [], middleware=[ICRLMiddleware(flaky, rounds=2)]))
    assert (output["icrl_result"]["reward"], output["icrl_result"]["stopped"]) == (0.9, "rounds")


def test_a_model_that_fails_is_the_agents_business_and_the_thread_goes_on_where_it_was() -> None:
    model = scripted(["best", ConnectionError("gone"), "poor"])
    agent = create_agent(model, [], middleware=[ICRLMiddleware(scored, rounds=2)], checkpointer=InMemorySaver())
    with pytest.raises(ConnectionError, match="gone"):
        agent.invoke(ASKED, thread())
    output = agent.invoke(None, thread())
    assert (said(output), output["icrl_result"]["usage"]["calls"]) == (["Do it.", "best"], 2)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_notice_of_a_limit_is_no_attempt_and_the_best_so_far_comes_back(is_first: bool) -> None:
    judged: list[str] = []

    def judge(response: str) -> float:
        judged.append(response)
        return 0.5

    steps = ICRLMiddleware(judge, rounds=3)
    stack: list[Any] = [ModelCallLimitMiddleware(run_limit=3, exit_behavior="end"), steps]
    model = scripted([call("look", x=1), "poor", call("look", x=2), "best"])
    output = asked(create_agent(model, [look], middleware=stack if is_first else stack[::-1]))
    assert judged == ["poor"]
    assert said(output) == ["Do it.", "look", "seen 1", "poor"]
    assert (output["icrl_result"]["stopped"], output["icrl_result"]["usage"]["calls"]) == ("agent", 3)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_round_that_is_summarized_is_judged_by_its_answer_and_the_conversation_stays(is_first: bool) -> None:
    model = scripted([call("look", x=1), "poor", call("look", x=2), "best", call("look", x=3), "mid"])
    summary = SummarizationMiddleware(ScriptedModel(lambda: "SUMMARY"), trigger=("messages", 3), keep=("messages", 2))
    stack: list[Any] = [summary, ICRLMiddleware(scored, rounds=3)]
    output = asked(create_agent(model, [look], middleware=stack if is_first else stack[::-1]))
    assert output["icrl_result"]["answer"] == "best"
    first, *_, last = said(output)
    assert (first, last) == ("Do it.", "best")
    assert "SUMMARY" in str(model.prompts[1][0])
    assert "seen 2" in str(model.prompts[3])
    assert "SUMMARY" not in str(model.prompts[4])


def test_a_conversation_that_was_summarized_ahead_of_it_is_summarized_once() -> None:
    summarizer, model = ScriptedModel(lambda: "SUMMARY"), scripted(["poor", "best", "mid"])
    summary = SummarizationMiddleware(summarizer, trigger=("messages", 4), keep=("messages", 1))
    agent = create_agent(model, [], middleware=[summary, ICRLMiddleware(scored, rounds=3)])
    said_before = [
        ("user", "One."),
        ("assistant", "Two."),
        ("user", "Three."),
        ("assistant", "Four."),
        ("user", "Do it."),
    ]
    output = asked(agent, inputs={"messages": said_before})
    assert len(summarizer.prompts) == 1
    assert all("SUMMARY" in str(prompt[0]) and "Two." not in str(prompt) for prompt in model.prompts)
    assert (len(said(output)), said(output)[1:]) == (3, ["Do it.", "best"])


@needs_deepagents
def test_what_a_deep_agent_has_summarized_in_one_round_hides_nothing_in_the_next() -> None:
    from deepagents.backends import StateBackend
    from deepagents.middleware.summarization import SummarizationMiddleware as DeepSummarization

    script = [
        call("look", x=1),
        call("look", x=2),
        "poor",
        call("look", x=3),
        call("look", x=4),
        "best",
        call("look", x=5),
        "mid",
    ]
    model, short = scripted(script), {"trigger": ("messages", 4), "keep": ("messages", 2)}
    summary = DeepSummarization(ScriptedModel(lambda: "SUMMARY"), backend=StateBackend(), **short)
    output = asked(create_deep(model, [look], middleware=[summary, ICRLMiddleware(scored, rounds=3)]))
    assert "SUMMARY" in str(model.prompts[2])
    assert "SUMMARY" not in str(model.prompts[3])
    assert "seen 3" in str(model.prompts[4])
    assert said(output) == ["Do it.", "look", "seen 3", "look", "seen 4", "best"]


# -------------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("is_async", [False, True])
def test_usage_is_what_the_server_counts_with_the_judge_and_the_models_within_tools(is_async: bool) -> None:
    def reply(messages: Any) -> str:
        return f"answer {len(str(messages))}"

    with OpenAIServer(reply) as server:
        inner, judge = (chat_model(f"openai:{name}", base_url=server.base_url) for name in ("inner", "judge"))
        solve = as_tool(create_icrl(inner, lambda response: 0.5, rounds=2), "solve", "Solves.")
        script = iter([call("solve", task="Solve."), "poor", call("solve", task="Again."), "best"])
        agent = ScriptedModel(lambda: next(script), takes_tools=True)
        paid: Any = RunnableLambda(lambda given: judge.invoke(given["response"])) | (
            lambda verdict: len(verdict.text) / 100
        )
        output = asked(create_agent(agent, [solve], middleware=[ICRLMiddleware(paid, rounds=2)]), is_async)
        usage = output["icrl_result"]["usage"]
        told = [sum(call[name] for call in server.reported) for name in ("prompt_tokens", "completion_tokens")]
    assert usage["calls"] == server.counts["calls"] + len(agent.prompts) == 6 + 4
    assert [usage["input"], usage["output"]] == told


def test_the_agents_own_calls_are_counted_to_the_token() -> None:
    with OpenAIServer(lambda messages: f"answer {len(str(messages))}") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        usage = asked(create_agent(model, [], middleware=[ICRLMiddleware(lambda response: 0.5, rounds=4)]))[
            "icrl_result"
        ]["usage"]
        told = [sum(call[name] for call in server.reported) for name in ("prompt_tokens", "completion_tokens")]
    assert usage["calls"] == server.counts["calls"] == 4
    assert [usage["input"], usage["output"]] == told


@given(st.integers(1, 12), st.lists(st.integers(0, 4), min_size=1, max_size=4), st.booleans())
def test_no_cap_on_calls_is_passed_and_no_round_is_begun_that_could_not_be_judged(
    cap: int, tools: list[int], is_judged: bool
) -> None:
    script = [reply for n in tools for reply in (*(call("look", x=i) for i in range(n)), "best")]
    judged: list[str] = []

    def judge(given: Any) -> float:
        judged.append(given["response"])
        return 0.5

    model = scripted(script)
    steps = ICRLMiddleware(RunnableLambda(judge) if is_judged else scored, rounds=len(tools), max_calls=cap)
    result = asked(create_agent(model, [look], middleware=[steps]))["icrl_result"]
    assert result["usage"]["calls"] == len(model.prompts) + len(judged) <= cap
    if is_judged and cap >= tools[0] + 2:
        assert judged


def test_a_cap_breaks_off_the_attempt_and_the_best_before_it_comes_back() -> None:
    model = scripted([call("look", x=1), "best", call("look", x=2), "mid"])
    output = asked(create_agent(model, [look], middleware=[ICRLMiddleware(scored, rounds=9, max_calls=3)]))
    assert said(output) == ["Do it.", "look", "seen 1", "best"]
    assert (output["icrl_result"]["stopped"], len(model.prompts)) == ("calls", 3)


def test_a_cap_of_tokens_and_a_target_end_the_run() -> None:
    capped = asked(
        create_agent(scripted(["poor", "mid", "best"]), [], middleware=[ICRLMiddleware(scored, max_tokens=20)])
    )
    assert (capped["icrl_result"]["stopped"], capped["icrl_result"]["answer"]) == ("tokens", "mid")
    reached = asked(create_agent(scripted(["poor", "best"]), [], middleware=[ICRLMiddleware(scored, target=0.9)]))
    assert (reached["icrl_result"]["stopped"], said(reached)[-1]) == ("success", "best")


# ------------------------------------------------------------------------------------------------------- what is undone


@needs_deepagents
@pytest.mark.parametrize(("restore", "left"), [((), {"/a": "best", "/b": "poor"}), (("files",), {"/a": "best"})])
def test_files_of_a_deep_agent_are_those_of_the_best_attempt_only_if_they_are_restored(restore: Any, left: Any) -> None:
    judged: list[Any] = []

    def of_files(response: str, task_data: Any) -> float:
        judged.append(sorted(task_data.get("files", {})))
        return scored(response)

    write = "write_file"
    script = [call(write, file_path="/a", content="best"), "best", call(write, file_path="/b", content="poor"), "poor"]
    steps = ICRLMiddleware(of_files, rounds=2, restore=restore)
    output = asked(create_deep(scripted(script), [], middleware=[steps]))
    assert {path: file["content"] for path, file in output["files"].items()} == left
    assert judged == ([["/a"], ["/b"]] if restore else [[], []])


@needs_deepagents
def test_a_key_to_restore_that_the_agent_does_not_have_is_told_before_a_model_is_asked() -> None:
    model = scripted(["a"])
    agent = create_deep(model, [], middleware=[ICRLMiddleware(scored, rounds=2, restore=("filez",))])
    with pytest.raises(ValueError, match=r"restore names 'filez', but the state of the agent has .*files"):
        asked(agent)
    assert model.prompts == []


def test_keys_are_restored_whatever_their_reducers() -> None:
    class State(AgentState):
        plain: NotRequired[str]
        added: NotRequired[Annotated[list[str], operator.add]]

    @tool
    def note(text: str) -> Command[Any]:
        """Note."""
        answer = ToolMessage("noted", tool_call_id=f"note {{'text': '{text}'}}")
        return Command(update={"messages": [answer], "plain": text, "added": [text]})

    script = [call("note", text="poor"), "poor", call("note", text="best"), "best", call("note", text="mid"), "mid"]
    steps = ICRLMiddleware(scored, rounds=3, restore=("plain", "added"))
    agent = create_agent(scripted(script), [note], middleware=[steps], state_schema=State)
    output = asked(agent, inputs={**ASKED, "added": ["before"]})
    assert (output["plain"], output["added"]) == ("best", ["before", "best"])


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"width": 2},
            "width=2 makes no sense here: whoever makes the attempts",
        ),
        ({"model": "openai:any"}, "model is of the model that answers"),
        ({"switch_model": "openai:any", "switch_after": 2}, "switch_model is of the model that answers"),
        ({"system": "Be kind."}, "system is of the model that answers"),
        ({"sampling": {"default": {"temperature": 0}}}, "sampling is of the model that answers"),
        ({"max_response_tokens": 5}, "max_response_tokens is of the model that answers"),
        ({"extract": BaseModel}, "structured output is of the model that answers"),
        ({"topology": "best_of_n"}, "topology='best_of_n' does not make one attempt after another"),
        ({"topology": "reflexion"}, "topology='reflexion' writes about its attempts: give it a reflector"),
        ({"topology": "self_refine"}, "topology='self_refine' writes about its attempts"),
        ({"topology": "none"}, "unknown topology 'none'"),
        ({"n": 3}, "unknown argument 'n'|unexpected"),
        ({"restore": "files"}, "restore has names of keys"),
        ({"restore": ("files",), "retests": 1}, "retests=1 makes no sense here: restore has put back"),
    ],
)
def test_what_makes_no_sense_for_an_agent_is_refused_where_it_is_made(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ICRLMiddleware(scored, **options)


@pytest.mark.parametrize("settings", [{"width": 2}, {"model": "learner:hidden-color"}, {"roundz": 1}])
def test_settings_of_a_run_that_make_no_sense_are_refused_before_anything_is_paid(settings: Any) -> None:
    model = scripted(["poor"])
    with pytest.raises(ValueError, match="width=2|model=|unknown setting"):
        asked(create_agent(model, [], middleware=[ICRLMiddleware(scored)]), context={"icrl": settings})
    assert model.prompts == []


# ------------------------------------------------------------------------------------------------------ beside a rubric


def verdict(result: str, *criteria: bool) -> AIMessage:
    told = [
        {"name": f"c{i}", "passed": True} if ok else {"name": f"c{i}", "passed": False, "gap": "mend it"}
        for i, ok in enumerate(criteria)
    ]
    return call("GraderResponse", result=result, explanation="e", criteria=told)


def by_rubric(answers: Sequence[str], verdicts: Sequence[Any], create: Callable[..., Any]) -> Any:
    from deepagents.middleware.rubric import RubricMiddleware

    with warnings.catch_warnings(action="ignore"):  # it is a beta
        rubric = RubricMiddleware(model=scripted(verdicts), max_iterations=len(answers))
        return asked(create(scripted(answers), [], middleware=[rubric]), inputs={**ASKED, "rubric": "- a\n- b\n- c"})


@needs_deepagents
@pytest.mark.parametrize("create", AGENTS)
def test_a_rubric_returns_its_last_answer_and_this_the_best_one(create: Any) -> None:
    """langchain-ai/deepagents#5110: a good review became "..."."""
    answers = ["poor", "near perfect", "..."]
    verdicts = [verdict("needs_revision", *passed) for passed in ([False] * 3, [True, True, False], [False] * 3)]
    assert said(by_rubric(answers, verdicts, create))[-1] == "..."
    share = {"poor": 0, "near perfect": 2 / 3, "...": 0}
    output = asked(
        create(scripted(answers), [], middleware=[ICRLMiddleware(lambda response: share[response], rounds=3)])
    )
    assert said(output) == ["Do it.", "near perfect"]


@needs_deepagents
def test_a_grader_that_fails_ends_a_rubric_and_not_this() -> None:
    def flaky(response: str) -> float:
        if response == "one":
            raise RuntimeError("503")
        return 0.5

    assert said(by_rubric(["one", "two"], [RuntimeError("503")], create_agent))[-1] == "one"
    output = asked(create_agent(scripted(["one", "two"]), [], middleware=[ICRLMiddleware(flaky, rounds=2)]))
    assert said(output)[-1] == "two"


# ---------------------------------------------------------------------------------------------------------------- kills


def test_under_ainvoke_a_run_that_broke_off_after_a_verdict_does_not_pay_for_it_again(tmp_path: Path) -> None:
    judged: list[str] = []

    async def judge(given: Any) -> float:
        judged.append(given["response"])
        return scored(given["response"])

    def watch(event: Any) -> None:
        if event["type"] == "episode" and judged == ["poor", "best"]:
            judged.append("broken off")
            raise asyncio.CancelledError

    async def played() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "agent.sqlite")) as saver:
            steps = ICRLMiddleware(RunnableLambda(judge), rounds=3, watch=watch)
            agent: Any = create_agent(scripted(["poor", "best", "mid"]), [], middleware=[steps], checkpointer=saver)
            with contextlib.suppress(asyncio.CancelledError, NodeCancelledError):
                await agent.ainvoke(ASKED, thread(), durability="sync")
            return await agent.ainvoke(None, thread(), durability="sync")

    output = asyncio.run(played())
    assert judged == ["poor", "best", "broken off", "mid"]
    assert (said(output), output["icrl_result"]["usage"]["calls"]) == (["Do it.", "best"], 6)


@pytest.mark.parametrize("seed", range(4))
def test_an_agent_that_is_killed_again_and_again_pays_for_nothing_twice_but_the_call_in_flight(
    seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_long, rng = request.config.getoption("--soak"), Random(seed)
    if seed and not is_long:
        pytest.skip("another 75 kills: make soak has them all")
    kills = 25 if is_long else 6
    rounds, points = kills, tmp_path / "points.log"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(Path(__file__).parent / "middleware_child.py"), str(tmp_path), str(rounds)]

    def go_on(kill_at: int) -> Any:
        return subprocess.run([*command, str(kill_at)], env=environment, capture_output=True, text=True, check=False)

    killed: list[str] = []
    for _ in range(kills):
        reached = len(points.read_text().splitlines()) if points.exists() else 0
        done = go_on(reached + rng.randint(1, 9))
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed.append(points.read_text().splitlines()[-1])
    done = go_on(-1)
    assert (done.stdout, done.stderr) == (f"True {3 * rounds} {rounds}\n", "")
    in_flight = [point.split()[0] for point in killed]
    all_reached = points.read_text().splitlines()
    assert all_reached.count("judge asked") == rounds + in_flight.count("judge")
    assert all_reached.count("model asked") == 2 * rounds + in_flight.count("model")
