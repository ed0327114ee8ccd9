"""Players without a language model, through real graphs."""

from typing import Any

import pytest

from icrl_graph.environments import Outcome
from icrl_graph.environments.players import VALID, PastStep, explore, follow, read_episodes
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.topologies.methods import create_icrl
from tests.corridor import Corridor
from tests.helpers import play

TASK: Any = {"task": "Find the treasure.", "task_data": {"length": 3}}


class Valid(Corridor):
    """Lists the valid actions, most of which do nothing."""

    hint = VALID + ", ".join(["left", "right", *(f"touch wall {i}" for i in range(6))])

    def reset(self, task_data: Any) -> Any:
        return Outcome(str(super().reset(task_data)), hint=self.hint)

    def step(self, action: str) -> Outcome:
        return super().step(action)._replace(hint=self.hint)


def test_a_player_follows_its_path_in_every_episode() -> None:
    graph = create_icrl(rollout(follow(["right"] * 3), Corridor), episode_return, rounds=2)
    _, episodes = play(graph, TASK)
    assert [episode["reward"]["value"] for episode in episodes] == [pytest.approx(1.2)] * 2


def test_after_its_path_a_player_waits() -> None:
    _, (episode,) = play(create_icrl(rollout(follow(["right"]), Corridor, max_steps=3), episode_return, rounds=1), TASK)
    assert [step["action"] for step in episode["steps"]] == ["right", "wait", "wait"]


@pytest.mark.parametrize("layout", ["turns", "transcript"])
def test_earlier_episodes_are_read_as_the_prompt_shows_them(layout: str) -> None:
    seen: list[Any] = []

    def act(messages: Any) -> str:
        seen.append(read_episodes(messages))
        return "right -> (odd)" if len(seen) == 1 else "right"

    play(create_icrl(rollout(act, Corridor, max_steps=2), episode_return, rounds=3, layout=layout), TASK)
    assert seen[:2] == [[], []]
    assert seen[2][0][1] == PastStep("right", 0.1, "You are in room 1.")
    assert len(seen[-1]) == 2


def _returns(show: str, seed: int) -> list[float]:
    graph = create_icrl(
        rollout(explore, Valid, max_steps=6), episode_return, rounds=24, show=show, seed=seed, layout="transcript"
    )
    _, episodes = play(graph, TASK)
    return [float(episode["reward"]["value"] or 0.0) for episode in episodes]


def test_the_explorer_gets_better_from_its_rewards_and_not_without_them() -> None:
    late = {show: [sum(_returns(show, seed)[-5:]) / 5 for seed in range(2)] for show in ("true", "zero")}
    assert min(late["true"]) > max(late["zero"])
    assert sum(late["true"]) / 2 > 1.0
