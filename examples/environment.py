"""A custom environment, in which an agent acts turn by turn: with its rewards shown, and with zeros instead."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from icrl_graph import create_icrl
from icrl_graph.environments import Outcome
from icrl_graph.environments.players import VALID, explore
from icrl_graph.environments.rollouts import episode_return, rollout

HINT = f"{VALID}left, right, up, down"


class Safe:
    """It opens after four correct turns of its knob; a wrong one ends the episode."""

    def reset(self, task_data: Mapping[str, Any]) -> Outcome:
        """Lock it."""
        self.left = list(task_data["turns"])
        return Outcome("The safe is locked.", hint=HINT)

    def step(self, action: str) -> Outcome:
        """Turn the knob."""
        if action != self.left.pop(0):
            return Outcome("It jams.", done=True)
        return Outcome("Click.", 0.25, hint=HINT) if self.left else Outcome("It opens.", 0.25, done=True, success=True)

    def close(self) -> None:
        """Nothing to release."""


model = explore  # repeats what was rewarded, then tries; a language model instead: model = "openai:gpt-4.1-mini"
task = {"task": "Open the safe.", "task_data": {"turns": ["up", "left", "left", "down"]}}
for show in ("true", "zero"):
    graph: Any = create_icrl(rollout(model, Safe, max_steps=4), episode_return, rounds=10, show=show).compile()
    runs = [graph.stream(task, context={"seed": seed}, stream_mode="custom") for seed in range(6)]
    rewards = [[event["reward"] for event in run if event["type"] == "episode"] for run in runs]
    print(f"{show:5}", *(f"{mean(by_round):.2f}" for by_round in zip(*rewards, strict=True)))
