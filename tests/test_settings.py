from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import TOPOLOGIES, create_best_of_n, create_icrl
from icrl_graph.topologies.settings import BestOfNSettings, Settings, resolve, schema
from tests.helpers import GAME, climber, nearness, play


def test_studio_offers_the_names_of_schedules_and_layouts_a_users_own_among_them() -> None:
    def mine(round: int, past: object) -> str:
        return "Try."

    fields = create_icrl(lambda: "", lambda: 0.0, schedule=mine).parts.schema.model_json_schema()["properties"]
    assert fields["layout"]["enum"] == ["turns", "transcript"]
    assert {"preset", "plain", "mine"} <= set(fields["schedule"]["enum"])
    assert fields["schedule"]["default"] == "mine"


def test_a_graph_has_its_own_defaults() -> None:
    own = schema(Settings, {"rounds": 20, "memory": "last:3"})
    assert own().model_dump()["rounds"] == 20
    assert own.model_json_schema()["properties"]["memory"]["default"] == "last:3"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds=0.*greater than or equal to 1"),
        ({"round": 3}, "unknown (setting|argument) 'round'.*rounds"),
        ({"memory": "last:x"}, "unknown memory 'last:x'.*tokens:N"),
        ({"schedule": "both"}, "unknown schedule 'both'.*preset, autonomous"),
        ({"layout": "table"}, "unknown layout 'table'.*turns, transcript"),
        ({"show": "none"}, "unknown ablation 'none'.*true, zero, hidden"),
        ({"reward_label": "Reward:"}, "reward_label='Reward:'"),
        ({"max_seconds": 0}, "max_seconds=0"),
        ({"width": True}, "width=True: a number is neither true nor false"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value_and_the_choices(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_icrl(climber, nearness, **wrong)
    with pytest.raises(ValueError, match=message):
        resolve(schema(Settings, {}), {"icrl": wrong})


def test_a_part_of_ones_own_is_held_by_name_and_can_be_named() -> None:
    def latest(past: Any) -> list[int]:
        return [len(past) - 1] if past else []

    graph = create_icrl(climber, nearness, memory=latest, rounds=3)
    assert graph.context_schema is not None
    assert graph.context_schema().memory == "latest"
    assert play(graph)[1][2]["plan"]["shown"] == [[1, 2]]
    assert play(graph, context={"memory": "all"})[1][2]["plan"]["shown"] == [[0, 2]]


def test_only_what_is_set_overrides_the_graph() -> None:
    graph = schema(Settings, {"rounds": 20})
    assert resolve(graph, Settings(seed=3)) == {**graph().model_dump(), "seed": 3}
    assert resolve(graph, None)["rounds"] == 20


def test_of_a_parents_context_only_the_part_named_icrl_is_read() -> None:
    graph = schema(Settings, {})
    assert resolve(graph, {"rounds": "the parent's own"})["rounds"] == 8
    assert resolve(graph, {"icrl": {"rounds": 3}, "rounds": 99})["rounds"] == 3

    class Parent:
        icrl = Settings(rounds=4)

    assert resolve(graph, Parent())["rounds"] == 4


@pytest.mark.parametrize("wrong", ["x", 3, ["rounds"]])
def test_what_a_parent_gives_under_our_name_must_be_settings(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'icrl' must be settings"):
        resolve(schema(Settings, {}), {"icrl": wrong})


def test_each_method_is_addressed_by_its_own_name() -> None:
    context = {"icrl": {"rounds": 3}, "best_of_n": {"n": 4}}
    assert resolve(schema(Settings, {}), context)["rounds"] == 3
    assert resolve(schema(BestOfNSettings, {}), context)["n"] == 4


def test_the_context_of_a_run_is_validated_before_anything_is_paid() -> None:
    model = ScriptedModel(climber)
    with pytest.raises(ValueError, match="^rounds=-1: Input should be greater than or equal to 1$"):
        play(create_icrl(model, nearness), context={"rounds": -1})
    with pytest.raises(ValueError, match="roundz"):
        play(create_icrl(model, nearness), context={"roundz": 1})
    assert model.prompts == []


@pytest.mark.parametrize("meaningless", ["rounds", "patience", "memory", "show", "target"])
def test_a_setting_that_means_nothing_to_best_of_n_is_refused(meaningless: str) -> None:
    with pytest.raises(ValueError, match=f"unknown argument '{meaningless}'; choose among schedule, n, .*seed"):
        TOPOLOGIES["best_of_n"](climber, nearness, **{meaningless: 1})
    with pytest.raises(ValueError, match=meaningless):
        play(create_best_of_n(climber, nearness), context={meaningless: 1})
    assert BestOfNSettings().n == 8


def test_an_embedded_graph_takes_its_settings_from_the_parents_context() -> None:
    class State(TypedDict, total=False):
        task: str
        task_data: dict[str, Any]
        answer: str
        rounds_done: int

    class Context(TypedDict):
        icrl: dict[str, Any]

    parent = StateGraph(State, context_schema=Context)
    parent.add_node("icrl", create_icrl(climber, nearness).compile())
    parent.add_edge(START, "icrl")
    parent.add_edge("icrl", END)
    assert parent.compile().invoke(GAME, context={"icrl": {"rounds": 2}})["rounds_done"] == 2
