"""A person gives the rewards, revises one, and asks for more rounds. Two lists take the place of that person here."""

from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from icrl_graph import create_icrl, parse
from icrl_graph.evaluators import human_reward
from icrl_graph.topologies.revision import revise

REWARDS = iter([4, 7, 9, 6, 8, 5, 10])
COMMENTS = iter(["add frogs", "add rain", "good", "add rain", "drop pond", "add stars", "ok"])


def poet(messages: list[dict[str, Any]]) -> str:
    """Does what the comments in its prompt ask for, one after another."""
    things = ["dusk", "pond"]
    for attempt in parse(messages).attempts:
        verb, _, noun = attempt.feedback.partition(" ")
        things = [thing for thing in things if (verb, thing) != ("drop", noun)] + [noun] * (verb == "add")
    return ", ".join(things)


def attend(output: dict[str, Any]) -> None:
    """Answers a run's questions until it ends. A person may take days: nothing runs, and costs, meanwhile."""
    while interrupts := output.get("__interrupt__"):
        reward, comment = next(REWARDS), next(COMMENTS)
        print(f"  {interrupts[0].value['response']:28} {reward:2} {comment}")
        output = graph.invoke(Command(resume={"reward": reward, "comment": comment}), config)
    print(f"-> {output['answer']}: {output['reward']:g} ({output['rewarded_by']})")


model = poet  # a language model instead: model = "openai:gpt-4.1-mini"
graph: Any = create_icrl(model, human_reward(bounds=(0, 10)), rounds=3).compile(checkpointer=InMemorySaver())
config: Any = {"configurable": {"thread_id": "1"}}
attend(graph.invoke({"task": "Write one line of a haiku."}, config))
attend(graph.invoke(None, revise(graph, config, 0, comment="add silence")))  # forks the run after the first attempt
attend(graph.invoke({"more": 2}, config))  # continues the branch
