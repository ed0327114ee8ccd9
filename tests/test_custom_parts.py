"""Custom methods, memories, schedules, layouts and ablations: by path, by entry point, or handed over."""

import asyncio
import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Send

from icrl_graph import FunctionModel, ModelError, aimprove, improve
from icrl_graph.preview import preview
from icrl_graph.prompts import layouts
from icrl_graph.state.choices import find
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies import Graph, send_attempts
from tests.helpers import GAME, climber, nearness, play, thread, without_cost
from tests.wide import create_wide

DUET = '''
from icrl_graph.topologies import Graph

def create_duet(model, evaluator, *, second=lambda: "50", rounds=8, **options):
    """Two models take turns."""
    graph = Graph(model, evaluator, models={"second": second}, rounds=rounds, **options)
    graph.add_generate("generate_second", model="second")
    graph.add_edge("prepare", "build_context")
    graph.add_route("build_context", whose_turn, ["generate", "generate_second"])
    graph.add_edge("generate", "evaluate")
    graph.add_edge("generate_second", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph

def whose_turn(state):
    return "generate" if state["episodes"][-1]["round"] % 2 == 0 else "generate_second"
'''
PARTS = """
def latest(past):
    return [len(past) - 1] if past else []

def ask(round, past):
    return f"Round {round + 1}, please."

def table(preamble, task, episodes, instruction, style):
    lines = [f"{each['response']}: {each['shown'].get('value')}" for each in episodes]
    return [*preamble, {"role": "user", "content": "\\n".join([*lines, task[0]["content"], instruction])}]

def doubled(reward, rng):
    return {"value": None if reward["value"] is None else 2 * reward["value"]}
"""


@pytest.fixture
def duet(tmp_path: Path) -> str:
    (tmp_path / "duet.py").write_text(DUET)
    return f"{tmp_path / 'duet.py'}:create_duet"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "parts.py").write_text(PARTS)
    return tmp_path / "parts.py"


def test_two_models_share_one_history_and_an_episode_says_which_of_them_wrote_it(duet: str) -> None:
    first, second = ScriptedModel(climber), ScriptedModel(["7", "8"])
    result = improve(**GAME, score=nearness, model=first, second=second, topology=duet, rounds=4)
    assert [episode["model"] for episode in result.episodes] == ["model", "second", "model", "second"]
    assert second.prompts[1][1]["content"] == "10"
    assert {"role": "assistant", "content": "7"} in first.prompts[1]


def test_what_a_model_costs_stands_under_the_node_that_asked_it(duet: str) -> None:
    result = improve(**GAME, score=nearness, model=climber, topology=duet, rounds=2)
    assert [list(episode["costs"]) for episode in result.episodes] == [
        ["generate", "evaluate"],
        ["generate_second", "evaluate"],
    ]
    assert result.usage["calls"] == 2


def test_context_replaces_one_of_several_models_by_its_name(duet: str) -> None:
    namespace: dict[str, Any] = {}
    exec(DUET, namespace)
    graph = namespace["create_duet"](ScriptedModel(["1", "2"]), nearness, second=ScriptedModel(["3", "4"]), rounds=2)
    compiled = graph.compile(checkpointer=InMemorySaver())
    task: Any = {"task": "Find the hidden color. #123"}
    with pytest.raises(ValueError, match="unknown learner 'chess'"):
        compiled.invoke(task, thread(), context={"model": {"second": "learner:chess"}})
    with pytest.raises(ValueError, match="unknown model 'third'; choose one of 'model', 'second'"):
        compiled.invoke(task, thread(), context={"model": {"third": "learner:game24"}})
    puzzle: Any = {"task": "x", "task_data": {"secret": 4}}
    with pytest.raises(
        ValueError, match="this player knows Game of 24 only"
    ):  # the learner is asked, and does not know this task
        compiled.invoke(puzzle, thread("2"), context={"model": {"second": "learner:game24"}})


