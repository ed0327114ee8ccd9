"""The plateau switch: another model, memory or schedule once nothing has improved for some rounds."""

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph import (
    FunctionModel,
    aimprove,
    chat_model,
    compare,
    create_best_of_n,
    create_icrl,
    create_reflexion,
    create_self_refine,
    improve,
)
from icrl_graph.benchmarks.registry import find_item
from icrl_graph.preview import preview
from icrl_graph.testing import ScriptedModel
from tests.helpers import play, thread

TASK: Any = {"task": "Say it."}


def score(response: str) -> float:
    return float(response) if response.replace(".", "").isdigit() else 0.0


def _who(result: Any) -> list[str]:
    return ["strong" if episode["model"] == "switch_model" else "cheap" for episode in result["episodes"]]


def _models(cheap: list[Any], strong: list[Any]) -> dict[str, Any]:
    return {"model": ScriptedModel(cheap), "switch_model": ScriptedModel(strong)}


def _priced(name: str, *replies: str) -> FunctionModel:
    """A model that reads a million tokens for each reply."""
    waiting = iter(replies)

    def reply() -> AIMessage:
        usage = UsageMetadata(input_tokens=1_000_000, output_tokens=0, total_tokens=1_000_000)
        return AIMessage(next(waiting), usage_metadata=usage, response_metadata={"model_name": name})

    return FunctionModel(reply=reply, name=name)


def _openai(name: str) -> Any:
    return chat_model(f"openai:{name}", base_url="http://127.0.0.1:1/v1")


PRICES = {"cheap": {"input": 1.0, "output": 1.0}, "strong": {"input": 10.0, "output": 10.0}}


@pytest.mark.parametrize("is_async", [False, True])
def test_the_strong_model_takes_over_once_nothing_has_improved_and_sees_all_before(is_async: bool) -> None:
    models = _models(["0.1", "0.2", "0.1", "0.2"], ["0.5", "0.1", "0.1", "0.1"])
    options: Any = {**models, "rounds": 8, "switch_after": 2}
    run = asyncio.run(aimprove("Say it.", score, **options)) if is_async else improve("Say it.", score, **options)
    assert _who(vars(run)) == ["cheap"] * 4 + ["strong"] * 4
    assert [each["plan"].get("switched") for each in run.episodes] == [None] * 4 + [4] * 4
    first = models["switch_model"].prompts[0]
    assert [message["content"] for message in first if message["role"] == "assistant"] == ["0.1", "0.2", "0.1", "0.2"]


def test_a_run_that_goes_on_improving_is_not_switched() -> None:
    models = _models(["0.1", "0.2", "0.3", "0.4"], [])
    run = improve("Say it.", score, **models, rounds=4, switch_after=1)
    assert _who(vars(run)) == ["cheap"] * 4


def test_rounds_whose_attempts_are_unscored_or_failed_count_as_rounds_without_a_better_reward() -> None:
    models = _models([RuntimeError("down"), "?"], ["1"])
    run = improve("Say it.", lambda response: None if response == "?" else 1.0, **models, rounds=3, switch_after=2)
    assert _who(vars(run)) == ["cheap", "cheap", "strong"]


def test_memory_and_schedule_are_switched_without_another_model() -> None:
    model = ScriptedModel(["0.3", "0.1", "0.2", "0.1"])
    settings: Any = {"schedule": "exploit", "switch_after": 1, "switch_memory": "best:1", "switch_schedule": "explore"}
    run = improve("Say it.", score, model=model, rounds=4, **settings)
    plans = [(each["plan"]["instruction"], each["plan"]["shown"]) for each in run.episodes]
    assert plans == [("exploit", []), ("exploit", [[0, 1]]), ("explore", [[0, 1]]), ("explore", [[0, 1]])]
    assert "model" not in run.episodes[-1]


def test_a_memory_to_switch_to_may_be_a_function() -> None:
    def first(past: Any) -> list[int]:
        return [0]

    model = ScriptedModel(["0.3", "0.1", "0.2"])
    run = improve("Say it.", score, model=model, rounds=3, switch_after=1, switch_memory=first)
    assert run.episodes[2]["plan"]["shown"] == [[0, 1]]


@pytest.mark.parametrize("create", [create_reflexion, create_self_refine])
def test_after_the_switch_the_new_model_writes_the_words_about_its_attempts(create: Any) -> None:
    models = _models(["0.2", "why 1", "0.1", "why 2"], ["0.3", "why 3", "0.1"])
    graph = create(models.pop("model"), score, **models, rounds=4, switch_after=1)
    _, episodes = play(graph, TASK)
    state = {"episodes": episodes}
    assert _who(state) == ["cheap", "cheap", "strong", "strong"]
    assert [each.get("reflection") for each in state["episodes"]] == ["why 1", "why 2", "why 3", None]


def test_patience_begins_anew_with_the_switch() -> None:
    models = _models(["0.2", "0.1", "0.1"], ["0.1", "0.1", "0.1"])
    run = improve("Say it.", score, **models, rounds=9, switch_after=2, patience=2)
    assert (run.stopped, _who(vars(run))) == ("plateau", ["cheap"] * 3 + ["strong"] * 2)


def test_a_run_that_was_broken_off_takes_the_same_turn_and_pays_for_nothing_twice(tmp_path: Any) -> None:
    def broken_off(event: Any) -> None:
        if event["round"] == 2:
            raise KeyError("broken off")

    models = _models(["0.2", "0.1", "0.1"], ["0.1", "0.4"])
    call: Any = {**models, "rounds": 5, "switch_after": 2, "path": tmp_path / "run.sqlite"}
    with pytest.raises(KeyError):
        improve("Say it.", score, **call, on_episode=broken_off)
    run = improve("Say it.", score, **call)
    assert _who(vars(run)) == ["cheap"] * 3 + ["strong"] * 2
    assert [len(model.prompts) for model in models.values()] == [3, 2]


