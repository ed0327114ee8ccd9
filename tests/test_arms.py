"""Methods and tasks as they are written: how they are read, and the errors of mistakes."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from icrl_graph.benchmarks.arms import controls_of, read_arm, read_arms
from icrl_graph.benchmarks.benchmark import from_file
from icrl_graph.benchmarks.experiment import prepare
from icrl_graph.benchmarks.mathematics import MATHEMATICS
from icrl_graph.benchmarks.registry import BENCHMARKS, find_benchmark
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.unicode import cleaned
from icrl_graph.topologies.methods import TOPOLOGIES, build
from tests.bench_child import plan_of

PLAYER = f"{Path(__file__).parent / 'bench_child.py'}:player"
SCORE = "icrl_graph.tasks.writing.verifier:endings"
CHAIN: Any = RunnableLambda(lambda messages: "not a chat model")


def settings_of(arm: str, **fields: Any) -> Any:
    """The settings of the graph of an arm."""
    comparison = prepare(plan_of(arm, model=PLAYER, **fields))
    return comparison.graphs[arm].context_schema().model_dump()  # type: ignore[misc]


def test_an_arm_is_a_topology_with_what_is_other_about_it() -> None:
    arm = settings_of("icrl+show=zero+memory=last:5", rounds=6)
    assert (arm["show"], arm["memory"], arm["rounds"]) == ("zero", "last:5", 6)
    assert {name: arm[name] for name in ("layout", "schedule")} == {"layout": "turns", "schedule": "preset"}


def test_rounds_are_attempts_side_by_side_for_best_of_n_and_an_arm_may_have_its_own() -> None:
    assert settings_of("best_of_n", rounds=6)["n"] == 6
    assert settings_of("best_of_n+n=1+schedule=cot", rounds=6).items() >= {"n": 1, "schedule": "cot"}.items()
    assert settings_of("icrl+rounds=2", rounds=6)["rounds"] == 2


def test_an_arm_with_wide_rounds_has_as_many_attempts_as_the_others() -> None:
    assert settings_of("icrl+width=2+spread=differ", rounds=6).items() >= {"rounds": 3, "width": 2}.items()
    assert settings_of("icrl+width=4", rounds=6)["rounds"] == 2
    assert settings_of("icrl+width=2+rounds=5", rounds=6)["rounds"] == 5
    assert settings_of("reflexion", rounds=6, options={"width": 3})["rounds"] == 2
    assert settings_of("best_of_n", rounds=6, options={"width": 3})["n"] == 6


@pytest.mark.parametrize("wrong", ["0", "two"])
def test_a_wrong_width_of_an_arm_is_told(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"the arm 'icrl.width={wrong}': .*width"):
        settings_of(f"icrl+width={wrong}")


def test_a_target_is_of_all_arms_but_those_that_can_not_stop_early() -> None:
    asked = {"target": 1.0, "patience": 2, "max_calls": 9}
    assert settings_of("reflexion", options=asked).items() >= asked.items()
    assert settings_of("best_of_n", options=asked)["max_calls"] == 9


@pytest.mark.parametrize(
    ("arm", "common", "asked"), [("icrl", 0.5, 0.5), ("icrl+temperature=0", 0.5, 0.0), ("icrl", None, None)]
)
def test_the_temperature_of_an_arm_goes_before_that_of_all(arm: str, common: Any, asked: Any) -> None:
    comparison = prepare(plan_of(arm, model=PLAYER, temperature=common))
    assert comparison.graphs[arm].parts.sampling.get("default", {}).get("temperature") == asked


@pytest.mark.parametrize("option", ["show_attempts=true", "show_attempts=false"])
def test_a_truth_value_is_read(option: str) -> None:
    arm = f"reflexion+{option}"
    comparison = prepare(plan_of(arm, model=PLAYER))
    assert ("response" in comparison.graphs[arm].parts.shows) == option.endswith("true")


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("tree", ["tree", *TOPOLOGIES]),
        ("icrl+", ["'icrl+'", "NAME=VALUE", "''"]),
        ("icrl+memory", ["'icrl+memory'", "NAME=VALUE", "'memory'"]),
        ("icrl+memory=", ["'icrl+memory='", "NAME=VALUE"]),
        ("icrl+=all", ["'icrl+=all'", "NAME=VALUE"]),
        ("icrl+memory=all+memory=none", ["'icrl+memory=all+memory=none'", "memory twice"]),
        ("icrl+colour=red", ["'icrl+colour=red'", "'colour'", "memory, schedule"]),
        ("icrl+memory=some", ["'icrl+memory=some'", "'some'", "last:N"]),
        ("icrl+show=lies", ["'icrl+show=lies'", "'lies'", "zero"]),
        ("icrl+schedule=later", ["'icrl+schedule=later'", "'later'", "preset"]),
        ("icrl+rounds=many", ["'icrl+rounds=many'", "rounds='many'"]),
        ("icrl+rounds=0", ["'icrl+rounds=0'", "rounds='0'"]),
        ("best_of_n+show=zero", ["'best_of_n+show=zero'", "'show'", "schedule"]),
        ("best_of_n+select=luck", ["'best_of_n+select=luck'", "'luck'", "majority"]),
        ("self_refine+memory=best:3", ["'self_refine+memory=best:3'", "best:3", "last:N"]),
        ("reflexion+show_attempts=yes", ["'reflexion+show_attempts=yes'", "true or false", "'yes'"]),
        ("icrl+temperature=hot", ["'icrl+temperature=hot'", "temperature", "number", "'hot'"]),
        ("icrl+model=other", ["'icrl+model=other'", "'other'", "provider:name"]),
        ("icrl+model=learner:chess", ["'icrl+model=learner:chess'", "'chess'", "game24-weak"]),
        ("icrl+topology=best_of_n", ["'icrl+topology=best_of_n'", "topology"]),
        ("icrl+evaluator=mine.py:score", ["'icrl+evaluator=mine.py:score'", "evaluator"]),
        ("icrl+seed=3", ["'icrl+seed=3'", "seed"]),
    ],
)
def test_a_mistake_in_an_arm_is_an_error_with_the_arm_the_value_and_the_choices(arm: str, message: list[str]) -> None:
    with pytest.raises(ValueError) as wrong:
        prepare(plan_of("reflexion", arm, model=PLAYER))
    assert not [word for word in message if word not in str(wrong.value)], wrong.value


def test_duplicate_arms_and_none_are_errors() -> None:
    assert [arm.name for arm in read_arms(" icrl, best_of_n,")] == ["icrl", "best_of_n"]
    with pytest.raises(ValueError, match="duplicate arm: icrl"):
        read_arms("icrl,best_of_n, icrl")
    with pytest.raises(ValueError, match="at least one topology"):
        read_arms(" , ")


def test_shuffled_rewards_are_those_of_the_same_arm_and_refused_without_it() -> None:
    arm = read_arm("icrl+show=shuffled+memory=last:2")
    assert arm.draws_from == "icrl+memory=last:2"
    assert read_arm("icrl+show=zero").draws_from is None
    read_arms("icrl+show=shuffled,icrl")
    with pytest.raises(ValueError, match=r"'icrl\+show=shuffled\+memory=last:2'.*'icrl\+memory=last:2': add that one"):
        read_arms("icrl,icrl+show=shuffled+memory=last:2")
    with pytest.raises(ValueError, match="add that one"):
        prepare(plan_of("best_of_n", "icrl+show=shuffled", model=PLAYER))


def test_an_arm_may_have_another_model() -> None:
    """Which plays with the seeds of the others, and whose rewards may be shown shuffled."""
    weak = "icrl+model=learner:game24-weak"
    comparison = prepare(plan_of("icrl", weak, f"{weak}+show=shuffled", model=PLAYER))
    names = {arm: comparison.policies[arm] for arm in comparison.arms}
    assert names["icrl"] is not names[weak]
    assert names[weak] is names[f"{weak}+show=shuffled"]
    assert name_of_part(names[weak]) == "learner:game24-weak"
    assert comparison.arms[f"{weak}+show=shuffled"].draws_from == weak


def _actors(*arms: str) -> Any:
    """By arm of a comparison in ScienceWorld, its graph and whether it thinks aloud."""
    comparison = prepare(plan_of(*arms, benchmark="scienceworld", model=PLAYER, options={"warmup": 2}))
    return {name: (graph, comparison.arms[name].thoughts) for name, graph in comparison.graphs.items()}


def test_react_is_one_episode_that_is_thought_through_and_any_method_may_think_so() -> None:
    found = _actors("icrl", "icrl+thoughts=true", "react", "react+n=4")
    assert [thinks for _, thinks in found.values()] == [False, True, True, True]
    assert [found[name][0].settings().n for name in ("react", "react+n=4")] == [1, 4]


def test_rounds_that_see_no_history_are_icrls_alone() -> None:
    found = _actors("icrl", "reflexion", "self_refine", "best_of_n", "react")
    warmups = [getattr(graph.settings(), "warmup", None) for graph, _ in found.values()]
    assert warmups == [2, 0, 0, None, None]


def test_thoughts_are_refused_where_there_are_no_actions() -> None:
    with pytest.raises(ValueError, match=r"'react': thoughts .* game24 has none"):
        prepare(plan_of("icrl", "react", model=PLAYER))


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (["melt:3"], ["melt:3"]),
        (
            ["find-*thing:0", "find-living-thing:0", "boil:1"],
            ["find-living-thing:0", "find-non-living-thing:0", "boil:1"],
        ),
        ([], None),
    ],
)
def test_single_tasks_are_chosen_by_name_or_pattern_each_once(asked: list[str], chosen: Any) -> None:
    benchmark = find_benchmark("scienceworld")
    assert benchmark.choose(asked) == (benchmark.items() if chosen is None else chosen)


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    names = ("a1", "a[1]", "whats", "what?")
    benchmark = tasks_in(tmp_path, *(json.dumps({"task": name, "id": name}) for name in names))
    assert benchmark.choose(["a[1]", "what?"]) == ["a[1]", "what?"]


@pytest.mark.parametrize("wrong", ["smelt:0", "find-plant", "smelt*"])
def test_an_unknown_task_is_an_error(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"task|written like|named like"):
        find_benchmark("scienceworld").choose(["melt:3", wrong])


@pytest.mark.parametrize("name", [*(name for name in BENCHMARKS if name not in MATHEMATICS), "hidden_color"])
def test_a_benchmark_has_tasks_of_different_names_that_can_all_be_read(name: str) -> None:
    if name == "abstracts" and not os.environ.get("CI"):
        pytest.importorskip("rouge_score", reason="needs rouge-score: pip install 'icrl-graph[abstracts]'")
    benchmark = find_benchmark(name)
    items = benchmark.items()
    assert len(set(items)) == len(items) >= {"scienceworld": 29, "abstracts": 12}.get(name, 100)
    assert all(benchmark.read(item)["task"] for item in items)


def test_an_unknown_benchmark_is_an_error_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'chess'.*hidden-color, game24, writing.*\.jsonl"):
        find_benchmark("chess")


# --------------------------------------------------------------------------------------------------- tasks of your own

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, st.integers(0, 9))), min_size=1, max_size=5), st.booleans())
def test_custom_tasks_are_read_as_they_were_written_but_for_what_no_text_may_hold(tasks: Any, escaped: bool) -> None:
    lines = [json.dumps({"task": task, "task_data": data}, ensure_ascii=escaped) for task, data in tasks]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        benchmark = from_file(path)
    assert [benchmark.read(item) for item in benchmark.items()] == [
        {"task": cleaned(task), "task_data": cleaned(data)} for task, data in tasks
    ]


def tasks_in(folder: Path, *lines: str) -> Any:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return find_benchmark(str(path))


def test_tasks_are_known_by_their_id_else_by_their_line(tmp_path: Path) -> None:
    benchmark = tasks_in(tmp_path, '{"task": "a", "id": "first"}', "", '{"task": "b"}', '{"task": "c", "id": 7}')
    assert benchmark.items() == ["first", "3", "7"]
    assert benchmark.read("3") == {"task": "b", "task_data": {}}
    assert benchmark.solved_at is None
    with pytest.raises(ValueError, match="has no task 'second'"):
        benchmark.read("second")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("3", "no task"),
        ('{"prompt": "a"}', "no task"),
        ('{"task": "a", "reference": "b", "hint": "c"}', "unknown hint, reference"),
        ('{"task": "a", "id": "1"}', "duplicate id '1'"),
        ('{"task": ""}', "task"),
        ('{"task": 3}', "task"),
        ('{"task": "a", "task_data": "b"}', "task_data"),
        ('{"task": "a", "task_data": {"x": NaN}}', "task_data"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number_before_anything_is_paid(
    line: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"task": "a"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"(?s)mine\.jsonl, line 3\b.*{message}"):
        prepare(plan_of("icrl", benchmark=str(path), model=PLAYER, evaluator=SCORE))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tasks_are_read_in_any_unicode_and_with_any_ends_of_lines(encoding: str, end: str, tmp_path: Path) -> None:
    lines = ['{"task": "A \u2028 mañana", "id": "one"}', '{"task": "b"}']
    (tmp_path / "mine.jsonl").write_bytes(end.join(lines).encode(encoding))
    benchmark = find_benchmark(str(tmp_path / "mine.jsonl"))
    assert [benchmark.read(name)["task"] for name in benchmark.items()] == ["A \u2028 mañana", "b"]


def test_a_file_of_tasks_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded, loads = tmp_path / "mine.jsonl", list[str](), json.loads

    def counted(text: str, **options: Any) -> Any:
        decoded.append(text)
        return loads(text, **options)

    path.write_text('{"task": "a"}\n')
    monkeypatch.setattr("icrl_graph.benchmarks.benchmark.json.loads", counted)
    for _ in range(2):
        prepare(plan_of("icrl", benchmark=str(path), model=PLAYER, evaluator=SCORE))
    assert decoded.count('{"task": "a"}') == 1
    path.write_text('{"task": "a"}\n{"task": "b"}\n')
    assert find_benchmark(str(path)).items() == ["1", "2"]


@pytest.mark.parametrize(("content", "message"), [(b"", "has no tasks"), (b"\n \n", "has no tasks"), (b"\xff", "mine")])
def test_a_file_without_tasks_is_an_error_with_its_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_benchmark(str(tmp_path / "mine.jsonl"))
    with pytest.raises(ValueError, match=r"tasks.* can't be read.*there\.jsonl"):
        find_benchmark(str(tmp_path / "there.jsonl"))


def test_custom_tasks_need_an_evaluator_or_a_judge_with_a_rubric(tmp_path: Path) -> None:
    tasks_in(tmp_path, '{"task": "a"}')
    mine: Any = {"benchmark": str(tmp_path / "mine.jsonl"), "model": PLAYER}
    with pytest.raises(ValueError, match="has no evaluator of its own: name one"):
        prepare(plan_of("icrl", **mine))
    with pytest.raises(ValueError, match="no rubric of its own"):
        prepare(plan_of("icrl", judge=PLAYER, **mine))
    with pytest.raises(ValueError, match="name the judge"):
        prepare(plan_of("icrl", rubric="Good?", **mine))
    with pytest.raises(ValueError, match="one of the two"):
        prepare(plan_of("icrl", judge=PLAYER, evaluator=PLAYER, **mine))
    assert prepare(plan_of("icrl", judge=PLAYER, rubric="Good?", **mine)).items() == ["1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "limit must be 1 or more, got 0"),
        ({"rounds": -1}, "rounds must be 1 or more, got -1"),
        ({"seeds": 0}, "seeds must be 1 or more"),
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"requests_per_minute": 0}, "requests_per_minute must be above 0"),
        ({"tokens_per_minute": -3}, "tokens_per_minute must be above 0"),
        ({"attempts": 0}, "attempts must be above 0"),
        ({"options": {"max_calls": -1}}, "max_calls=-1"),
        ({"options": {"max_dollars": 1}}, "'max_dollars'"),
        ({"temperature": 0.5, "model": f"{Path(__file__)}:CHAIN"}, "chat models only"),
        ({"evaluator": "json:no_such"}, "no 'no_such'"),
        ({"metric": "no_such_module:x"}, "can't be loaded"),
    ],
)
def test_a_wrong_number_or_name_in_a_plan_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(plan_of("icrl", **{"model": PLAYER, **wrong}))


def test_an_arm_takes_any_setting_that_is_a_number() -> None:
    """As the documentation of arms says: any option that takes a name or a number."""
    for option in ("retests=2", "warmup=1", "max_usd=0.5", "target=0.9", "timeout=20"):
        name, _, number = option.partition("=")
        arm = read_arm(f"icrl+{option}")
        graph = build(model=lambda: "", evaluator=lambda: 0.5, **arm.arguments(3, {"prices": {}}))
        assert graph.parts.schema().model_dump().get(name, arm.options[name]) == float(number)


def test_the_controls_of_an_arm_are_it_without_its_history_or_rewards_and_best_of_n_with_its_model() -> None:
    arms = ["icrl", "icrl+show=zero", "icrl+memory=none", "icrl+memory=last:1", "best_of_n", "best_of_n+model=a:b"]
    assert controls_of("icrl", arms) == ["icrl+show=zero", "icrl+memory=none", "best_of_n"]
    assert controls_of("icrl+model=a:b", [*arms, "icrl+show=constant:1+model=a:b"]) == [
        "best_of_n+model=a:b",
        "icrl+show=constant:1+model=a:b",
    ]
    assert controls_of("icrl+show=zero", arms) == controls_of("best_of_n", arms) == []


def test_a_set_of_arms_has_a_name() -> None:
    assert [arm.name for arm in read_arms("feedback")] == ["icrl", "icrl+show=no_feedback"]
    assert [arm.name for arm in read_arms("controls,reflexion")][-2:] == ["best_of_n", "reflexion"]
