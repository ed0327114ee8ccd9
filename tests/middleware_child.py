"""An agent with the middleware and a paid judge, which dies of SIGKILL where it is told; see test_middleware.py."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver

from icrl_graph.integrations.middleware import ICRLMiddleware
from icrl_graph.testing import ScriptedModel
from tests.helpers import thread


@tool
def look() -> str:
    """Look."""
    return "seen"


def main(folder: Path, rounds: int, kill_at: int) -> None:
    def reach(point: str) -> None:
        """Write down that a point is reached, and die there if it is the one."""
        with (folder / "points.log").open("a+") as log:
            log.write(f"{point}\n")
            log.flush()
            log.seek(0)
            number = len(log.readlines())
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def reply(messages: Any) -> AIMessage:
        reach("model asked")
        looked = messages[-1]["role"] == "tool"
        asked = len((folder / "points.log").read_text().splitlines())  # no two answers are the same
        reach("model answered")
        return (
            AIMessage(f"answer {asked}")
            if looked
            else AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": f"{asked}"}])
        )

    def judge(given: Any) -> float:
        reach("judge asked")
        value = int(given["response"].split()[1]) % 100
        reach("judge answered")
        return value / 100

    def watch(event: Any) -> None:
        reach(event["type"])

    steps = ICRLMiddleware(RunnableLambda(judge), rounds=rounds, watch=watch)
    with SqliteSaver.from_conn_string(str(folder / "agent.sqlite")) as saver:
        agent: Any = create_agent(
            ScriptedModel(reply, takes_tools=True), [look], middleware=[steps], checkpointer=saver
        )
        begun = agent.get_state(thread()).values
        output = agent.invoke(None if begun else {"messages": [("user", "Do it.")]}, thread(), durability="sync")
    result = output["icrl_result"]
    print(output["messages"][-1].text == result["answer"], result["usage"]["calls"], result["rounds_done"])


main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
