"""Odd arguments: a ValueError that names argument and value, before anything is paid."""

import asyncio
import json
import logging
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from pydantic import BaseModel

from icrl_graph import RateLimit, SqliteJournal, aimprove, chat_model, compare, create_icrl, improve, llm_judge
from icrl_graph.environments.rollouts import rollout
from icrl_graph.preview import preview
from icrl_graph.state.reward import as_reward
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import TOPOLOGIES
from tests.corridor import Corridor

WAYS = [improve, aimprove]
HUGE = 2**63


class Form(BaseModel):
    word: str


def _nested(levels: int) -> Any:
    held: Any = []
    for _ in range(levels):
        held = [held]
    return held


async def _listener(event: Any) -> None:
    """A function that nobody would await."""


def _refused(way: Any, **options: Any) -> str:
    """What a call says that must not have asked its model anything."""
    model = ScriptedModel(lambda: "x")
    given = {"model": model, "score": lambda: 1.0, "task": "Say it.", **options}

    def play() -> None:
        played = way(given.pop("task"), given.pop("score"), **given)
        asyncio.run(played) if asyncio.iscoroutine(played) else played

    with pytest.raises(ValueError) as error:
        play()
    assert model.prompts == []
    return str(error.value)


ODD: list[tuple[dict[str, Any], str]] = [
    *(({name: HUGE}, f"{name}={HUGE}: .*64 bits") for name in ("rounds", "max_calls", "max_tokens", "patience")),
    ({"topology": "best_of_n", "n": HUGE}, f"n={HUGE}: .*64 bits"),
    ({"on_episode": 5}, "on_episode is a plain function, called with event; got 5"),
    ({"on_episode": _listener}, "on_episode is a plain function.*_listener"),
    ({"on_episode": lambda: None}, r"on_episode is a plain function, called with event; of <lambda>\(\): too many"),
    ({"control": 5}, "control is a langgraph.runtime.RunControl, got 5"),
    ({"thread_id": 5}, "thread_id is a text, got 5"),
    ({"path": 5}, "path is a file for SQLite.*got 5"),
    ({"path": "."}, r"got the folder \."),
    ({"path": __file__}, f"{re.escape(__file__)} is a file of another kind"),
    ({"task_data": {"x": _nested(5000)}}, "task_data is nested more than 100 levels deep"),
    ({"task": [{"role": "user", "content": _nested(5000)}]}, "the task's messages are not in OpenAI's format"),
    ({"extract": Form}, "extract=Form: .* gives no structured output; give a function"),
    ({"target": 5, "bounds": (0, 1)}, r"target=5 is above the highest reward that counts, bounds=\(0, 1\)"),
    ({"on_error": 1e308}, "on_error"),
    ({"memory": lambda: []}, "memory is a plain function, called with past"),
    ({"schedule": lambda: ""}, "schedule is a plain function, called with round, past"),
    ({"layout": lambda: []}, "layout is a plain function, called with preamble"),
    ({"show": lambda: {}}, "show is a plain function, called with reward, random"),
    ({"inputs": lambda: {}}, "inputs is a plain function"),
    ({"topology": "reflexion", "reflector": 5}, "a reflector is a name"),
    ({"topology": "self_refine", "critic": 5}, "a critic is a name"),
    ({"score": "no_such.py:score"}, "'no_such.py:score' can't be loaded"),
    ({"score": "json"}, "unknown evaluator 'json'; choose one of mathematics"),
    ({"metric": "json:no_such"}, "no 'no_such'"),
    ({"instructions": {"explor": "Try."}}, "instructions has 'explor', by which nothing is asked; .* explore"),
    ({"instructions": {"default": "Try."}}, "instructions has 'default'"),
    ({"sampling": {"defualt": {}}}, "sampling has 'defualt', by which nothing is asked; choose among .*default"),
    ({"sampling": {"explore": {"temprature": 1}}}, "unknown sampling parameter 'temprature'.*mean 'temperature'"),
    ({"sampling": {"explore": {5: 1}}}, "unknown sampling parameter 5"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("options", "message"), ODD, ids=lambda value: "-".join(value) if isinstance(value, dict) else value[:30]
)
def test_an_odd_argument_is_refused_before_anything_is_paid(options: Any, message: str, way: Any) -> None:
    assert re.search(message, _refused(way, **options))


NO_NUMBERS: list[Any] = ["4", [], math.nan]
NO_SCALES: list[Any] = [5, None, "x", (1,), (0, 1e308)]
ELSEWHERE: list[tuple[Any, str]] = [
    *((partial(RateLimit, max_concurrency=odd), "max_concurrency must be above 0") for odd in NO_NUMBERS),
    *((partial(llm_judge, "learner:game24", "Good?", scale=odd), "scale is the lowest and") for odd in NO_SCALES),
    (lambda: RateLimit(max_backoff="1"), "max_backoff must be 0 or more seconds, got '1'"),  # type: ignore[arg-type]
    (lambda: chat_model(5), "a model is named 'provider:name'.*got 5"),  # type: ignore[arg-type]
    (lambda: chat_model("openai:x", base_url=5), "base_url is an address.*got 5"),  # type: ignore[arg-type]
    (lambda: rollout("learner:game24", Corridor, max_steps="5"), "max_steps must be a whole"),  # type: ignore[arg-type]
    (lambda: rollout("learner:game24", Corridor, max_steps=HUGE), "max_steps must be a whole number below"),
    (lambda: SqliteJournal(__file__), "a SqliteJournal is a file for SQLite; .* is a file of another kind"),
    (lambda: SqliteJournal(Path(__file__).parent), "a SqliteJournal is a file for SQLite; got the folder"),
]


@pytest.mark.parametrize(("make", "message"), ELSEWHERE)
def test_so_is_one_of_what_a_run_is_made_of(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: odd}, f"{name} must be a whole")
            for name in ("limit", "seeds", "concurrency")
            for odd in ("2", 1.5, HUGE)
        ),
        *(
            ({name: "x"}, f"{name} must be")
            for name in ("total_usd", "total_calls", "call_timeout", "solved_at", "attempts")
        ),
        ({"rounds": None, "seeds": None}, "seeds must be a whole number.*got None"),
        ({"seeds": 10**6}, "50000000 runs are more than a comparison holds, 1000000: take fewer tasks, seeds or arms"),
        ({"model": ""}, "a model is named 'provider:name', such as 'openai:gpt-4.1-mini', got ''"),
        ({"solved_at": 10**400}, "solved_at must be a finite number"),
        ({"items": "one"}, "items is a list of names, got 'one'"),
        ({"base_url": 5}, "base_url is an address"),
        ({"judge_base_url": "http://127.0.0.1:1/v1"}, "judge_base_url is the judge's server: name the judge, too"),
        ({"switch_base_url": "http://127.0.0.1:1/v1"}, "switch_base_url is the server of a model to switch to"),
        ({"temperature": "hot"}, "temperature must be 0 or more, got 'hot'"),
        ({"on_progress": 5}, "on_progress is a plain function"),
        ({"control": 5}, "control is a langgraph.runtime.RunControl, got 5"),
        ({"folder": 5}, "a comparison is saved in a folder; got 5"),
        ({"judge": 5}, "a judge is a name"),
        ({"instructions": {"explor": "Try."}}, "the arm 'icrl': instructions has 'explor'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value[:30],
)
def test_so_is_one_of_a_comparison(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare("hidden-color", "icrl", **options)


def test_the_arms_of_a_comparison_are_texts() -> None:
    for odd in (5, None, [5], {"icrl"}):
        with pytest.raises((ValueError, TypeError), match="arms is a list of names"):
            compare("hidden-color", odd)  # type: ignore[arg-type]


def test_every_parameter_of_a_request_to_openais_protocol_is_known_and_no_other() -> None:
    model = chat_model("openai:any", base_url="http://127.0.0.1:1/v1")
    known = {"temperature": 1, "top_p": 0.9, "max_tokens": 9, "stop": ["x"], "extra_body": {"top_k": 3}, "timeout": 5}
    assert create_icrl(model, lambda: 1.0, sampling={"default": known}).compile()
    for unknown in ("top_k", "model_name", "messages", "Temperature"):
        with pytest.raises(ValueError, match=f"unknown sampling parameter {unknown!r} for any.*extra_body"):
            create_icrl(model, lambda: 1.0, sampling={"exploit": {unknown: 1}})


def test_of_a_model_of_another_kind_only_what_is_nearly_a_known_name_is_refused() -> None:
    model = FakeListChatModel(responses=["x"])
    assert create_icrl(
        model, lambda: 1.0, sampling={"default": {"sleep": 1, "thinking_budget": 5, "top_k": 3}}
    ).compile()
    with pytest.raises(ValueError, match="'slep' for FakeListChatModel; did you mean 'sleep'"):
        create_icrl(model, lambda: 1.0, sampling={"default": {"slep": 1}})


def _own_method(model: Any, evaluator: Any, **options: Any) -> Graph:
    graph = Graph(model, evaluator, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_edge("build_context", "generate")
    graph.add_reflect("praise", ("response",))
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "reflect")
    graph.add_edge("reflect", "build_context")
    return graph


def test_the_names_that_a_custom_schedule_or_method_asks_by_are_taken() -> None:
    named: Any = {"instructions": {"dream": "Dream."}, "sampling": {"dream": {"temperature": 1}}}
    assert improve("t", lambda: 1.0, model=lambda: "x", rounds=1, schedule=lambda round, past: "dream", **named).reward
    praise: Any = {"instructions": {"praise": "Praise it."}, "sampling": {"praise": {"temperature": 0}}}
    assert improve("t", lambda: 1.0, model=lambda: "x", rounds=2, topology=_own_method, **praise).reward
    with pytest.raises(ValueError, match="instructions has 'prise', by which nothing is asked; .*praise"):
        improve("t", lambda: 1.0, model=lambda: "x", topology=_own_method, instructions={"prise": "Praise it."})


def test_options_of_all_arms_may_be_meant_for_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def dreamy(round, past):\n    return 'dream'\n")
    arms = f"icrl,icrl+schedule={tmp_path}/mine.py:dreamy"
    result = compare("hidden-color", arms, limit=1, rounds=1, instructions={"dream": "Dream."}, folder=tmp_path / "out")
    assert len(result.rows) == 2


def test_an_evaluator_and_a_metric_may_be_named_by_path(tmp_path: Path) -> None:
    (tmp_path / "ev.py").write_text(
        "def score(response):\n    return 0.5\n\ndef length(response):\n    return len(response)\n"
    )
    named: Any = {"metric": f"{tmp_path}/ev.py:length", "path": tmp_path / "run.sqlite"}
    for _ in range(2):  # and the run is found again
        result = improve("t", f"{tmp_path}/ev.py:score", model=lambda: "four", rounds=1, **named)
        assert (result.reward, result.metric, result.rewarded_by) == (0.5, 4.0, "oracle")
    assert preview("t", f"{tmp_path}/ev.py:score", model=lambda: "x", metric=named["metric"], rounds=2)["calls"] == 2


@pytest.mark.parametrize("number", [1e308, -1e101])
def test_a_reward_whose_sums_would_be_infinite_is_none(number: float) -> None:
    assert as_reward(1e100)["value"] == 1e100
    assert as_reward({"value": number})["value"] is None
    assert "a reward must be from -1e+100 to 1e+100" in as_reward({"value": 1.0, "metric": number})["error"]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_an_evaluator_that_returns_none_is_told_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    size: Any = {"n": 1} if name == "best_of_n" else {"rounds": 1}
    with caplog.at_level(logging.WARNING):
        improve("t", lambda: None, model=lambda: "x", topology=name, **size)
    assert caplog.messages == ["1 of 1 attempts are unscored, such as: the evaluator returned None, which is no reward"]


@pytest.mark.parametrize(
    "verdict", ['{"reasons": "", "score": true}', '{"score": false}', '```json\n{"score": true}\n```']
)
def test_a_truth_value_is_no_verdict(verdict: str) -> None:
    for model in (lambda: verdict, FakeListChatModel(responses=[verdict])):
        judge = llm_judge(model, "Good?", scale=(0, 1))
        assert improve("t", judge, model=lambda: "x", rounds=1).rewards == [None]


def test_tasks_that_stand_twice_in_a_file_are_told_with_their_lines(tmp_path: Path, caplog: Any) -> None:
    tasks = ({"task": "a"}, {"task": "b"}, {"task": "a", "id": "x"}, {"task": "a", "task_data": {"k": 1}})
    (tmp_path / "same.jsonl").write_text("\n\n".join(map(json.dumps, tasks)))
    compare(
        tmp_path / "same.jsonl", "icrl", model=lambda: "x", evaluator=lambda: 0.5, rounds=1, folder=tmp_path / "out"
    )
    (told,) = [message for message in caplog.messages if "same task" in message]
    assert told == f"{tmp_path}/same.jsonl: lines 1, 5 hold the same task, and each counts as a task of its own"
