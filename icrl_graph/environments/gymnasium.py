"""Environments of Gymnasium's interface, as they are: `reset(seed=, options=)`, and `step` that gives five things.

    rollout(model, lambda: FromGymnasium(gymnasium.make("my/TextWorld-v0")))

Nothing of Gymnasium is imported: whatever has these two methods will do. Observations and actions are texts; of others
say by `describe` and `read` how they are told and understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from icrl_graph.environments import Outcome


class FromGymnasium:
    """An `Environment` made of one of Gymnasium's (https://gymnasium.farama.org/api/env/).

    Args:
        env: theirs.
        describe: tells an observation as text.
        read: makes their action of the agent's text; raises ValueError where it can't, and its words are then what the
            agent observes.
        success: tells from the last reward and info whether an episode ended as it should; default that it ended by
            itself with a reward above 0.
    """

    def __init__(
        self,
        env: Any,
        *,
        describe: Callable[[Any], str] = str,
        read: Callable[[str], Any] = str,
        success: Callable[[float, Mapping[str, Any]], bool] = lambda reward, info: reward > 0,
    ) -> None:
        self._env, self._describe, self._read, self._success = env, describe, read, success

    def reset(self, task_data: Mapping[str, Any]) -> str:
        """Begin an episode; `seed` and `options` of the task data are handed on, so that it can be repeated."""
        given = {name: task_data[name] for name in ("seed", "options") if name in task_data}
        observation, _ = self._env.reset(**{"seed": 0, **given})
        return self._describe(observation)

    def step(self, action: str) -> Outcome:
        """Act."""
        try:
            meant = self._read(action)
        except (ValueError, LookupError) as wrong:
            return Outcome(str(wrong))
        observation, reward, terminated, truncated, info = self._env.step(meant)
        success = bool(terminated) and self._success(float(reward), info)
        return Outcome(self._describe(observation), float(reward), bool(terminated or truncated), success)

    def close(self) -> None:
        """Close theirs."""
        self._env.close()
