"""The rubric loop of deepagents (https://docs.langchain.com/oss/python/deepagents/rubric)."""

from __future__ import annotations

import re
from typing import Any

from icrl_graph.state.selection import last_answered
from icrl_graph.topologies.programs import Host, foreign

RUBRIC = "- The answer is correct, complete, and meets every requirement of the request."


@foreign("deepagents.middleware.rubric", extra="arena", calls=lambda rounds: 2 * rounds, otherwise=last_answered)
def create_deepagents_rubric(host: Host) -> str:
    """RubricMiddleware of deepagents: the model grades its answer by a rubric and writes it anew; it sees no reward."""
    from deepagents.middleware.rubric import RubricMiddleware
    from langchain.agents import create_agent
    from langchain.agents.middleware import AgentMiddleware

    class Attempts(AgentMiddleware):  # type: ignore[misc, type-arg, unused-ignore]
        """Has each answer judged before the rubric's grader reads it; the agent does not see it."""

        def after_agent(self, state: Any, runtime: Any) -> None:
            host.judge(state["messages"][-1].text)

    def with_fixed_tags(text: str) -> str:
        """The grader's tags are random, and by them no reply would be found again; here those of a run are fixed."""
        return re.sub(r"(?<=[a-z]-)[0-9a-f]{16}\b", f"{host.seed:016x}", text)

    model = host.chat_model(with_fixed_tags)
    grading = RubricMiddleware(model=model, max_iterations=host.rounds)
    agent: Any = create_agent(model, [], middleware=[grading, Attempts()])
    state = agent.invoke({"messages": [("user", host.task)], "rubric": RUBRIC}, {"recursion_limit": 20 * host.rounds})
    answer: str = state["messages"][-1].text
    return answer