def test_once_switched_a_run_stays_so_also_with_more_rounds() -> None:
    models = _models(["0.2", "0.1"], ["0.9", "0.1"])
    graph = create_icrl(models.pop("model"), score, **models, switch_after=1).compile(checkpointer=InMemorySaver())
    graph.invoke(TASK, thread(), context={"rounds": 3})
    graph.invoke({"more": 1}, thread())
    assert _who(graph.get_state(thread()).values) == ["cheap", "cheap", "strong", "strong"]


def test_a_context_may_name_what_one_run_switches_to() -> None:
    graph = create_icrl("learner:game24", lambda response: 0.5, rounds=3).compile(checkpointer=InMemorySaver())
    item: Any = find_item("game24:4,5,6,10")
    graph.invoke(item.inputs, thread(), context={"switch_after": 1, "switch_model": "learner:game24-strong"})
    episodes = graph.get_state(thread()).values["episodes"]
    assert [each.get("model") for each in episodes] == ["model", "model", "switch_model"]


def test_what_each_model_cost_is_told_apart_by_its_prices() -> None:
    def of(**options: Any) -> Any:
        models: Any = {"model": _priced("cheap", "0.2", "0.1"), "switch_model": _priced("strong", "0.1", "0.4")}
        return improve("Say it.", score, **models, rounds=4, switch_after=1, prices=PRICES, **options)

    run = of()
    assert {name: each["usd"] for name, each in run.usage_by_model.items()} == {"model": 2.0, "switch_model": 20.0}
    assert run.usage["usd"] == 22.0
    capped = of(max_usd=5)
    assert (capped.stopped, capped.usage["usd"]) == ("usd", 12.0)


def test_a_model_without_a_price_is_refused_under_a_cap_of_dollars() -> None:
    options: Any = {"switch_after": 1, "max_usd": 1, "prices": {"cheap": PRICES["cheap"]}}
    with pytest.raises(ValueError, match="strong"):
        create_icrl(_openai("cheap"), score, switch_model=_openai("strong"), **options)


def test_the_stream_and_the_result_tell_the_switch() -> None:
    models = _models(["0.2", "0.1"], ["0.1"])
    graph = create_icrl(models.pop("model"), score, **models, rounds=3, switch_after=1).compile()
    events = list(graph.stream(TASK, stream_mode="custom"))
    told = [(each["type"], each.get("switched"), each.get("model")) for each in events if each["type"] != "response"]
    assert told[:2] == [("round", None, None), ("episode", None, "model")]
    assert told[4:6] == [("round", 2, None), ("episode", 2, "switch_model")]
    run = improve("Say it.", score, **_models(["0.2", "0.1"], ["0.1"]), rounds=3, switch_after=1)
    assert "switched before round 3, as nothing had improved" in repr(run)


def test_a_preview_counts_the_dearer_model_from_the_earliest_switch_on() -> None:
    prices = {"cheap": {"input": 0.0, "output": 1.0}, "strong": {"input": 0.0, "output": 10.0}}
    options: Any = {"model": _openai("cheap"), "rounds": 4, "prices": prices, "response_tokens": 1000}
    alone = preview("Say it.", score, **options)
    both = preview("Say it.", score, **options, switch_after=2, switch_model=_openai("strong"))
    assert both["usd"] / alone["usd"] == pytest.approx((3 * 1 + 10) / 4)


def test_an_arm_of_a_comparison_switches(tmp_path: Any) -> None:
    arm = "icrl+switch_after=1+switch_model=learner:game24-strong"
    comparison = compare("game24", ["icrl", arm, "best_of_n"], limit=2, rounds=3, folder=tmp_path)
    assert not comparison.failures
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    models = {row["arm"]: [each.get("model") for each in row["episodes"]] for row in rows}
    assert models[arm] == ["model", "model", "switch_model"]
    assert models["icrl"] == [None] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"switch_after": 2}, "switch_after=2 needs what to switch to: switch_model, switch_memory or switch_schedule"),
        ({"switch_memory": "last:2"}, "switch_memory is what a run switches to: say by switch_after=K"),
        ({"switch_model": lambda: "1"}, "switch_model is what a run switches to"),
        ({"switch_after": 3, "switch_memory": "last:2", "patience": 2}, "patience=2 ends a run before switch_after=3"),
        ({"switch_after": 0, "switch_memory": "last:2"}, "switch_after=0: Input should be greater"),
        (
            {"switch_after": 2, "switch_memory": "lost"},
            "switch_memory='lost': unknown memory 'lost'",
        ),
        ({"switch_after": 2, "switch_model": "gpt"}, "^switch_model='gpt': a model is named 'provider:name'"),
    ],
)
def test_a_switch_that_does_not_fit_is_refused_when_the_graph_is_built(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_icrl(ScriptedModel(["1"]), score, **options)


def test_attempts_side_by_side_have_nothing_to_switch() -> None:
    with pytest.raises(ValueError, match="unknown argument 'switch_after'"):
        create_best_of_n(ScriptedModel(["1"]), score, switch_after=2)


def test_a_printed_result_tells_which_model_wrote_what() -> None:
    result = improve("task", score, model=lambda: "1", switch_model=lambda: "2", switch_after=1, rounds=3)
    assert [line.split() for line in repr(result).splitlines()[2:]] == [
        ["1", "explore", "model", "1", "1"],
        ["2", "exploit", "model", "1", "1"],
        ["3", "explore", "switch_model", "2", "2"],
    ]