def test_a_graph_says_which_models_it_has() -> None:
    graph = Graph(climber, nearness, models={"second": climber})
    with pytest.raises(ValueError, match="unknown model 'third'; the graph has 'model', 'second'"):
        graph.add_generate("generate_third", model="third")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_several_attempts_a_round_see_the_rounds_before_and_not_each_other(way: str) -> None:
    model = ScriptedModel(climber)
    graph = create_wide(model, nearness, rounds=3).compile()
    state = graph.invoke(GAME) if way == "invoke" else asyncio.run(graph.ainvoke(GAME))
    assert state["rounds_done"] == 3
    assert state["usage"]["calls"] == 9
    assert [len(prompt) for prompt in model.prompts] == [1, 1, 1, 7, 7, 7, 13, 13, 13]


def test_a_budget_of_calls_makes_the_last_round_of_several_attempts_narrower() -> None:
    output, episodes = play(create_wide(climber, nearness, rounds=3, max_calls=5))
    assert [episode["round"] for episode in episodes] == [0, 0, 0, 1, 1]
    assert (output["stopped"], output["usage"]["calls"]) == ("calls", 5)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("fails_at", [1, 4, 5, 9])
def test_a_round_of_several_attempts_that_broke_off_is_resumed_and_pays_only_what_was_in_flight_twice(
    way: str, fails_at: int
) -> None:
    asked: list[Any] = []

    def reply(messages: Any) -> str:
        asked.append(messages)
        if len(asked) == fails_at:
            raise ModelError("the key has expired")
        return str(len(messages))

    graph = create_wide(FunctionModel(reply=reply), nearness, rounds=3).compile(checkpointer=InMemorySaver())

    def run(inputs: Any) -> Any:
        if way == "invoke":
            return graph.invoke(inputs, thread(), durability="sync")
        return asyncio.run(graph.ainvoke(inputs, thread(), durability="sync"))

    with pytest.raises(ModelError):
        run(GAME)
    run(None)
    whole = play(create_wide(lambda messages: str(len(messages)), nearness, rounds=3))[1]
    assert without_cost(graph.get_state(thread()).values["episodes"]) == without_cost(whole)
    assert 10 <= len(asked) <= 12  # what was in flight beside the failed call may be asked again


@pytest.mark.parametrize(
    ("sent", "lacks"),
    [
        (lambda state: {"episodes": [{"round": 0, "candidate": 0}]}, "inputs, settings"),
        (lambda state: {**state, "episodes": [{"round": 0, "candidate": 0}]}, "a plan in its latest episode"),
        (lambda state: {**state, "episodes": []}, "episodes"),
    ],
)
def test_a_fan_out_that_sends_too_little_says_what_is_missing(sent: Any, lacks: str) -> None:
    graph = Graph(climber, nearness)
    graph.add_edge("prepare", "build_context")
    graph.add_route("build_context", lambda state: [Send("generate", sent(dict(state)))], ["generate"])
    graph.add_edge("generate", "evaluate")
    graph.add_edge("evaluate", "select")
    with pytest.raises(ValueError, match=f"lacks {lacks}.*send_attempts"):
        graph.compile().invoke(GAME)


def test_send_attempts_sends_each_open_attempt_with_the_rounds_before() -> None:
    episodes: Any = [{"round": 0, "candidate": 0}, {"round": 1, "candidate": 0}, {"round": 1, "candidate": 1}]
    sends = send_attempts({"inputs": {}, "settings": {}, "episodes": episodes}, "generate")
    assert [send.arg["episodes"] for send in sends] == [[episodes[0], episodes[1]], [episodes[0], episodes[2]]]


