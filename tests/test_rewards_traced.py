"""Rewards as OpenTelemetry's events, each under the span of its attempt."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from icrl_graph.integrations.tracing import Rewards
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES


class Traced:
    """Instrumented runs, and what came of them."""

    def __init__(self, **hidden: Any) -> None:
        self.spans, self.logs = InMemorySpanExporter(), InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider, logger = TracerProvider(), LoggerProvider()
        logger.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        provider.add_span_processor(Rewards(logger))
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.instrumentor = LangChainInstrumentor()
        self.instrumentor.instrument(tracer_provider=provider, config=TraceConfig(**hidden))

    def rewards(self) -> list[tuple[dict[str, Any], str]]:
        """What each event says, and the name and the input of the span that it is under."""
        spans = {span.context.span_id: span for span in self.spans.get_finished_spans() if span.context}
        records = [log.log_record for log in self.logs.get_finished_logs()]
        assert {record.event_name for record in records} == {"gen_ai.evaluation.result"}
        under = [spans[record.span_id] for record in records if record.span_id]
        assert all(s.context and s.context.trace_id == r.trace_id for s, r in zip(under, records, strict=True))
        named = [f"{span.name} {(span.attributes or {}).get('input.value')}" for span in under]
        return [(dict(record.attributes or {}), name) for record, name in zip(records, named, strict=True)]


@pytest.fixture
def traced(request: pytest.FixtureRequest) -> Iterator[Traced]:
    made = Traced(**getattr(request, "param", {}))
    yield made
    made.instrumentor.uninstrument()


def score(response: str) -> Any:
    if response == "bad":
        raise ValueError("no score for it")
    return {"value": len(response) / 10, "feedback": "short"}


def play(topology: str, is_async: bool) -> None:
    size: Any = {"n": 3} if topology == "best_of_n" else {"rounds": 3}
    model = ScriptedModel(["a", "bad", "abc"]) if topology in ("icrl", "best_of_n") else (lambda: "abc")
    graph = TOPOLOGIES[topology](model, score, **size).compile()
    asyncio.run(graph.ainvoke({"task": "t"})) if is_async else graph.invoke({"task": "t"})


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_each_reward_is_an_event_under_the_span_of_its_attempt(traced: Traced, topology: str, is_async: bool) -> None:
    play(topology, is_async)
    rewards = traced.rewards()
    assert len(rewards) == 3
    places = {name for _, name in rewards}
    assert len(places) == 3
    assert all(name.startswith("generate ") for name in places)
    assert all(told["gen_ai.evaluation.name"] == "reward" for told, _ in rewards)


def test_a_reward_has_its_feedback_and_what_is_unscored_an_error_and_no_value(traced: Traced) -> None:
    play("icrl", is_async=False)
    first, unscored, last = (told for told, _ in traced.rewards())
    assert (first["gen_ai.evaluation.score.value"], first["gen_ai.evaluation.explanation"]) == (0.1, "short")
    assert last["gen_ai.evaluation.score.value"] == 0.3
    assert unscored["error.type"] == "unscored"
    assert "no score for it" in unscored["gen_ai.evaluation.explanation"]
    assert "gen_ai.evaluation.score.value" not in unscored


@pytest.mark.parametrize("traced", [{"hide_inputs": True}], indirect=True)
def test_where_inputs_are_hidden_the_event_is_under_the_evaluation(traced: Traced) -> None:
    play("icrl", is_async=False)
    rewards = traced.rewards()
    assert [name.split()[0] for _, name in rewards] == ["evaluate"] * 3


@pytest.mark.parametrize("traced", [{"hide_outputs": True}], indirect=True)
def test_where_outputs_are_hidden_nothing_is_told_and_nothing_breaks(traced: Traced) -> None:
    play("icrl", is_async=False)
    assert traced.logs.get_finished_logs() == ()
