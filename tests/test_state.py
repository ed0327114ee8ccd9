from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from icrl_graph.state.episode import Episode, add_usage, spent, upsert
from icrl_graph.state.reward import Reward
from icrl_graph.state.selection import best, metric_of

patches: Any = st.lists(
    st.builds(
        lambda r, c, extra: {"round": r, "candidate": c, **extra},
        st.integers(0, 4),
        st.integers(0, 2),
        st.dictionaries(st.sampled_from(["response", "error", "reflection"]), st.text(max_size=3), max_size=2),
    ),
    max_size=12,
)


@given(st.lists(patches, max_size=6))
def test_upsert_folds_all_at_once_as_one_by_one(writes: Any) -> None:
    one_by_one: list[Episode] = []
    for write in writes:
        one_by_one = upsert(one_by_one, [write])
    assert upsert([], writes) == one_by_one


@given(patches, patches)
def test_upsert_keeps_one_episode_a_key_in_order_and_changes_no_input(first: Any, second: Any) -> None:
    before = upsert([], [first])
    copy = [dict(episode) for episode in before]
    after = upsert(before, [second])
    keys = [(episode["round"], episode["candidate"]) for episode in after]
    assert keys == sorted(set(keys))
    assert before == copy


def _scored(*values: float | None) -> list[Episode]:
    return [Episode(round=i, candidate=0, reward=Reward(value=value)) for i, value in enumerate(values)]


def test_best_is_by_value_and_a_tie_keeps_the_earlier() -> None:
    top = best(_scored(0.1, None, 0.9, 0.9))
    assert top is not None
    assert top["round"] == 2


def test_best_of_nothing_scored_is_none() -> None:
    assert best(_scored(None, None)) is None
    assert best([]) is None


def test_a_negative_reward_can_be_the_best() -> None:
    top = best(_scored(None, -3.0, -5.0))
    assert top is not None
    assert top["round"] == 1


def test_the_metric_is_the_value_unless_it_is_given_even_as_none() -> None:
    assert metric_of(Episode(reward=Reward(value=0.5))) == 0.5
    assert metric_of(Episode(reward=Reward(value=0.5, metric=None))) is None


def test_spent_adds_calls_and_tokens_but_takes_the_longest_of_a_round() -> None:
    episodes = [
        Episode(round=0, candidate=0, costs={"generate": {"calls": 1, "input": 5, "seconds": 1.0}}),
        Episode(round=0, candidate=1, costs={"generate": {"calls": 2, "input": 1, "seconds": 3.0}}),
        Episode(round=1, candidate=0, costs={"generate": {"calls": 1, "seconds": 1.0}}),
        Episode(round=2, candidate=0),
    ]
    assert spent(episodes) == {"calls": 4, "input": 6, "seconds": 4.0}


def test_usages_add_up_key_by_key() -> None:
    assert add_usage({"calls": 1}, {"calls": 2, "output": 3}) == {"calls": 3, "output": 3}
