"""A person gives the rewards, has second thoughts about one, and asks for more. A list stands for that person here."""

from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from icrl_graph import create_icrl, parse
from icrl_graph.evaluators import human_reward
from icrl_graph.topologies.revise import revise

SAID = [(4, "add frogs"), (7, "add rain"), (9, "good"), (6, "add rain"), (8, "drop pond"), (5, "add stars"), (10, "ok")]


def poet(messages: list[dict[str, Any]]) -> str:
    """Does what the comments in its prompt ask for, one after another."""
    things = ["dusk", "pond"]
    for attempt in parse(messages).attempts:
        what, _, thing = attempt.feedback.partition(" ")
        things = [kept for kept in things if (what, kept) != ("drop", thing)] + [thing] * (what == "add")
    return ", ".join(things)


def attend(output: dict[str, Any]) -> None:
    """Answers what a run asks, until it ends. It may take a person days: nothing runs, and costs, meanwhile."""
    while asked := output.get("__interrupt__"):
        reward, comment = SAID.pop(0)
        print(f"  {asked[0].value['response']:28} {reward:2} {comment}")
        output = graph.invoke(Command(resume={"reward": reward, "comment": comment}), config)
    print(f"-> {output['answer']}: {output['reward']:g} ({output['rewarded_by']})")


model = poet  # a language model instead: model = "openai:gpt-4.1-mini"
graph: Any = create_icrl(model, human_reward(bounds=(0, 10)), rounds=3).compile(checkpointer=InMemorySaver())
config: Any = {"configurable": {"thread_id": "1"}}
attend(graph.invoke({"task": "Write one line of a haiku."}, config))
attend(graph.invoke(None, revise(graph, config, 0, comment="add silence")))  # begins a branch after the first attempt
attend(graph.invoke({"more": 2}, config))  # goes on with the branch