def test_memory_schedule_layout_and_ablation_are_named_by_path(parts: Path) -> None:
    model = ScriptedModel(["1", "2", "3"])
    named: Any = {"memory": "latest", "schedule": "ask", "layout": "table", "show": "doubled"}
    options: Any = {kind: f"{parts}:{name}" for kind, name in named.items()}
    improve(**GAME, score=nearness, model=model, rounds=3, **options)
    assert model.prompts[2] == [{"role": "user", "content": "2: 1.2\nFind the number.\nRound 3, please."}]


def test_a_run_with_a_memory_by_path_is_resumed(parts: Path, tmp_path: Path) -> None:
    run: Any = {**GAME, "score": nearness, "model": climber, "path": tmp_path / "run.sqlite"}
    first = improve(**run, rounds=2, memory=f"{parts}:latest")
    longer = improve(**run, rounds=3, memory=f"{parts}:latest")
    assert longer.episodes[:2] == first.episodes
    assert longer.episodes[2]["plan"]["shown"] == [[1, 2]]


@pytest.mark.parametrize(("kind", "name"), [("memory", "latest"), ("schedule", "ask"), ("show", "doubled")])
def test_a_context_names_the_custom_parts_of_its_graph_and_imports_no_others(parts: Path, kind: str, name: str) -> None:
    spec: Any = {kind: f"{parts}:{name}"}
    play(create_wide(climber, nearness, rounds=2, **spec), context=spec)
    with pytest.raises(ValueError, match="a run imports no code: name the custom .* where the graph is built"):
        play(create_wide(climber, nearness, rounds=2), context=spec)


@pytest.mark.parametrize("kind", ["topology", "memory", "schedule", "layout", "ablation"])
def test_a_name_that_is_wrong_is_refused_with_the_choices(kind: str, tmp_path: Path) -> None:
    option: Any = {"ablation": "show"}.get(kind, kind)
    for spec, reason in {
        "chess": f"unknown {kind} 'chess'; choose one of .*path.py:name or module:name",
        f"{tmp_path}/no.py:part": "can't be loaded: FileNotFoundError",
        "no_such_module:part": "can't be loaded: ModuleNotFoundError",
        f"{__file__}:nothing": "has no 'nothing'; it has",
    }.items():
        with pytest.raises(ValueError, match=reason):
            improve("x", nearness, model=climber, **{option: spec})  # type: ignore[arg-type]


def test_a_topology_that_does_not_return_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("def create(model, evaluator, **options):\n    return None\nnumber = 3\n")
    with pytest.raises(ValueError, match=r"must return an icrl_graph.topologies.Graph, got None"):
        improve("x", nearness, model=climber, topology=f"{tmp_path}/wrong.py:create")
    with pytest.raises(ValueError, match="a topology is a function that returns a Graph, got 3"):
        improve("x", nearness, model=climber, topology=f"{tmp_path}/wrong.py:number")


def test_an_installed_package_brings_parts_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_parts.py").write_text(PARTS)
    info = tmp_path / "their_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[icrl_graph.memories]\nnewest = their_parts:latest\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    result = improve(**GAME, score=nearness, model=climber, rounds=3, memory="newest")
    assert result.episodes[2]["plan"]["shown"] == [[1, 2]]
    with pytest.raises(ValueError, match="unknown memory 'newer'; choose one of all, .*, newest, with N"):
        improve("x", nearness, model=climber, memory="newer")


def test_a_file_is_imported_once_and_again_after_it_has_changed(parts: Path) -> None:
    first: Any = find("memory", f"{parts}:latest", {})
    again: Any = find("memory", f"{parts}:latest", {})
    assert again is first
    os.utime(parts, ns=(0, 0))
    changed: Any = find("memory", f"{parts}:latest", {})
    assert changed is not first


@pytest.mark.parametrize("edges", [[], [("prepare", "build_context")], [("build_context", "select")]])
def test_a_method_without_a_way_to_its_answer_is_refused_when_it_is_compiled(edges: list[tuple[str, str]]) -> None:
    graph = Graph(climber, nearness)
    for start, end in edges:
        graph.add_edge(start, end)
    with pytest.raises(ValueError, match="no way leads from prepare to select"):
        graph.compile()


