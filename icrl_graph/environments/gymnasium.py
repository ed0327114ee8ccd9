"""Adapter for environments of Gymnasium's interface: `reset(seed=, options=)`, and `step` that returns five values.

    rollout(model, lambda: FromGymnasium(gymnasium.make("my/TextWorld-v0")))

Gymnasium is not imported: any object with these two methods will do. Observations and actions are texts; `describe` and
`read` convert others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from icrl_graph.environments import Outcome


class FromGymnasium:
    """An `Environment` around one of Gymnasium's (https://gymnasium.farama.org/api/env/).

    Args:
        env: Gymnasium's environment.
        describe: converts an observation to text.
        read: converts the agent's text to an action; raises ValueError where it can't, and the error's text is then
            the agent's observation.
        success: whether an episode succeeded, by its last reward and info; default: the last reward is above 0. An
            episode that was truncated did not succeed.
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
        """Begin an episode; `seed` and `options` of the task data are passed on, so that it can be repeated."""
        options = {name: task_data[name] for name in ("seed", "options") if name in task_data}
        observation, _ = self._env.reset(**{"seed": 0, **options})
        return self._describe(observation)

    def step(self, action: str) -> Outcome:
        """Act."""
        try:
            native_action = self._read(action)
        except (ValueError, LookupError) as error:
            return Outcome(str(error))
        observation, reward, terminated, truncated, info = self._env.step(native_action)
        success = bool(terminated) and self._success(float(reward), info)
        return Outcome(self._describe(observation), float(reward), bool(terminated or truncated), success)

    def close(self) -> None:
        """Close Gymnasium's environment."""
        self._env.close()
