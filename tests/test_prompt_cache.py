"""Marks for prompt caches: whose they are, where they stand, and that nobody else sees any difference."""

import json
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from openai import DefaultHttpxClient
from pydantic import BaseModel, SecretStr

from icrl_graph.execution.journal import MemoryJournal
from icrl_graph.models.policy import as_policy
from icrl_graph.models.prompt_cache import AUTOMATIC, DIALECTS, OFF, dialect, takes_marks
from icrl_graph.models.registry import chat_model
from icrl_graph.prompts.feedback import FeedbackLimits
from icrl_graph.prompts.layouts import LAYOUTS, Style, parse, render
from icrl_graph.state.episode import Episode, Plan
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_icrl, create_self_refine
from tests.bodies import BodyServer
from tests.helpers import GAME, climber, nearness, play, thread
from tests.test_prompt_plans import CHAT, answers, episodes

KEY = SecretStr("k")
LOCAL = "http://127.0.0.1:1/v1"


# ------------------------------------------------------------------------------------------------------ whose they are


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("gpt-5.6", "gpt-5.6-mini", "gpt-5.10", "gpt-6", "gpt-6-2027-01-01", "gpt-10.1")),
        *((name, True) for name in ("ft:gpt-5.6-mini:us::1",)),
        *((name, False) for name in ("gpt-5", "gpt-5-2025-08-07", "gpt-5.1", "gpt-5.5-pro", "gpt-4.1-mini", "gpt-4o")),
        *((name, False) for name in ("gpt-4o-2024-08-06", "gpt-oss-120b", "o3", "my-gpt-6", "gpt-3.5-turbo", "")),
    ],
)
def test_the_version_of_a_model_is_a_number(name: str, expected: bool) -> None:
    assert takes_marks(name) is expected


class _Anthropic:
    """What stands in for a class that is not installed."""