def test_a_method_whose_argument_has_no_default_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "duet.py").write_text(DUET.replace('second=lambda: "50"', "second"))
    topology: Any = f"{tmp_path}/duet.py:create_duet"
    with pytest.raises(ValueError, match="missing a required.*'second'; give its further arguments defaults"):
        improve("x", nearness, model=climber, topology=topology)


def test_a_further_model_is_named_by_path(duet: str, tmp_path: Path) -> None:
    (tmp_path / "players.py").write_text("def fifty():\n    return '50'\n")
    second = f"{tmp_path}/players.py:fifty"
    result = improve(**GAME, score=nearness, model=climber, second=second, topology=duet, rounds=2)
    assert result.episodes[1]["response"] == "50"


@pytest.mark.parametrize(
    ("kind", "part", "error"),
    [
        ("memory", lambda past: None, "the memory must return the indices"),
        ("memory", lambda past: [0.5], "the memory must return the indices"),
        ("schedule", lambda round, past: 3, "the schedule must return the name of an instruction or a text, got 3"),
        ("layout", lambda *given: "text", "the layout must return a list of chat messages, got 'text'"),
    ],
)
def test_what_a_custom_part_returns_is_checked_and_the_part_named(kind: str, part: Any, error: str) -> None:
    options: Any = {kind: part}
    with pytest.raises(ValueError, match=error):
        improve(**GAME, score=nearness, model=climber, rounds=2, **options)


@pytest.mark.parametrize("kind", ["memory", "schedule", "layout", "show"])
def test_a_part_that_is_not_a_function_is_refused_before_anything_is_saved(kind: str, tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("NUMBER = 3\n")
    options: Any = {kind: f"{tmp_path}/parts.py:NUMBER"}
    with pytest.raises(ValueError, match=f"{kind}='.*NUMBER' is a function, got 3"):
        improve("x", nearness, model=climber, path=tmp_path / "run.sqlite", **options)
    assert not (tmp_path / "run.sqlite").exists()


def test_a_preview_calls_none_of_several_models(duet: str) -> None:
    first, second = ScriptedModel(climber), ScriptedModel(["7"])
    usage = preview("x", nearness, model=first, second=second, topology=duet, rounds=4)
    assert usage["calls"] == 4
    assert first.prompts == second.prompts == []


def test_attempts_of_a_round_that_no_node_answers_end_the_run_with_an_error() -> None:
    graph = Graph(climber, nearness, width=3)
    graph.add_edge("prepare", "build_context")
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    with pytest.raises(ValueError, match="2 of the 3 attempts .* were sent to no node that answers them.*add_fan_out"):
        graph.compile().invoke(GAME)


def test_the_name_of_the_main_model_is_not_free_for_another() -> None:
    with pytest.raises(ValueError, match="'model' is that of the graph's own model"):
        Graph(climber, nearness, models={"model": climber})


def test_two_models_on_one_episode_are_both_counted() -> None:
    graph = Graph(climber, nearness, models={"second": lambda: "7"}, rounds=2)
    graph.add_generate("revise", model="second")
    graph.add_edge("prepare", "build_context")
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "revise")
    graph.add_edge("revise", "evaluate")
    graph.add_loop("evaluate", "build_context")
    output, episodes = play(graph)
    assert output["usage"]["calls"] == 4
    assert list(episodes[0]["costs"]) == ["generate", "revise", "evaluate"]


def test_a_saved_run_is_known_by_the_file_of_its_method(duet: str, tmp_path: Path, monkeypatch: Any) -> None:
    run: Any = {**GAME, "score": nearness, "model": climber, "rounds": 2, "path": tmp_path / "run.sqlite"}
    improve(**run, topology=duet)
    monkeypatch.chdir(tmp_path)
    again = improve(**run, topology="duet.py:create_duet")
    assert [episode["response"] for episode in again.episodes] == ["10", "50"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "duet.py").write_text(DUET.replace("50", "60"))
    monkeypatch.chdir(tmp_path / "other")
    other = improve(**run, topology="duet.py:create_duet")
    assert other.episodes[1]["response"] == "60"


