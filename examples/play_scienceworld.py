"""An agent without a language model in ScienceWorld, the real simulator; it needs Java and the extra `scienceworld`.

The agent knows the rooms, three forms of actions, and no science. All that it gains, it learns from its prompt.
"""

from random import Random
from typing import Any

from icrl_graph import MissingExtra, create_icrl
from icrl_graph.benchmarks.scienceworld import final_score, player, read_item, task
from icrl_graph.environments.players import VALID, explore
from icrl_graph.environments.rollouts import episode_return
from icrl_graph.environments.scienceworld import ROOMS
from icrl_graph.errors import SimulatorUnavailable


def agent(messages: list[dict[str, Any]], rng: Random) -> str:
    """Repeats what earned most in the earlier episodes, then tries any room, or any thing in sight."""
    last = str(messages[-1]["content"])
    things = last.rpartition("Objects here: ")[2].split(", ")
    actions = [f"teleport to {room}" for room in ROOMS] + [f"focus on {thing}" for thing in things]
    actions += [f"move {thing} to red box" for thing in things]
    return explore([*messages[:-1], {"role": "user", "content": f"{last}\n{VALID}{', '.join(actions)}"}], rng)


model = agent  # a language model instead: model = "openai:gpt-4.1-mini"
policy = player(model, max_steps=6)()
graph = create_icrl(policy, episode_return, metric=final_score, rounds=4, seed=3).compile()
try:
    for event in graph.stream(task(read_item("find-non-living-thing:0")), stream_mode="custom"):
        if event["type"] == "step" and event["reward"]:
            print(f"{event['reward']:+5g} {event['action']}")
        if event["type"] == "episode":
            print(f"Round {event['round']} ends with a score of {event['metric']}.")
except (MissingExtra, SimulatorUnavailable) as missing:
    print(missing)
