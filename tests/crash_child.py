"""A run that logs each paid call and tells its parent how far it is; killed and started again by test_crash.py.

Its argument is JSON: folder, topology, size, kind (of database), url, and whether the graph is embedded and judged.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph

from icrl_graph.evaluators.judge import llm_judge
from icrl_graph.models.function import FunctionModel
from icrl_graph.state.episode import Output
from icrl_graph.topologies.methods import build
from tests.databases import Database, opened


class Outer(Output, total=False):
    task: str


class Child:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.folder = spec, Path(spec["folder"])
        self.log = os.open(self.folder / "paid.log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def pay(self, messages: Any, rng: Any) -> AIMessage:
        print("asked", flush=True)
        os.write(self.log, b"paid\n")
        said = hashlib.sha256(f"{json.dumps(messages)}{rng.random()}".encode()).hexdigest()[:8]
        read = len(json.dumps(messages))
        usage: Any = {"input_tokens": read, "output_tokens": 8, "total_tokens": read + 8}
        return AIMessage(said, usage_metadata=usage)

    def judge(self, messages: Any) -> AIMessage:
        said = self.pay(messages, __import__("random").Random(0))
        return said.model_copy(update={"content": f"Score: {int(str(said.content), 16) % 10 + 1}"})

    def score(self, response: str) -> float:
        print("judged", flush=True)
        return int(response, 16) / 16**8

    def graph(self) -> Any:
        topology, size = self.spec["topology"], self.spec["size"]
        options: Any = {"n": size} if topology == "best_of_n" else {"rounds": size}
        judge: Any = llm_judge(FunctionModel(reply=self.judge), "Is it good?") if self.spec["judged"] else self.score
        graph = build(topology, FunctionModel(reply=self.pay), judge, seed=0, **options)
        if not self.spec["embedded"]:
            return graph
        parent = StateGraph(Outer)
        parent.add_node("before", RunnableLambda(lambda state: {"rounds_done": 0}))
        parent.add_node("icrl", graph.compile())
        parent.add_edge(START, "before")
        parent.add_edge("before", "icrl")
        parent.add_edge("icrl", END)
        return parent

    def run(self, database: Database) -> dict[str, Any]:
        graph = self.graph().compile(checkpointer=database.saver)
        config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 10_000}
        begun = graph.get_state(config).values
        database.invoke(graph, None if begun else {"task": "x" * 200}, config)
        values = dict(graph.get_state(config).values)
        episodes = [{key: value for key, value in e.items() if key != "costs"} for e in values.get("episodes", [])]
        usage = {name: amount for name, amount in values["usage"].items() if name != "seconds"}
        return {"answer": values["answer"], "reward": values["reward"], "usage": usage, "episodes": episodes}


def play(spec: dict[str, Any]) -> str:
    """Run it to its end, here; gives what a process of it prints last."""
    child = Child(spec)
    with opened(spec["kind"], child.folder / "run.sqlite", spec["url"]) as database:
        return f"result {json.dumps(child.run(database))}\n"


if __name__ == "__main__":
    print(play(json.loads(sys.argv[1])), end="", flush=True)
