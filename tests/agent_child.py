"""An agent that has something solved by a tool, and dies of SIGKILL at the call it is told; see test_tool.py."""

import os
import signal
import sys
from pathlib import Path

from langgraph.checkpoint.sqlite import SqliteSaver

from icrl_graph.topologies.methods import create_icrl
from icrl_graph.topologies.tool import as_tool
from tests.helpers import nearness, thread
from tests.test_tool import ASKED, FIND, SECRET, agent_with


def main(folder: Path, kill_at: int) -> None:
    def guess() -> str:
        with (folder / "paid.log").open("a+") as log:
            log.write("paid\n")
            log.flush()
            log.seek(0)
            number = len(log.readlines())
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return str(number)

    tool = as_tool(create_icrl(guess, nearness, rounds=5), "solve", "Solves.", task_data=SECRET)
    with SqliteSaver.from_conn_string(str(folder / "agent.sqlite")) as saver:
        agent = agent_with(tool, FIND).compile(checkpointer=saver)
        begun = agent.get_state(thread()).values
        output = agent.invoke(None if begun else ASKED, thread(), durability="sync")
    print(output["messages"][-1].text)


main(Path(sys.argv[1]), int(sys.argv[2]))
