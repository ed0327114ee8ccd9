"""How layouts, longer runs and other histories affect the learner of Game of 24: game24_robustness.py 400."""

import sys
from itertools import product
from random import Random
from typing import Any

from icrl_graph import Settings, chat_model, create_best_of_n, create_icrl, parse
from icrl_graph.benchmarks.statistics import estimate
from icrl_graph.models.learners import LEARNERS
from icrl_graph.state.events import is_episode
from icrl_graph.state.formatting import between
from icrl_graph.tasks.game24.game import blind, no_base, player, split
from icrl_graph.tasks.game24.puzzles import task
from icrl_graph.tasks.game24.verifier import grade


def begun_by_another(messages: list[dict[str, Any]], rng: Random) -> str:
    """Six random attempts, then the learner's own."""
    is_early = len(parse(messages).attempts) < 6
    return (player(blind, no_base) if is_early else LEARNERS["game24"])(messages, rng, None)


def play(name: str, graph: Any, puzzles: Any, marks: tuple[int, ...] = (8, 16)) -> None:
    """Print the share of puzzles solved within k attempts."""
    run = graph.compile().stream
    seeded = [run(task(p), context=Settings(seed=i), stream_mode="custom") for i, p in enumerate(puzzles)]
    games = [list(filter(is_episode, events)) for events in seeded]
    for k in marks:
        share = estimate([[any(event["metric"] for event in events[:k])] for events in games], share=True)
        print(f"{name:44} within {k:2}: {between(share)}", flush=True)


learner, count = chat_model("learner:game24"), int(sys.argv[1]) if len(sys.argv) > 1 else 3
test, validation = split("test")[:count], split("validation")[:count]
for layout, memory in (("turns", "all"), ("transcript", "all"), ("turns", "last:8"), ("turns", "tokens:300")):
    play(f"{layout}, memory {memory}", create_icrl(learner, grade, rounds=16, layout=layout, memory=memory), test)
play("temperature 0", create_icrl(chat_model("learner:game24", temperature=0), grade, rounds=16), test)
play("32 rounds", create_icrl(learner, grade, rounds=32), test, (16, 24, 32))
play("begun by 6 random attempts", create_icrl(begun_by_another, grade, rounds=16), test, (6, 8, 12, 16))
for base, heat in product(("game24", "game24-weak", "game24-strong"), (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)):
    sampler = create_best_of_n(chat_model(f"learner:{base}", temperature=heat), grade, n=16)
    play(f"best_of_n {base}, validation, temperature {heat}", sampler, validation)
    play(f"best_of_n {base}, test, temperature {heat}", sampler, test)
