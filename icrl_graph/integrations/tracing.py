"""Rewards in OpenTelemetry: an event `gen_ai.evaluation.result` for each, beside the spans of OpenInference.

    tracer_provider.add_span_processor(Rewards(logger_provider))  # ahead of the processor that exports
    LangChainInstrumentor().instrument(tracer_provider=tracer_provider)

The names are those of OpenTelemetry's conventions for generative AI, which are still in development
(https://github.com/open-telemetry/semantic-conventions-genai, `model/gen-ai/events.yaml`); needs the extra `tracing`.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider, LogRecord
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

OPEN = 10_000
"""Attempts that wait for their rewards at most; of more, those that wait longest are forgotten."""


class Rewards(SpanProcessor):
    """Logs the reward of each attempt, with the span of the attempt as its parent.

    An attempt without a score has `error.type` "unscored" instead of a value. Where inputs are hidden
    (OPENINFERENCE_HIDE_INPUTS) the parent is the span of the evaluation; where outputs are, no reward is known.

    Args:
        provider: of loggers, such as `opentelemetry.sdk._logs.LoggerProvider`.
        name: what the evaluation is called.
    """

    def __init__(self, provider: LoggerProvider, name: str = "reward") -> None:
        self._logger, self._name = provider.get_logger("icrl_graph"), name
        self._attempts: OrderedDict[tuple[Any, ...], ReadableSpan] = OrderedDict()

    def on_end(self, span: ReadableSpan) -> None:
        """Remember the span of an attempt, or log the rewards of an evaluation."""
        if span.name not in ("generate", "evaluate") or span.parent is None:
            return
        round = span.parent.trace_id, span.parent.span_id
        if span.name == "generate":
            told = _read(span, "input.value")
            self._attempts[(*round, told.get("round"), told.get("candidate"))] = span
            while len(self._attempts) > OPEN:
                self._attempts.popitem(last=False)
            return
        for episode in _read(span, "output.value").get("episodes", []):
            if reward := episode.get("reward"):
                self._log(reward, self._attempts.pop((*round, episode["round"], episode["candidate"]), span))

    def _log(self, reward: Mapping[str, Any], attempt: ReadableSpan) -> None:
        value, words = reward.get("value"), reward.get("feedback") or reward.get("error")
        told = {"error.type": "unscored"} if value is None else {"gen_ai.evaluation.score.value": float(value)}
        explained = {"gen_ai.evaluation.explanation": str(words)} if words else {}
        parent = trace.set_span_in_context(trace.NonRecordingSpan(attempt.context))
        self._logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                event_name="gen_ai.evaluation.result",
                attributes={"gen_ai.evaluation.name": self._name, **told, **explained},
                context=parent,
            )
        )


def _read(span: ReadableSpan, attribute: str) -> Mapping[str, Any]:
    """What a span has recorded; {} where that is hidden."""
    try:
        told = json.loads(str((span.attributes or {}).get(attribute, "{}")))
    except ValueError:
        return {}
    return told if isinstance(told, Mapping) else {}