def _vandal(episodes: Any) -> None:
    """Change all that can be reached."""
    for episode in episodes:
        for held in [*episode.values()]:
            if isinstance(held, dict):
                for inner in [*held.values()]:
                    if isinstance(inner, dict | list):
                        inner.clear()
                held.clear()
            elif isinstance(held, list):
                held.clear()
        episode["response"] = "forged"


def _memory(past: Any) -> list[int]:
    _vandal(past)
    return list(range(len(past)))


def _schedule(round: int, past: Any) -> str:
    _vandal(past)
    return "explore"


def _layout(preamble: Any, task: Any, episodes: Any, instruction: str, style: Any) -> Any:
    prompt = layouts.turns(preamble, task, episodes, instruction, style)
    copied = copy.deepcopy(prompt)
    _vandal(episodes)
    for message in [*preamble, *task]:
        message["content"] = "forged"
    return copied


def _show(reward: Any, rng: Any) -> Any:
    kept = dict(reward, steps=[*reward["steps"]])
    reward["steps"].clear()
    reward.clear()
    return kept


def _choose(episodes: Any) -> Any:
    top = max(episodes, key=lambda episode: episode["reward"]["value"])
    key = {name: top[name] for name in ("round", "candidate")}
    _vandal(episodes)
    return key


def _score(response: str, answer: Any, history: Any, task_data: Any) -> Any:
    value = len(answer["words"]) / 10
    answer["words"].clear()
    _vandal(history)
    task_data["list"].clear()
    return {"value": value, "steps": [value, 0.0], "feedback": "fine"}


def _extract(text: str) -> Any:
    return {"words": text.split()}


def _honest_layout(preamble: Any, task: Any, episodes: Any, instruction: str, style: Any) -> Any:
    return layouts.turns(preamble, task, episodes, instruction, style)


def _create(model: Any, evaluator: Any, *, choose: Any, **options: Any) -> Graph:
    graph = Graph(model, evaluator, choose=choose, **options)
    graph.add_edge("prepare", "build_context")
    graph.add_edge("build_context", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_loop("evaluate", "build_context")
    return graph


HONEST: dict[str, Any] = {
    "memory": lambda past: list(range(len(past))),
    "schedule": lambda round, past: "explore",
    "layout": _honest_layout,
    "show": lambda reward, rng: reward,
    "choose": lambda episodes: max(episodes, key=lambda episode: episode["reward"]["value"]),
}
VANDALS: dict[str, Any] = {
    "memory": _memory,
    "schedule": _schedule,
    "layout": _layout,
    "show": _show,
    "choose": _choose,
}


def _played(parts: Any, is_async: bool) -> Any:
    usage: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    model = ScriptedModel(["one", "one two three", "one two"], usage=usage)
    examples = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    options: Any = {"rounds": 3, "extract": _extract, "examples": examples, **parts}
    arguments: Any = {"model": model, "topology": _create, "task_data": {"list": [1]}, **options}
    task: Any = [{"role": "user", "content": "t"}]
    result = asyncio.run(aimprove(task, _score, **arguments)) if is_async else improve(task, _score, **arguments)
    spent = {name: amount for name, amount in result.usage.items() if name != "seconds"}
    return result.answer, result.reward, spent, without_cost(result.episodes), model.prompts


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", VANDALS)
def test_a_custom_part_that_changes_what_it_is_handed_changes_nothing(kind: str, is_async: bool) -> None:
    honest = _played(HONEST, is_async)
    vandalised = _played({**HONEST, kind: VANDALS[kind]}, is_async)
    assert honest[0] == {"words": ["one", "two", "three"]}
    assert vandalised == honest
