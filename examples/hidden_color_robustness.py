"""How other memories, longer runs and histories begun by another policy affect the shipped learner of hidden color.

python examples/hidden_color_robustness.py 1000
"""

import sys
from random import Random
from typing import Any

from icrl_graph import FunctionModel, Settings, chat_model, create_icrl, parse
from icrl_graph.benchmarks.statistics import estimate
from icrl_graph.models.learners import LEARNERS
from icrl_graph.state.events import is_episode
from icrl_graph.state.formatting import between
from icrl_graph.tasks import hidden_color


def begun_by_another(messages: list[dict[str, Any]], rng: Random) -> str:
    """Four uniform guesses, then the learner's own."""
    is_early = len(parse(messages).attempts) < 4
    return hidden_color.uniform(messages, rng) if is_early else LEARNERS["hidden-color"](messages, rng, None)


LEARNER, BEGUN = chat_model("learner:hidden-color"), FunctionModel(reply=begun_by_another)
CASES: dict[str, dict[str, Any]] = {
    "memory all, 8 rounds": {},
    **{f"memory {memory}": {"memory": memory} for memory in ("last:5", "last:3", "best:5", "best:3", "tokens:100")},
    "layout transcript": {"layout": "transcript"},
    "20 rounds": {"rounds": 20},
    "begun by 4 uniform guesses": {"model": BEGUN},
    "begun by 4 uniform guesses, 20 rounds": {"model": BEGUN, "rounds": 20},
    "the teacher: exact posterior sampling": {"model": FunctionModel(reply=hidden_color.posterior)},
}
games = hidden_color.tasks(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
for name, options in CASES.items():
    graph = create_icrl(evaluator=hidden_color.closeness, **{"model": LEARNER, **options}).compile()
    streams = (graph.stream(g, context=Settings(seed=i), stream_mode="custom") for i, g in enumerate(games))
    runs = [list(filter(is_episode, stream)) for stream in streams]
    last, best = (estimate([[run[-1][key]] for run in runs]) for key in ("reward", "best"))
    print(f"{name:38} last round {between(last)}, best {between(best)}")
