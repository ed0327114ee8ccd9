"""How many of its words an answer has in common with an abstract: ROUGE-1 (C.-Y. Lin, 2004).

Counted by the package rouge-score, without stemming: words are runs of the letters a to z and of digits, in lower case,
so it is of no use for other scripts. Recall, the reward of arXiv 2506.06303, is the share of the abstract's words that
the answer has; an answer gains by every word that it adds. F1 counts the words beside the point, too: the one is the
reward, the other is reported as the metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from icrl_graph.errors import missing_extra
from icrl_graph.state.reward import Reward


def recall(response: str, task_data: Mapping[str, Any]) -> Reward:
    """The evaluator: the value is ROUGE-1 recall, the metric its F1, both 0 to 1.

    Args:
        response: the answer.
        task_data: the abstract by "abstract".

    Raises:
        ValueError: the abstract has no word that counts.
        MissingExtra: rouge-score is not installed (extra `abstracts`).
    """
    score = _score(response, task_data)
    return Reward(value=score.recall, metric=score.fmeasure)


def f1(response: str, task_data: Mapping[str, Any]) -> Reward:
    """The same the other way about: the value is F1, as in later code of the paper's authors, the metric is recall."""
    score = _score(response, task_data)
    return Reward(value=score.fmeasure, metric=score.recall)


def read_abstract(task_data: Mapping[str, Any]) -> str:
    """The abstract of a task.

    Raises:
        ValueError: it is no text, or has no word that counts.
        MissingExtra: rouge-score is not installed (extra `abstracts`).
    """
    abstract = task_data.get("abstract")
    if not (isinstance(abstract, str) and _scorer().score(abstract, abstract)["rouge1"].recall):
        raise ValueError(f"task_data['abstract'] must be a text with letters a to z or digits, got {abstract!r:.80}")
    return abstract


def _score(response: str, task_data: Mapping[str, Any]) -> Any:
    return _scorer().score(read_abstract(task_data), response)["rouge1"]


@cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as missing:
        raise missing_extra("rouge-score", "abstracts") from missing
    return RougeScorer(["rouge1"])