_ChatAnthropic = type("ChatAnthropic", (_Anthropic,), {"__module__": "langchain_anthropic.chat_models"})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ChatOpenAI(model="gpt-5.6", api_key=KEY), "openai-marks"),
        (ChatOpenAI(model="gpt-5.6", api_key=KEY, base_url="https://eu.api.openai.com/v1"), "openai-marks"),
        (chat_model("openai:gpt-5.6-mini", api_key="k"), "openai-marks"),
        (chat_model("openai:gpt-4.1-mini", api_key="k"), "openai"),
        (chat_model("openai:gpt-5.6", base_url=LOCAL), "automatic"),
        (chat_model("openai:gpt-5.6", base_url="https://api.openai.com.example.org/v1"), "automatic"),
        (AzureChatOpenAI(model="gpt-5.6", api_key=KEY, azure_endpoint="https://x", api_version="1"), "automatic"),
        (ChatOpenAI(model="gpt-5.6", api_key=KEY).bind(stop=["x"]), "automatic"),
        (_ChatAnthropic(), "anthropic"),
        (type("Own", (_ChatAnthropic,), {})(), "anthropic"),
        (type("ChatAnthropic", (), {"__module__": "elsewhere"})(), "automatic"),
        (ScriptedModel(["a"]), "automatic"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_dialect_follows_from_class_address_and_name(model: Any, expected: str) -> None:
    assert dialect("auto", model) is {**DIALECTS, "automatic": AUTOMATIC}[expected]


def test_an_address_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", LOCAL)
    assert dialect("auto", ChatOpenAI(model="gpt-5.6", api_key=KEY)) is AUTOMATIC


def test_a_dialect_can_be_chosen_for_a_custom_server() -> None:
    model = chat_model("openai:any", base_url=LOCAL)
    for name in DIALECTS:
        assert as_policy(model, name).cache is DIALECTS[name]


def test_a_function_and_a_graph_get_plain_texts_whatever_is_chosen() -> None:
    assert as_policy(lambda: "a", "openai-marks").cache is OFF
    assert as_policy(ScriptedModel(["a"]), "anthropic").cache is OFF


@pytest.mark.parametrize("wrong", ["on", "", 3, ["auto"], True])
def test_an_unknown_dialect_is_refused_with_the_choices(wrong: Any) -> None:
    with pytest.raises(ValueError, match="cache is one of 'auto', 'off', 'openai', 'openai-marks', 'anthropic', got"):
        create_icrl(ScriptedModel(["a"]), nearness, cache=wrong)


def test_marks_for_what_is_not_a_chat_model_are_refused() -> None:
    with pytest.raises(ValueError, match="cache='anthropic' is for chat models only"):
        create_icrl(RunnableLambda(str), nearness, cache="anthropic")
    for silent in ("auto", "off", None):
        create_icrl(RunnableLambda(str), nearness, cache=silent)


# --------------------------------------------------------------------------------------------------- where they stand


def _rounds(past: list[Episode], layout: str, task: Any = "Find it.", style: Style | None = None) -> list[Any]:
    """The prompts of a run: one before each episode, and one more."""
    plans = [
        Plan(shown=[[0, k]], instruction="explore" if k % 2 else "exploit", left_out=0) for k in range(len(past) + 1)
    ]
    told = [Episode(**{**episode, "plan": plan}) for episode, plan in zip(past, plans, strict=False)]
    return [render([], task, told[:k], plans[k], style or Style(), LAYOUTS[layout]) for k in range(len(past) + 1)]


_STYLES = st.sampled_from([Style(), Style(feedback=FeedbackLimits(16)), Style(feedback=FeedbackLimits(16, 20))])
_PASTS = st.one_of(episodes(), episodes(lengthened=40))


def _blocks(messages: Any, field: str) -> list[tuple[str, str, bool]]:
    """What a prompt is made of: role, text, and whether it is marked."""
    found = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found += [(message["role"], part["text"], field in part) for part in parts]
    return found


tasks = st.one_of(answers, st.just(CHAT))


@given(_PASTS, tasks, _STYLES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DIALECTS)
def test_marks_change_no_word(name: str, layout: str, past: list[Episode], task: Any, style: Style) -> None:
    for prompt in _rounds(past, layout, task, style):
        marked, _ = DIALECTS[name].mark(prompt)
        assert ["".join(text for _, text, _ in _blocks([message], "")) for message in marked] == [
            "".join(text for _, text, _ in _blocks([message], "")) for message in prompt
        ]
        assert [message["role"] for message in marked] == [message["role"] for message in prompt]
        assert parse(marked) == parse(prompt)


@given(_PASTS, tasks, _STYLES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_anthropic_finds_what_the_round_before_has_marked(
    layout: str, past: list[Episode], task: Any, style: Style
) -> None:
    marked_rounds = (DIALECTS["anthropic"].mark(prompt)[0] for prompt in _rounds(past, layout, task, style))
    rounds = [_blocks(prompt, "cache_control") for prompt in marked_rounds]
    for blocks in rounds:
        assert sum(marked for *_, marked in blocks) <= 4
    for earlier, later in pairwise(rounds[layout == "transcript" :]):  # its first prompt has nothing that comes again
        marks = [at + 1 for at, (*_, marked) in enumerate(earlier) if marked]
        if marks:
            assert [block[:2] for block in earlier[: marks[-1]]] == [block[:2] for block in later[: marks[-1]]]
            assert any(0 <= at + 1 - marks[-1] < 20 for at, (*_, marked) in enumerate(later) if marked)


@given(_PASTS, tasks, _STYLES)
def test_openai_finds_what_the_round_before_has_marked(past: list[Episode], task: Any, style: Style) -> None:
    """A hit needs a mark at the very same place: of the prompt as one text, however it is cut."""
    field, places = "prompt_cache_breakpoint", []
    for prompt in _rounds(past, "transcript", task, style):
        text, marks = "", []
        for role, piece, marked in _blocks(DIALECTS["openai-marks"].mark(prompt)[0], field):
            text += piece if text.endswith(f"<{role}>") else f"<{role}>{piece}" if not text else piece
            marks += [text] if marked else []
        assert len(marks) <= 4
        places.append(marks)
    for earlier, later in pairwise(places):
        assert not earlier or earlier[-1] in later


def test_a_transcript_is_cut_before_its_tail_and_before_its_newest_attempt() -> None:
    plan = Plan(shown=[], instruction="plain", left_out=0)
    past = [
        Episode(round=i, candidate=0, plan=plan, response=word, shown={"value": 1.0}) for i, word in enumerate("abc")
    ]
    prompt = _rounds(past, "transcript")[-1]
    mark: Any = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    told = [f"<attempt>\n{word}\n</attempt>\nReward: 1\n\n" for word in "abc"]
    tail = prompt[0]["content"].removeprefix("".join(told))
    (message,), arguments = DIALECTS["openai-marks"].mark(prompt)
    assert message["content"] == [
        {"type": "text", "text": told[0] + told[1], **mark},
        {"type": "text", "text": told[2], **mark},
        {"type": "text", "text": tail},
    ]
    assert arguments == {"prompt_cache_options": {"mode": "explicit"}}
    (message,), arguments = DIALECTS["anthropic"].mark(prompt)
    assert [part["text"] for part in message["content"]] == [*told, tail]
    assert ["cache_control" in part for part in message["content"]] == [False, True, True, False]
    assert arguments == {}


def test_of_turns_anthropic_has_the_end_marked_and_openai_nothing() -> None:
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    marked, _ = DIALECTS["anthropic"].mark(prompt)
    ephemeral = {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}
    assert marked == [*prompt[:2], {"role": "user", "content": [ephemeral]}]
    assert DIALECTS["openai-marks"].mark(prompt) == (prompt, {})


# ------------------------------------------------------------------------------------------------------- what is sent


def _bodies(**options: Any) -> list[dict[str, Any]]:
    with BodyServer(climber) as server:
        play(create_icrl(chat_model("openai:any", base_url=server.base_url), nearness, rounds=4, **options))
    return server.bodies


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_custom_server_gets_plain_texts_and_no_field_it_may_not_know(layout: str) -> None:
    for body in _bodies(layout=layout):
        assert body.keys() == {"model", "messages", "stream"}
        assert all(isinstance(message["content"], str) for message in body["messages"])


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "off"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_whoever_reads_a_marked_prompt_reads_the_same(name: str, layout: str) -> None:
    plain, marked = _bodies(layout=layout), _bodies(layout=layout, cache=name)
    assert [parse(body["messages"]) for body in marked] == [parse(body["messages"]) for body in plain]
    assert [len(parse(body["messages"]).attempts) for body in marked] == [0, 1, 2, 3]


def test_the_requests_of_a_run_carry_its_id_and_a_transcript_its_marks() -> None:
    bodies = _bodies(layout="transcript", cache="openai-marks")
    (key,) = {body["prompt_cache_key"] for body in bodies}
    assert len(key) == 16
    assert [body.get("prompt_cache_options") for body in bodies] == [None, *[{"mode": "explicit"}] * 3]
    cuts = [
        1 if isinstance(body["messages"][0]["content"], str) else len(body["messages"][0]["content"]) for body in bodies
    ]
    assert cuts == [1, 2, 3, 3]


def test_what_a_user_passes_on_stands_over_ours() -> None:
    own = {"default": {"prompt_cache_key": "mine"}}
    assert {body["prompt_cache_key"] for body in _bodies(cache="openai", sampling=own)} == {"mine"}


def test_a_critic_shares_the_key() -> None:
    with BodyServer(lambda: "42") as server:
        model = chat_model("openai:any", base_url=server.base_url)
        play(create_self_refine(model, nearness, rounds=2, cache="openai"))
    assert len(server.bodies) == 3
    assert len({body["prompt_cache_key"] for body in server.bodies}) == 1


def test_openai_itself_gets_marks_by_default() -> None:
    asked: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append((request.url.host, json.loads(request.content)))
        message = {"role": "assistant", "content": "42"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-5.6", "choices": [choice]}
        return httpx2.Response(200, json=body)

    client = DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    model = chat_model("openai:gpt-5.6", api_key="k", http_client=client)
    play(create_icrl(model, nearness, rounds=3, layout="transcript"))
    assert {host for host, _ in asked} == {"api.openai.com"}
    assert [
        sum("prompt_cache_breakpoint" in str(part) for part in body["messages"][0]["content"]) for _, body in asked
    ] == [0, 1, 2]
    assert all(body["prompt_cache_key"] for _, body in asked)


def test_structured_output_goes_plain() -> None:
    class Guess(BaseModel):
        number: int

    with BodyServer(lambda: '{"number": 42}') as server:
        model = chat_model("openai:any", base_url=server.base_url)
        score: Any = lambda answer: float(answer["number"])  # noqa: E731
        play(create_icrl(model, score, rounds=2, layout="transcript", extract=Guess, cache="openai-marks"))
    assert all(isinstance(body["messages"][0]["content"], str) for body in server.bodies)


def test_a_reply_is_found_again_by_all_that_was_sent_marks_included() -> None:
    journal, saver = MemoryJournal(), InMemorySaver()

    def replayed(cache: str) -> int:
        """How many calls a run takes that is played again from its beginning, its replies being in the journal."""
        with BodyServer(climber) as server:
            policy = chat_model("openai:any", base_url=server.base_url)
            graph = create_icrl(policy, nearness, rounds=3, layout="transcript", journal=journal, cache=cache)
            compiled: Any = graph.compile(checkpointer=saver)
            begun = [past for past in compiled.get_state_history(thread()) if past.next == ("build_context",)]
            compiled.invoke(None if begun else GAME, begun[-1].config if begun else thread())
        return server.counts["calls"]

    assert [replayed(cache) for cache in ("off", "off", "anthropic", "anthropic")] == [3, 0, 3, 0]
