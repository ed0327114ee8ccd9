"""Trace a run, span by span, without a server: OpenTelemetry by OpenInference's instrumentation of LangChain."""

from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from icrl_graph import create_icrl
from icrl_graph.tasks.hidden_color import closeness, drawn

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))  # for Phoenix or Jaeger: an OTLPSpanExporter instead
LangChainInstrumentor().instrument(tracer_provider=provider)

graph = create_icrl("learner:hidden-color", closeness, inputs=drawn, rounds=2, seed=1).compile(name="icrl")
graph.invoke({})

spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
depth = {span.context.span_id: 0 for span in spans if span.context and span.parent is None}
for span in spans:
    if span.context and span.parent is not None:
        depth[span.context.span_id] = depth[span.parent.span_id] + 1
    kind = (span.attributes or {}).get("openinference.span.kind")
    print("  " * depth[span.context.span_id if span.context else 0] + f"{span.name} ({kind})")
