"""A language model that judges answers, as a LangChain tool. ICRL_JUDGE names it, or "judge" in the task data."""

import os
from dataclasses import replace

from langchain_core.tools import StructuredTool

from icrl_graph import Reward, improve, llm_judge
from icrl_graph.evaluators import bind_evaluator


def judge_answer(response: str, task_data: dict[str, str]) -> Reward:
    """Have a model score an answer from 1 to 10, and say why.

    Args:
        response: the answer.
        task_data: the task and what makes an answer good, such as {"task": "Greet.", "rubric": "It is short."}.
    """
    model = task_data.get("judge") or os.environ.get("ICRL_JUDGE", "openai:gpt-4.1-mini")
    judge = llm_judge(model, task_data.get("rubric", "The answer is right, complete and clear."), explain=True)
    run = improve(task_data.get("task", "not told"), judge, model=lambda: response, topology="best_of_n", n=1)
    return run.episodes[0]["reward"]


tool = StructuredTool.from_function(judge_answer)
evaluator = replace(bind_evaluator(tool), rewarded_by="judged")
"""For runs, which then say that their rewards are judged. To count the judge's calls, use `llm_judge` itself."""
