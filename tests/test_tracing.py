"""What tracers are told, such as LangSmith's or OpenTelemetry's: they all listen to LangChain's callbacks."""

import json
from typing import Any

import pytest
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.models import FunctionModel
from icrl_graph.topologies.methods import TOPOLOGIES, create_icrl
from tests.corridor import Corridor
from tests.helpers import GAME, digest, nearness


class Recorder(BaseTracer):
    """Keeps every span as it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        """Only the last one comes here."""

    def _end_trace(self, run: Run) -> None:
        self.spans.append(run)
        super()._end_trace(run)


def _spans(graph: Any, inputs: Any = GAME, **settings: Any) -> list[Run]:
    recorder = Recorder()
    graph.compile().invoke(inputs, {"callbacks": [recorder], "recursion_limit": 10_000}, context=settings)
    return recorder.spans


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_node_is_a_span_and_what_it_records_does_not_grow_with_the_history(topology: str) -> None:
    size: Any = {"n": 30} if topology == "best_of_n" else {"rounds": 30}
    spans = _spans(TOPOLOGIES[topology](digest, nearness, **size))
    recorded: dict[str, list[int]] = {}
    for span in spans:
        if span.parent_run_id is not None and span.run_type == "chain":
            size_of = len(json.dumps([span.inputs, span.outputs], default=str))
            recorded.setdefault(span.name, []).append(size_of)
    assert {"prepare", "build_context", "generate", "evaluate", "select"} <= recorded.keys()
    longest = {name: max(sizes) for name, sizes in recorded.items() if name != "build_context"}
    assert max(longest.values()) < 9000, longest  # best_of_n judges all in one
    if topology != "best_of_n":
        assert max(recorded["generate"]) < min(recorded["generate"]) + 300


def test_a_models_call_is_traced_within_its_node_with_its_prompt() -> None:
    spans = _spans(create_icrl(digest, nearness, rounds=2))
    calls = [span for span in spans if span.run_type == "llm"]
    by_id = {span.id: span for span in spans}
    assert [by_id[call.parent_run_id].name for call in calls if call.parent_run_id] == ["generate", "generate"]
    assert "Find the number." in json.dumps(calls[0].inputs, default=str)


def test_the_steps_of_an_episode_are_spans_that_do_not_hold_the_steps_before() -> None:
    graph = create_icrl(rollout(lambda: "wait", Corridor, max_steps=20), episode_return, rounds=1)
    steps = [span for span in _spans(graph, {"task": "x"}) if span.name == "step"]
    sizes = [len(json.dumps(span.inputs, default=str)) for span in steps]
    assert len(sizes) == 20
    assert max(sizes) < 200


def test_the_call_of_a_function_is_traced_like_that_of_other_chat_models_by_its_class_and_type() -> None:
    spans = _spans(create_icrl(FunctionModel(reply=digest, name="my model"), nearness, rounds=1))
    (call,) = [span for span in spans if span.run_type == "llm"]
    assert (call.name, call.extra["invocation_params"]["_type"]) == ("FunctionModel", "my model")
