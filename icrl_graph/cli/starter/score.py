"""What an answer is worth. Here: how close a color is to a hidden one. Put your own in its place."""

import re


def score(response: str, task_data: dict[str, str]) -> float:
    """The reward, from 0 to 1, that the model tries to raise. It never sees `task_data`.

    Return None where you can't tell; return `icrl_graph.Reward(value=0.5, feedback="...")` to say what is missing.
    """
    found = re.findall(r"#[0-9a-f]{3}\b", response.lower())
    if not found:
        return 0.0
    pairs = zip(found[-1][1:], task_data["secret"][1:], strict=True)
    distance = sum(abs(int(guess, 16) - int(hidden, 16)) for guess, hidden in pairs)
    return max(0, 20 - distance) / 20


def solved(response: str, task_data: dict[str, str]) -> float:
    """The metric: what is meant, which is reported and no prompt shows. Here: whether it is the hidden color itself."""
    return float(score(response, task_data) == 1.0)
