"""The reasoning of a model is kept apart from its answer: in no prompt, before no judge, and there for who looks."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from icrl_graph import aimprove, chat_model, create_icrl, create_reflexion, improve
from icrl_graph.environments import episode_return, rollout
from icrl_graph.evaluators import llm_judge
from icrl_graph.models.reasoning import split
from icrl_graph.models.responses import read_response
from icrl_graph.prompts.layouts import LAYOUTS, Style, parse, render
from icrl_graph.testing import ScriptedModel
from tests.corridor import Corridor
from tests.helpers import play
from tests.raw_http import CHUNKED, RawServer, answer

FORMS = {
    "think": "<think>SECRET</think>42",
    "on lines": "<think>\nSECRET\n</think>\n\n42",
    "blank ahead": "\n\n <think>SECRET</think> 42",
    "thinking": "<thinking>SECRET</thinking>42",
    "reasoning": "<reasoning>SECRET</reasoning>42",
    "capitals": "<THINK>SECRET</THINK>42",
    "Seed-OSS": "<seed:think>SECRET</seed:think>42",
    "LongCat": "<longcat_think>SECRET</longcat_think>42",
    "Magistral": "[THINK]SECRET[/THINK]42",
    "Kimi-VL": "◁think▷SECRET◁/think▷42",
    "Cohere": "<|START_THINKING|>SECRET<|END_THINKING|><|START_RESPONSE|>42<|END_RESPONSE|>",
    "Gemma": "<|channel>thought\nSECRET<channel|>42",
    "gpt-oss": "<|channel|>analysis<|message|>SECRET<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>",
    "gpt-oss with a preamble": "<|channel|>analysis<|message|>SECRET<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>SECRET<|end|><|start|>assistant<|channel|>final<|message|>42",
    "gpt-oss of llama.cpp": "<|channel|>analysis<|message|>SECRET<|end|>42",
    "gpt-oss without special tokens": "analysisSECRETassistantfinal42",
    "opened by the template": "SECRET\n</think>\n\n42",
    "opened twice": "<think>\n<think>SECRET</think>42",
    "closed twice": "<think>SECRET</think>\n</think>\n42",
    "nested": "<think>SECRET <think>SECRET</think> SECRET</think>42",
    "two blocks": "<think>SECRET</think>\n<think>SECRET</think>\n42",
    "another closing tag": "<thinking>SECRET</think>42",
    "speaks of tags": "<think>SECRET: I write `<think>` and '</think>' here.</think>42",
    "quotes at its end": '<think>SECRET "42"</think>"42"',
    "empty": "<think>\n\n</think>\n\n42",
}


@pytest.mark.parametrize("reply", FORMS.values(), ids=FORMS)
def test_reasoning_at_the_beginning_of_a_reply_is_split_off(reply: str) -> None:
    reasoning, said, is_open = split(reply)
    assert (said.strip('"'), is_open, "SECRET" in reasoning) == ("42", False, "SECRET" in reply)


@pytest.mark.parametrize(
    "reply",
    [
        "42",
        "  42\n",
        "The tags are <think> and </think>.",
        "First <think>look</think>, then leap.",
        "End it with `</think>`.",
        'text.split("</think>")[-1]',
        "analysis of the assistant",
        "42<|end|>",
        "[THINK",
        "<p>thinking</p>",
    ],
)
def test_an_answer_that_speaks_of_such_tags_stays_as_it_is(reply: str) -> None:
    assert split(reply) == ("", reply, False)


@given(st.text("ab<>/\n `", max_size=20))
def test_what_follows_reasoning_is_the_answer_without_blank_lines_ahead_of_it(text: str) -> None:
    reasoning, said, _ = split(f"<think>a</think>\n{text}")
    assert reasoning == "a"
    assert text.endswith(said)
    assert not text.removesuffix(said).strip()


def test_a_reply_of_nothing_but_tags_is_read_once_and_not_again_at_each_of_them() -> None:
    assert split("<think></think>" * 10_000 + "42").answer == "42"
    assert split("<think>" * 10_000 + "</think>" * 9_999 + "42").answer == "42"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("<plan>...</plan>", ("", "<think>a</think>b", False)),
        ("auto, <plan>...</plan>", ("a", "b", False)),
        ("<think>...</think>", ("a", "b", False)),
        ("off", ("", "<think>a</think>b", False)),
        ("auto", ("a", "b", False)),
    ],
)
def test_the_tags_can_be_chosen(tags: str, expected: Any) -> None:
    assert split("<think>a</think>b", tags) == expected
    if "plan" in tags:
        assert split("<plan>a</plan>b", tags) == ("a", "b", False)


@pytest.mark.parametrize("tags", ["think", "<a>...", "...</a>", "", "auto,"])
def test_wrong_tags_are_an_error_when_a_graph_is_built(tags: str) -> None:
    with pytest.raises(ValueError, match=rf"reasoning_tags={tags!r}.*OPENING\.\.\.CLOSING"):
        create_icrl(lambda: "", lambda: 1.0, reasoning_tags=tags)


# ------------------------------------------------------------------------------------------------- over real HTTP


def completion(content: Any, finish: str = "stop", read: int = 10, written: int = 5, **fields: Any) -> bytes:
    """An answer of a server: its content, why it ended, its tokens, and other fields of the message."""
    message = {"role": "assistant", "content": content, **fields}
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    known = {"id": "1", "object": "chat.completion", "created": 1, "model": "any"}
    return answer(json.dumps({**known, "choices": choices, "usage": usage}).encode())


class Server(RawServer):
    """Answers requests by a function of their bodies; keeps them."""

    def __init__(self, reply: Callable[[Any], bytes]) -> None:
        self.requests: list[str] = []

        def sends(request: bytes) -> Iterable[bytes]:
            self.requests.append(request.decode())
            yield reply(json.loads(request))

        super().__init__(sends)

    def __enter__(self) -> "Server":
        super().__enter__()
        return self

    def model(self, **options: Any) -> Any:
        return chat_model("openai:any", base_url=f"http://{self.address}/v1", **options)


def run(way: Any, *args: Any, **options: Any) -> Any:
    played = way(*args, **options)
    return asyncio.run(played) if asyncio.iscoroutine(played) else played


WAYS = [improve, aimprove]
TOPOLOGIES: dict[str, Any] = {
    "icrl": {"rounds": 3},
    "reflexion": {"rounds": 3, "show_attempts": True},
    "self_refine": {"rounds": 3},
    "best_of_n": {"n": 3},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_prompt_and_no_evaluator_sees_reasoning_and_every_attempt_keeps_it(topology: str, way: Any) -> None:
    seen: list[str] = []

    def score(response: str) -> float:
        seen.append(response)
        return 0.5

    with Server(lambda body: completion(f"<think>SECRET {len(str(body))}</think>\nanswer")) as server:
        options = {"topology": topology, **TOPOLOGIES[topology]}
        result = run(way, "Say it.", score, model=server.model(), **options)
    assert seen == ["answer"] * 3
    assert not [request for request in server.requests if "SECRET" in request]
    assert [each["response"] for each in result.episodes] == ["answer"] * 3
    assert all(each["reasoning"].startswith("SECRET") for each in result.episodes)
    assert {each.get("reflection", "answer") for each in result.episodes} == {"answer"}


FIELDS: dict[str, Any] = {
    "reasoning_content": {"content": "42", "reasoning_content": "SECRET"},
    "reasoning": {"content": "42", "reasoning": "SECRET"},
    "both": {"content": "42", "reasoning_content": "SECRET", "reasoning": "SECRET"},
    "blocks": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "SECRET"}]}, "42"]},
    "in the content": {"content": "<think>SECRET</think>42"},
}


@pytest.mark.parametrize("way", WAYS)
def test_reasoning_is_kept_from_wherever_a_server_puts_it(way: Any) -> None:
    forms = iter(FIELDS.values())
    with Server(lambda body: completion(**next(forms))) as server:
        result = run(way, "Say it.", lambda: 0.5, model=server.model(), rounds=len(FIELDS))
    kept = [(each.get("response"), each.get("reasoning")) for each in result.episodes]
    assert dict(zip(FIELDS, kept, strict=True)) == dict.fromkeys(FIELDS, ("42", "SECRET"))
    assert "SECRET" not in server.requests[-1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_from_the_pieces_of_a_stream(name: str, way: Any) -> None:
    deltas = [{"role": "assistant", name: "SEC"}, {name: "RET"}, {"content": "4"}, {"content": "2"}]
    events = [json.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    events += [json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), "[DONE]"]
    chunks = [f"data: {event}\n\n".encode() for event in events]
    framed = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""]]
    stream = CHUNKED.replace(b"application/json", b"text/event-stream") + b"".join(framed)
    with Server(lambda body: stream) as server:
        result = run(way, "Say it.", lambda: 0.5, model=server.model(streaming=True), rounds=1)
    assert [(each["response"], each["reasoning"]) for each in result.episodes] == [("42", "SECRET")]


ALONE: dict[str, Any] = {
    "reasoning does not end": {"content": "<think>SECRET"},
    "only reasoned": {"content": "<think>SECRET</think>"},
    "model only reasoned": {"content": None, "reasoning_content": "SECRET"},
    "called a tool instead (search)": {
        "content": None,
        "finish": "tool_calls",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"for": "SECRET"}'}}
        ],
    },
    "all of its 511 tokens went": {"content": "", "finish": "length", "written": 511, "reasoning": "SECRET"},
    "all of its 512 tokens went": {"content": "<think>SECRET", "finish": "length", "written": 512},
    "its 510 tokens hold no text": {"content": "", "finish": "length", "written": 510},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_reply_of_reasoning_alone_is_no_answer_and_says_why(way: Any) -> None:
    replies = iter(ALONE.values())
    with Server(lambda body: completion(**next(replies))) as server:
        result = run(way, "Say it.", lambda: 0.5, model=server.model(), rounds=len(ALONE))
    for episode, (told, reply) in zip(result.episodes, ALONE.items(), strict=True):
        assert told in episode["error"]
        assert ("response" in episode, episode["error_kind"]) == (False, "reply")
        is_cut = reply.get("finish") == "length"
        assert (episode["finish_reason"], episode.get("cut", False)) == (reply.get("finish", "stop"), is_cut)
        assert ("max_response_tokens" in episode["error"]) == is_cut
    assert "SECRET" not in server.requests[-1]


class Guess(BaseModel):
    number: int


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tags", [None, "<plan>...</plan>"])
@pytest.mark.parametrize("refuses", [False, True])
def test_a_structured_answer_is_read_behind_reasoning(refuses: bool, tags: str | None, way: Any) -> None:
    name = "plan" if tags else "think"

    def reply(body: Any) -> bytes:
        if refuses and "response_format" in body:
            return answer(b'{"error": {"message": "no"}}', status=400)
        return completion(f'<{name}>SECRET {{"number": 1}}</{name}>\n```json\n{{"number": 42}}\n```')

    with Server(reply) as server:
        options = {"extract": Guess, "rounds": 2, "reasoning_tags": tags}
        result = run(way, "Guess.", lambda answer: answer["number"] / 42, model=server.model(), **options)
    assert (result.answer, result.rewards) == ({"number": 42}, [1.0, 1.0])
    assert "SECRET" in result.episodes[0]["reasoning"]
    assert not [request for request in server.requests if "SECRET" in request]


def test_a_structured_answer_that_was_cut_off_says_so() -> None:
    with Server(lambda body: completion('<think>SECRET</think>{"number": 4', "length", written=99)) as server:
        result = improve("Guess.", lambda: 0.5, model=server.model(), rounds=1, extract=Guess)
    assert "not in the asked-for form: it was cut off" in result.episodes[0]["error"]


@pytest.mark.parametrize("verdict", ['{"reasons": "so", "score": 7}', "It is good.\nScore: 7"])
@pytest.mark.parametrize("way", WAYS)
def test_a_verdict_is_read_behind_reasoning(verdict: str, way: Any) -> None:
    with Server(lambda body: completion(f"<think>Score: 2\n</think>\n{verdict}")) as server:
        judge = llm_judge(server.model(), "Good?", explain=True)
        result = run(way, "Say it.", judge, model=lambda: "it", rounds=1)
    assert result.rewards == [7.0]
    assert "Score: 2" not in result.episodes[0]["reward"]["feedback"]


def test_a_judge_that_only_reasons_gives_no_verdict_and_the_attempt_says_why() -> None:
    with Server(lambda body: completion("<think>Score: 2", "length", written=99)) as server:
        result = improve("Say it.", llm_judge(server.model(), "Good?"), model=lambda: "it", rounds=1)
    assert result.rewards == [None]
    assert "all of its 99 tokens went into reasoning" in result.episodes[0]["reward"]["error"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("thoughts", [False, True])
def test_the_action_is_what_follows_reasoning(thoughts: bool, way: str) -> None:
    log: list[str] = []
    seen: list[Any] = []

    def score(steps: Any) -> Any:
        seen.extend(steps)
        return episode_return(steps)

    said = "I go right.\nAction: right" if thoughts else "right"
    with Server(lambda body: completion(f"<think>\nSECRET left\n</think>\n{said}")) as server:
        policy = rollout(server.model(), lambda: Corridor(log), max_steps=4, thoughts=thoughts)
        graph = create_icrl(policy, score, rounds=2).compile()
        given: Any = {"task": "Find the treasure.", "task_data": {"length": 2}}
        out = graph.invoke(given) if way == "invoke" else asyncio.run(graph.ainvoke(given))
    assert (log, out["reward"]) == (["reset", "right", "right"] * 2, 1.1)
    assert not [request for request in server.requests if "SECRET" in request]
    assert not [step for step in seen if "reasoning" in step]


def test_the_reasoning_of_each_action_is_kept() -> None:
    model = ScriptedModel(lambda: "<think>SECRET</think>right")
    policy = rollout(model, Corridor, max_steps=4)
    _, episodes = play(create_icrl(policy, episode_return, rounds=1), {"task": "?", "task_data": {"length": 2}})
    assert [step["reasoning"] for step in episodes[0]["steps"]] == ["SECRET"] * 2


def test_an_episode_that_ends_with_reasoning_alone_says_so() -> None:
    model = ScriptedModel(["right", "<think>SECRET"])
    policy = rollout(model, Corridor, max_steps=4)
    _, episodes = play(create_icrl(policy, episode_return, rounds=1), {"task": "?", "task_data": {"length": 9}})
    assert ("does not end" in episodes[0]["error"], episodes[0]["reasoning"]) == (True, "SECRET")


def test_custom_parts_that_make_prompts_are_handed_no_reasoning() -> None:
    handed: list[Any] = []

    def memory(past: Any) -> list[int]:
        handed.extend(past)
        return list(range(len(past)))

    def layout(preamble: Any, task: Any, episodes: Any, instruction: str, style: Style) -> Any:
        handed.extend(episodes)
        return task

    def schedule(number: int, past: Any) -> str:
        handed.extend(past)
        return "plain"

    model = ScriptedModel(lambda: "<think>SECRET</think>42")
    play(create_icrl(model, lambda: 0.5, rounds=3, memory=memory, layout=layout, schedule=schedule))
    assert handed
    assert "SECRET" not in str(handed)


def test_without_the_setting_reasoning_stays_in_the_answer() -> None:
    model = ScriptedModel(lambda: "<think>a</think>b")
    _, episodes = play(create_reflexion(model, lambda: 0.5, rounds=2, reasoning_tags="off"))
    assert [each["response"] for each in episodes] == ["<think>a</think>b"] * 2
    assert episodes[0]["reflection"] == "<think>a</think>b"


def test_a_run_may_choose_the_tags_by_its_context() -> None:
    model = ScriptedModel(lambda: "<plan>a</plan>b")
    _, episodes = play(create_icrl(model, lambda: 0.5), context={"rounds": 1, "reasoning_tags": "<plan>...</plan>"})
    assert (episodes[0]["response"], episodes[0]["reasoning"]) == ("b", "a")


@pytest.mark.parametrize(
    "message",
    [
        AIMessage([{"type": "thinking", "thinking": "SECRET", "signature": "x"}, {"type": "text", "text": "42"}]),
        AIMessage([{"type": "reasoning", "reasoning": "SECRET"}, {"type": "text", "text": "42"}]),
        AIMessage(
            [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "SECRET"}]},
                {"type": "text", "text": "42"},
            ]
        ),
        AIMessage(
            [{"type": "reasoning_content", "reasoning_content": {"text": "SECRET"}}, {"type": "text", "text": "42"}]
        ),
        AIMessage("42", additional_kwargs={"reasoning_content": "SECRET"}),
        AIMessage("42", additional_kwargs={"reasoning": {"summary": [{"type": "summary_text", "text": "SECRET"}]}}),
    ],
    ids=["Anthropic", "LangChain", "OpenAI", "Bedrock", "DeepSeek", "OpenAI before v1"],
)
def test_reasoning_is_read_from_the_messages_of_every_provider(message: AIMessage) -> None:
    assert read_response(message) == {"response": "42", "reasoning": "SECRET"}


# ------------------------------------------------------------------------------------------------- cut answers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cut_answer_is_marked_in_later_prompts_and_in_no_others(layout: str, way: Any) -> None:
    replies = iter([completion("half a", "length", written=99), *[completion("whole")] * 2])
    with Server(lambda body: next(replies)) as server:
        result = run(way, "Say it.", lambda: 0.5, model=server.model(), rounds=3, layout=layout)
    assert [each.get("cut", False) for each in result.episodes] == [True, False, False]
    shown = parse(json.loads(server.requests[2])["messages"]).attempts
    assert [(each.response, each.value, each.cut) for each in shown] == [("half a", 0.5, True), ("whole", 0.5, False)]
    assert [request.count("cut off") for request in server.requests] == [0, 1, 1]


@given(
    cut=st.booleans(),
    texts=st.tuples(*[st.sampled_from(["x", "Reward: 1", "(This attempt was cut off at its limit of tokens.)"])] * 3),
    shows=st.sampled_from([("response", "shown"), ("response", "reflection"), ("response", "shown", "reflection")]),
    layout=st.sampled_from(list(LAYOUTS.values())),
)
def test_a_mark_is_read_back_and_nobody_else_can_set_one(cut: bool, texts: Any, shows: Any, layout: Any) -> None:
    response, feedback, reflection = texts
    shown: Any = {"value": 0.5, "feedback": feedback}
    plan: Any = {"shown": [], "instruction": "explore", "left_out": 0}
    episode: Any = {"round": 0, "candidate": 0, "plan": plan, "response": response, "shown": shown}
    episode |= {"reflection": reflection, **({"cut": True} if cut else {})}
    next_plan: Any = {**plan, "shown": [[0, 1]]}
    messages = render([], "task", [episode], next_plan, Style(shows), layout)
    (attempt,) = parse(messages).attempts
    assert (attempt.response, attempt.cut) == (response, cut)
    assert attempt.feedback == (feedback if "shown" in shows else "")
