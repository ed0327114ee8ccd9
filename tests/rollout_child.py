"""An agent in ScienceWorld that tells each of its actions; killed and started again by test_scienceworld_graph.py."""

import json
import os
import sys
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from icrl_graph.environments.players import follow
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.environments.scienceworld import ScienceWorld
from icrl_graph.topologies.methods import create_icrl


def main(folder: str, task: str, actions: list[str]) -> None:
    log = os.open(f"{folder}/paid.log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    player = follow(actions)

    def act(messages: Any) -> str:
        os.write(log, b"paid\n")
        print("acts", flush=True)
        return player(messages)

    with SqliteSaver.from_conn_string(f"{folder}/run.sqlite") as saver:
        policy = rollout(act, ScienceWorld, max_steps=len(actions))
        graph: Any = create_icrl(policy, episode_return, rounds=2).compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 10_000}
        begun = graph.get_state(config).values
        inputs = {"task": "Do it.", "task_data": {"task": task}}
        graph.invoke(None if begun else inputs, config, durability="sync")
        values = graph.get_state(config).values
    episodes = [{key: value for key, value in e.items() if key != "costs"} for e in values["episodes"]]
    print("result " + json.dumps([values["usage"]["calls"], episodes]), flush=True)


main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
