"""Servers that know less than OpenAI's: what one refuses is left out, and responses have a limit that it knows."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from icrl_graph import RateLimit, ThreadMismatch, chat_model, create_icrl, improve
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.preview import preview
from tests.chats import USAGE, Answers, ChatServer, refused, says, streamed, whole
from tests.command_line import icrl
from tests.corridor import Corridor
from tests.promises.ways import METHODS, WAYS, size
from tests.raw_http import refusing


class Word(BaseModel):
    word: str


Forms = Callable[[str], tuple[int, Any]]
FORMS: dict[str, Forms] = {
    "FastAPI": lambda field: (422, {"detail": [_extra(field)]}),
    "Mistral": lambda field: (
        422,
        {"object": "error", "message": {"detail": [_extra(field)]}, "type": "invalid_request_error", "param": None},
    ),
    "Mistral old": lambda field: (422, {"object": "error", "message": json.dumps({"detail": [_extra(field)]})}),
    "OpenAI": lambda field: (
        400,
        {"error": {"message": f"Unknown parameter: '{field}'.", "param": field, "code": "unknown_parameter"}},
    ),
    "Azure": lambda field: (400, {"error": {"message": f"Unrecognized request argument supplied: {field}"}}),
    "Groq": lambda field: (400, {"error": {"message": f"property '{field}' is unsupported"}}),
    "Go": lambda field: (400, {"error": f'json: unknown field "{field}"'}),
    "Rust": lambda field: (422, {"message": f"Failed to deserialize the JSON body: unknown field `{field}`"}),
    "within a 200": lambda field: (200, {"error": {"code": 400, "message": f"{field} is not supported"}}),
}


def _extra(field: str) -> dict[str, Any]:
    place = ["stream_options", "include_usage"] if field == "stream_options" else [field]
    return {"type": "extra_forbidden", "loc": ["body", *place], "msg": "Extra inputs are not permitted", "input": 1}


def _knows_no(*fields: str, form: str = "FastAPI") -> Answers:
    """A server that refuses these fields, one after another."""

    def answers(body: dict[str, Any]) -> bytes:
        if sent := [field for field in fields if field in body]:
            status, error = FORMS[form](sent[0])
            return refused(error, status)
        return streamed(body, "word", last=USAGE) if body.get("stream") else whole(body, "word", usage=USAGE)

    return answers


def _played(server: ChatServer, way: str, model: dict[str, Any] | None = None, **options: Any) -> Any:
    """A run with all fields that there are: streamed, seeded, limited."""
    named = chat_model("openai:policy", base_url=server.base_url, **{"streaming": True, **(model or {})})
    given: Any = {"rounds": 2, "seed": 7, "max_response_tokens": 50, "rate_limit": RateLimit(max_attempts=1)}
    return WAYS[way]("Say it.", lambda: 1.0, model=named, **{**given, **options})


ASKED: dict[str, Callable[..., Any]] = {
    "sync": lambda model: model.invoke("Say it.", seed=7),
    "async": lambda model: asyncio.run(model.ainvoke("Say it.", seed=7)),
}


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("form", FORMS)
def test_a_refusal_of_a_field_is_known_in_every_form(form: str, way: str) -> None:
    with ChatServer(_knows_no("seed", form=form)) as server:
        model = chat_model("openai:policy", base_url=server.base_url)
        assert [ASKED[way](model).content for _ in range(2)] == ["word", "word"]
    assert ["seed" in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["seed", "stream_options", "max_tokens", "max_completion_tokens"])
def test_a_field_that_a_server_refuses_is_left_out_from_then_on(field: str, way: str, caplog: Any) -> None:
    with ChatServer(_knows_no(field)) as server:
        result = _played(server, way)
        address = server.base_url
    assert result.rewards == [1.0, 1.0]
    assert result.usage["calls"] == 2
    assert [field in body for body in server.bodies] == [True, False, False]
    without = {name: value for name, value in server.bodies[0].items() if name != field}
    assert without == server.bodies[1]
    assert without.keys() == server.bodies[2].keys()
    (told,) = [record.message for record in caplog.records if "left out" in record.message]
    assert told.startswith(f"{address} refuses {field}, which is left out from here on: ")


@pytest.mark.parametrize("way", WAYS)
def test_several_fields_are_left_out_one_after_another(way: str) -> None:
    fields = ("seed", "stream_options", "max_completion_tokens")
    with ChatServer(_knows_no(*fields, form="Mistral")) as server:
        result = _played(server, way)
    assert result.rewards == [1.0, 1.0]
    assert [sum(field in body for field in fields) for body in server.bodies] == [3, 2, 1, 0, 0]
    assert all(body["max_tokens"] == 50 for body in server.bodies)


@pytest.mark.parametrize(
    "words",
    [
        "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ],
)
def test_of_two_names_of_a_limit_the_one_that_is_wanted_stays(words: str) -> None:
    def answers(body: dict[str, Any]) -> bytes:
        return refused({"error": {"message": words}}) if "max_tokens" in body else whole(body, "word")

    with ChatServer(answers) as server:
        assert _played(server, "sync", {"streaming": False}).rewards == [1.0, 1.0]
    assert [body["max_completion_tokens"] for body in server.bodies] == [50, 50, 50]


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_is_not_left_out_under_both_of_its_names(way: str) -> None:
    with ChatServer(_knows_no("max_tokens", "max_completion_tokens")) as server:
        result = _played(server, way, max_failures=1)
    assert "max_completion_tokens" in result.episodes[0]["error"]
    assert [("max_tokens" in body, "max_completion_tokens" in body) for body in server.bodies] == [
        (True, True),
        (False, True),
    ]


ABOUT_ANOTHER = [
    "max_tokens is too large: 50. This model supports at most 16 completion tokens, whereas you provided 50.",
    "Invalid 'max_tokens': integer above maximum value. Expected a value <= 16, but got 50 instead.",
    "Unsupported value: 'temperature' does not support 0.2 with this model.",
    "Unrecognized request argument supplied: top_seed",
    "no such model",
]


@pytest.mark.parametrize("words", ABOUT_ANOTHER)
def test_a_refusal_that_is_about_something_else_is_told(words: str) -> None:
    with ChatServer(lambda body: refused({"error": {"message": words}})) as server:
        result = _played(server, "sync", max_failures=1)
    assert words in result.episodes[0]["error"]
    assert len(server.bodies) == 1


def test_a_refusal_that_stays_shows_nothing_of_the_field_that_it_names(caplog: Any) -> None:
    with ChatServer(lambda body: refused({"error": {"message": "the word 'seed' is not allowed"}})) as server:
        result = _played(server, "sync", max_failures=2)
    assert "the word 'seed'" in result.episodes[0]["error"]
    assert ["seed" in body for body in server.bodies] == [True, False, True, False]
    assert "left out" not in caplog.text


def test_what_is_learnt_holds_for_all_models_of_the_server() -> None:
    with ChatServer(_knows_no("seed")) as server:
        models = [chat_model("openai:policy", base_url=server.base_url) for _ in range(3)]
        for model in models:
            model.invoke("Say it.", seed=7)
        chat_model("openai:other", base_url=server.base_url).invoke("Say it.", seed=7)
    assert ["seed" in body for body in server.bodies] == [True, False, False, False, True, False]


def test_a_prompt_that_is_too_long_for_its_limit_is_shortened_and_keeps_the_limit() -> None:
    words = (
        "'max_tokens' or 'max_completion_tokens' is too large: 50. This model's maximum context length is 64 tokens."
    )

    def answers(body: dict[str, Any]) -> bytes:
        return refused({"error": {"message": words}}) if len(body["messages"]) > 3 else whole(body, "word")

    with ChatServer(answers) as server:
        assert _played(server, "sync", {"streaming": False}, rounds=4).rewards == [1.0] * 4
    assert all(body["max_tokens"] == body["max_completion_tokens"] == 50 for body in server.bodies)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_finds_its_replies_again_after_a_field_was_left_out(way: str, tmp_path: Path) -> None:
    broken = threading.Event()

    def answers(body: dict[str, Any]) -> bytes:
        return refused({"error": {"message": "no"}}, 401) if broken.is_set() else _knows_no("seed")(body)

    def judge(response: str) -> float:
        if len(server.bodies) == 3 and not broken.is_set():
            broken.set()
            raise KeyboardInterrupt  # the second answer is saved, and not yet judged
        return 1.0

    with ChatServer(answers) as server:
        model = chat_model("openai:policy", base_url=server.base_url)
        options: Any = {"model": model, "rounds": 2, "seed": 7, "path": tmp_path / "run.sqlite"}
        with pytest.raises(KeyboardInterrupt):
            WAYS[way]("Say it.", judge, **options)
        assert WAYS[way]("Say it.", judge, **options).rewards == [1.0, 1.0]
        assert len(server.bodies) == 3


# -------------------------------------------------------------------------------------------------- structured output


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_breaks_down_at_structured_output_is_asked_for_it_twice_by_all_judges_together(way: str) -> None:
    def answers(body: dict[str, Any]) -> bytes:
        if "response_format" in body:
            return refused({"error": {"message": "Internal server error"}}, 500)
        return whole(body, "Score: 5", usage=USAGE)

    with ChatServer(answers) as server:
        for _ in range(2):
            judges = [chat_model("openai:policy", base_url=server.base_url) for _ in range(2)]
            score = llm_judge(judges, "Good?")
            limit = RateLimit(max_concurrency=1, max_backoff=0.001)
            result = WAYS[way]("Say it.", score, model=lambda: "word", rounds=3, rate_limit=limit)
            assert result.rewards == [5.0] * 3
            kept = judges  # what is known of a server lasts as long as a model of it
        assert kept
    assert sum("response_format" in body for body in server.bodies) == 2
    assert sum("response_format" not in body for body in server.bodies) == 12


# ------------------------------------------------------------------------------------------------ limits of responses


def _limits(body: dict[str, Any]) -> tuple[Any, Any]:
    return body.get("max_tokens"), body.get("max_completion_tokens")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_sends_the_limit_of_a_response_under_both_names(method: str, way: str) -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        model = chat_model("openai:policy", base_url=server.base_url)
        options: Any = {"topology": METHODS[method], "max_response_tokens": 50, **size(method, 2)}
        WAYS[way]("Say it.", lambda: 1.0, model=model, **options)
    assert {_limits(body) for body in server.bodies} == {(50, 50)}


@pytest.mark.parametrize(
    "options",
    [
        {"extract": Word},
        {"topology": "reflexion"},
        {"sampling": {"default": {"temperature": 0.5}}},
        {"sampling": {"explore": {"temperature": 0.5}}},
    ],
    ids=["structured", "reflections", "with sampling", "with sampling of an instruction"],
)
def test_the_limit_goes_with_all_that_a_model_writes(options: Any) -> None:
    with ChatServer(says('{"word": "x"}', usage=USAGE)) as server:
        _played(server, "sync", {"streaming": False}, **options)
    assert {_limits(body) for body in server.bodies} == {(50, 50)}


def test_the_limit_goes_with_each_action_of_an_episode() -> None:
    with ChatServer(says("right", usage=USAGE)) as server:
        model = rollout(chat_model("openai:policy", base_url=server.base_url), Corridor, max_steps=3)
        improve("Go.", episode_return, model=model, rounds=1, max_response_tokens=50)
    assert len(server.bodies) > 1
    assert {_limits(body) for body in server.bodies} == {(50, 50)}


def test_an_instruction_may_have_a_limit_of_its_own() -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        _played(server, "sync", {"streaming": False}, sampling={"exploit": {"max_tokens": 9}})
    assert [_limits(body) for body in server.bodies] == [(50, 50), (9, 9)]


def test_a_limit_that_a_model_was_made_with_is_sent_under_both_names_too() -> None:
    with ChatServer(says("word")) as server:
        chat_model("openai:policy", base_url=server.base_url, max_tokens=50).invoke("Say it.")
        chat_model("openai:policy", base_url=server.base_url).invoke("Say it.", max_tokens=50)
        chat_model("openai:policy", base_url=server.base_url).invoke("Say it.", max_completion_tokens=50)
    assert [_limits(body) for body in server.bodies] == [(50, 50)] * 3


@pytest.mark.parametrize("address", [None, "https://eu.api.openai.com/v1"])
def test_openai_gets_the_limit_under_its_own_name_alone(address: str | None) -> None:
    model: Any = chat_model("openai:policy", base_url=address, api_key="k", max_tokens=50)
    payload = model._get_request_payload("Say it.")
    assert payload["max_completion_tokens"] == 50
    assert "max_tokens" not in {**payload, **payload["extra_body"]}


def test_without_a_limit_none_is_sent() -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        _played(server, "sync", max_response_tokens=None)
    assert {_limits(body) for body in server.bodies} == {(None, None)}


def test_a_run_is_not_resumed_with_another_limit_once_it_has_ended(tmp_path: Path) -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        options: Any = {"path": tmp_path / "run.sqlite"}
        _played(server, "sync", **options)
        with pytest.raises(ThreadMismatch, match="max_response_tokens has been edited"):
            _played(server, "sync", **options, max_response_tokens=60)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "50", True])
def test_a_limit_that_is_no_number_of_tokens_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_response_tokens is a number of tokens, 1 or more, got"):
        create_icrl(lambda: "", lambda: 1.0, max_response_tokens=wrong)


def test_a_limit_for_what_is_no_chat_model_is_refused() -> None:
    chain = chat_model("openai:policy", base_url="http://127.0.0.1:1/v1") | (lambda message: message)
    with pytest.raises(ValueError, match="max_response_tokens is for chat models only"):
        create_icrl(chain, lambda: 1.0, max_response_tokens=50)


def test_a_function_may_stand_for_a_model_whose_responses_are_limited() -> None:
    assert improve("Say it.", lambda: 1.0, model=lambda: "word", rounds=1, max_response_tokens=50).answer == "word"


def test_a_preview_takes_no_response_to_be_longer_than_its_limit() -> None:
    model = chat_model("openai:policy", base_url="http://127.0.0.1:1/v1")
    options: Any = {"model": model, "rounds": 4, "response_tokens": 300}
    assert preview("Say it.", lambda: 1.0, **options, max_response_tokens=50)["output"] == 4 * 50


# ---------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text("def score(response):\n    return 1.0\n")
    (tmp_path / "mine.jsonl").write_text('{"task": "Say it."}\n')
    return tmp_path


def _run(server: ChatServer, mine: Path, *arguments: str, command: tuple[str, ...] = ("run", "Say it.")) -> Any:
    common = ("--model", "openai:policy", "--evaluator", f"{mine}/mine.py:score", "--base-url", server.base_url)
    return icrl(*command, *common, "--out", str(mine / command[0]), *arguments)


def test_icrl_run_limits_responses_also_when_it_is_resumed(mine: Path) -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        done = _run(server, mine, "--rounds", "2", "--max-response-tokens", "50")
        assert done.returncode == 0, done.stderr
        more = icrl("resume", str(mine / "run"), "--more", "1")
        assert more.returncode == 0, more.stderr
        assert icrl("show", str(mine / "run"), "--round", "1").returncode == 0
    assert [_limits(body) for body in server.bodies] == [(50, 50)] * 3


def test_icrl_bench_limits_responses_and_an_arm_may_have_another_limit(mine: Path) -> None:
    arms = "icrl,icrl+max_response_tokens=9"
    with ChatServer(says("word", usage=USAGE)) as server:
        command = ("bench", str(mine / "mine.jsonl"), "--topologies", arms, "--rounds", "1")
        done = _run(server, mine, "--max-response-tokens", "50", command=command)
        assert done.returncode == 0, done.stderr
    assert sorted(_limits(body) for body in server.bodies) == [(9, 9), (50, 50)]
    assert all("seed" in body for body in server.bodies)


def test_icrl_bench_sends_no_seed_where_it_shall_not(mine: Path) -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        command = ("bench", str(mine / "mine.jsonl"), "--topologies", "icrl", "--rounds", "2")
        done = _run(server, mine, "--no-seed", command=command)
        assert done.returncode == 0, done.stderr
    assert ["seed" in body for body in server.bodies] == [False, False]
    assert json.loads((mine / "bench" / "bench.json").read_text(encoding="utf-8"))["send_seed"] is False


def test_icrl_run_takes_a_seed_or_none(mine: Path) -> None:
    with ChatServer(says("word", usage=USAGE)) as server:
        assert _run(server, mine, "--rounds", "1", "--no-seed").returncode == 0
        both = _run(server, mine, "--seed", "3", "--no-seed")
    assert both.returncode == 2
    assert "--seed and --no-seed exclude each other" in both.stderr
    assert "seed" not in server.bodies[0]


def test_icrl_run_makes_no_more_calls_at_once_than_it_is_told(mine: Path) -> None:
    at_once, most, lock, meeting = 0, 0, threading.Lock(), threading.Barrier(2)

    def answers(body: dict[str, Any]) -> bytes:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        meeting.wait(60)  # two must be in flight at once for anyone to be answered
        threading.Event().wait(0.01)  # and a third would have come meanwhile
        with lock:
            at_once -= 1
        return whole(body, "word", usage=USAGE)

    with ChatServer(answers) as server:
        options = ("--topology", "best_of_n", "--n", "6", "--concurrency", "2")
        done = _run(server, mine, *options)
    assert done.returncode == 0, done.stderr
    assert most == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_not_there_is_named_by_its_host_too(way: str) -> None:
    """By a name that may stand for several addresses, of which none answers."""
    with refusing() as at:
        address = f"http://localhost:{at.partition(':')[2]}"
        model = chat_model("openai:policy", base_url=f"{address}/v1")
        limit = RateLimit(max_attempts=1)
        result = WAYS[way]("Say it.", lambda: 1.0, model=model, rounds=1, max_failures=1, rate_limit=limit)
    assert f"connection refused by {address}" in result.episodes[0]["error"]
