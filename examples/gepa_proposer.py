"""ICRL as GEPA's proposer: GEPA decides what to keep; each text is written in sight of all earlier ones' rewards."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from gepa.optimize_anything import EngineConfig, GEPAConfig, ReflectionConfig, TrackingConfig, optimize_anything
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from icrl_graph import create_icrl
from icrl_graph.tasks.hidden_color import closeness, tasks

GAME = tasks(1, seed=7)[0]
rewards: dict[str, Any] = {}


def evaluate(text: str) -> float:
    """GEPA's evaluator."""
    return float(rewards.setdefault(text, closeness(text, GAME["task_data"]))["value"])


def attempts(rounds: int) -> Iterator[str]:
    """A run of ICRL that waits, after each of its attempts, until GEPA has scored it."""
    model = "learner:hidden-color"  # a language model instead: model = "openai:gpt-4.1-mini"
    graph: Any = create_icrl(model, lambda response: interrupt(response), rounds=rounds, seed=0)
    run, thread = graph.compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    output = run.invoke({"task": GAME["task"]}, thread)
    while waiting := output.get("__interrupt__"):
        yield (text := waiting[0].value)
        output = run.invoke(Command(resume=rewards[text]), thread)


def propose(parent: dict[str, str], feedback: Any, components: list[str]) -> dict[str, str]:
    """GEPA's proposer."""
    return dict.fromkeys(components, next(proposals))


proposals = attempts(rounds=7)
engine = EngineConfig(max_candidate_proposals=7, cache_evaluation=True, parallel=False)
reflection = ReflectionConfig(reflection_lm=None, custom_candidate_proposer=propose)
quiet = TrackingConfig(SimpleNamespace(log=lambda message: None))  # GEPA prints fifteen lines a proposal
result = optimize_anything("#000", evaluator=evaluate, config=GEPAConfig(engine, reflection, quiet))
print(*(f"{text} {reward['value']:.2f}" for text, reward in rewards.items()), result.best_candidate, sep="\n")
