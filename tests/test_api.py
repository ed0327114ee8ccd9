"""`improve`, its async twin, and runs that are kept."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icrl_graph import aimprove, compare, improve
from icrl_graph.api import name_of
from icrl_graph.errors import ModelError, ThreadMismatch
from icrl_graph.execution.journal import MemoryJournal
from icrl_graph.testing import ScriptedModel
from tests.helpers import climber, digest, nearness, without_cost

TASK, DATA = "Find the number.", {"secret": 42}


def test_improve_gives_the_best_answer_and_every_attempt() -> None:
    result = improve(TASK, nearness, model=climber, task_data=DATA, rounds=3)
    assert (result.answer, result.reward, result.metric, result.stopped) == ("42", 1.0, 1.0, "rounds")
    assert result.rewards[:2] == [pytest.approx(0.68), 1.0]
    assert result.usage["calls"] == 3


def test_a_result_reads_well() -> None:
    model = ScriptedModel(["10", RuntimeError("down"), "4\n2 " + "x" * 200])
    shown = repr(improve(TASK, lambda response: len(response), model=model, rounds=3)).splitlines()
    assert shown[0].startswith("Result(reward 204 (oracle), stopped: rounds, 3 calls")
    assert shown[2] == "    1 explore           2  10"
    assert "unscored  ! RuntimeError: down" in shown[3]
    assert len(shown[4]) < 110


def test_every_topology_can_be_asked_for_by_name() -> None:
    assert len(improve(TASK, nearness, model=climber, task_data=DATA, topology="best_of_n", n=3).episodes) == 3
    with pytest.raises(ValueError, match="unknown topology 'beam'.*icrl, reflexion, self_refine, best_of_n"):
        improve(TASK, nearness, model=climber, topology="beam")


def test_the_async_twin_gives_the_same() -> None:
    async def both() -> Any:
        return await asyncio.gather(
            *(aimprove(TASK, nearness, model=digest, task_data=DATA, rounds=4) for _ in range(2)),
        )

    first, second = asyncio.run(both())
    alone = improve(TASK, nearness, model=digest, task_data=DATA, rounds=4)
    assert without_cost(first.episodes) == without_cost(second.episodes) == without_cost(alone.episodes)


def test_improve_works_where_an_event_loop_runs() -> None:
    async def notebook() -> Any:
        return improve(TASK, nearness, model=climber, task_data=DATA, rounds=2)

    assert asyncio.run(notebook()).reward == 1.0


HANGING = """
import asyncio, threading
from icrl_graph import aimprove; from icrl_graph import improve

def score():
    threading.Event().wait()

async def score_later():
    await asyncio.Event().wait()

for hanging in (score, score_later):
    given = {"score": hanging, "model": lambda: "a", "rounds": 1, "timeout": 0.05}
    print(%s.rewards)
"""


@pytest.mark.parametrize("call", ["improve('x', **given)", "asyncio.run(aimprove('x', **given))"])
def test_an_evaluator_that_hangs_does_not_keep_the_process_alive(call: str) -> None:
    command = [sys.executable, "-c", HANGING % call]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[None]\n" * 2


def test_episodes_are_told_as_they_come() -> None:
    told: list[Any] = []
    improve(TASK, nearness, model=climber, task_data=DATA, rounds=2, on_episode=told.append)
    asyncio.run(aimprove(TASK, nearness, model=climber, task_data=DATA, rounds=2, on_episode=told.append))
    assert [event["response"] for event in told] == ["10", "42"] * 2


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_kept_run_that_failed_goes_on_where_it_stopped(how: str, tmp_path: Path) -> None:
    replies: list[Any] = ["10", "20", ModelError("no key"), "30", "40"]
    model = ScriptedModel(replies)

    def run() -> Any:
        given: Any = {"model": model, "task_data": DATA, "rounds": 4, "path": tmp_path / "deep" / "run.sqlite"}
        return improve(TASK, nearness, **given) if how == "sync" else asyncio.run(aimprove(TASK, nearness, **given))

    with pytest.raises(ModelError) as failure:
        run()
    assert any("run.sqlite" in note for note in failure.value.__notes__)
    result = run()
    assert [episode["response"] for episode in result.episodes] == ["10", "20", "30", "40"]
    assert len(model.prompts) == 5
    assert run().episodes == result.episodes  # it has ended: nothing more is asked
    assert len(model.prompts) == 5


def test_one_file_keeps_many_runs(tmp_path: Path) -> None:
    for secret in (42, 20):
        result = improve(TASK, nearness, model=climber, task_data={"secret": secret}, path=tmp_path / "all.sqlite")
        assert result.answer == str(secret)
    named = improve(TASK, nearness, model=climber, task_data=DATA, path=tmp_path / "all.sqlite", thread_id="mine")
    assert named.usage["calls"] == 8


def test_another_task_under_the_same_name_is_refused(tmp_path: Path) -> None:
    kept: Any = {"model": climber, "path": tmp_path / "run.sqlite", "thread_id": "t"}
    improve(TASK, nearness, task_data=DATA, **kept)
    with pytest.raises(ThreadMismatch, match="another task"):
        improve("Find another number.", nearness, task_data=DATA, **kept)


def test_other_settings_under_the_same_name_are_refused_and_named(tmp_path: Path) -> None:
    kept: Any = {"model": climber, "path": tmp_path / "run.sqlite", "task_data": DATA}
    improve(TASK, nearness, rounds=2, **kept)
    with pytest.raises(ThreadMismatch, match="rounds 2 -> 1"):
        improve(TASK, nearness, rounds=1, **kept)
    with pytest.raises(ThreadMismatch, match="evaluator .*nearness.* -> .*lambda"):
        improve(TASK, lambda response: 1.0, rounds=2, **kept)
    with pytest.raises(ThreadMismatch, match="model .*climber.* -> .*digest"):
        improve(TASK, nearness, rounds=2, **{**kept, "model": digest})
    with pytest.raises(ThreadMismatch, match="n None -> 2"):
        improve(
            TASK,
            nearness,
            topology="best_of_n",
            n=2,
            **kept,
            thread_id=name_of("icrl", {"task": TASK, "task_data": DATA}),
        )


def test_a_run_that_stopped_for_its_models_name_goes_on_with_another(tmp_path: Path) -> None:
    kept: Any = {"path": tmp_path / "run.sqlite", "task_data": DATA, "rounds": 2}
    with pytest.raises(ModelError):
        improve(TASK, nearness, model=ScriptedModel([ModelError("no such model")]), **kept)
    for _ in range(2):
        assert improve(TASK, nearness, model=climber, **kept).reward == 1.0
    with pytest.raises(ThreadMismatch, match="model"):
        improve(TASK, nearness, model=digest, **kept)


@pytest.mark.parametrize("options", [{"rounds": 2}, {"topology": "best_of_n", "n": 2}])
def test_a_run_without_any_response_is_not_a_result_to_keep(options: Any, tmp_path: Path) -> None:
    kept: Any = {"path": tmp_path / "run.sqlite", "task_data": DATA, **options}
    model = ScriptedModel([RuntimeError("down")] * 2 + ["10"] * 4)
    assert improve(TASK, nearness, model=model, **kept).stopped == "failures"
    assert improve(TASK, nearness, model=model, **kept).answer == "10"


def test_rounds_lost_to_a_dead_model_do_not_count_as_a_plateau(tmp_path: Path) -> None:
    kept: Any = {"path": tmp_path / "run.sqlite", "task_data": DATA, "rounds": 6, "patience": 3, "max_failures": 2}
    model = ScriptedModel(["42", *[RuntimeError("down")] * 2, *["10"] * 5])
    assert improve(TASK, nearness, model=model, **kept).stopped == "failures"
    result = improve(TASK, nearness, model=model, **kept)
    assert (result.stopped, len(result.episodes)) == ("plateau", 6)


def test_a_kept_run_is_not_gone_on_with_without_its_metric(tmp_path: Path) -> None:
    kept: Any = {"path": tmp_path / "run.sqlite", "task_data": DATA, "rounds": 2, "model": climber}
    improve(TASK, nearness, metric=lambda: 1.0, **kept)
    with pytest.raises(ThreadMismatch, match="metric .*lambda.* -> None"):
        improve(TASK, nearness, **kept)


def test_a_run_that_gave_up_on_its_model_goes_on_and_loses_no_round(tmp_path: Path) -> None:
    replies: list[Any] = ["10", *[RuntimeError("down")] * 6, "20", "30"]
    kept: Any = {"model": ScriptedModel(replies), "path": tmp_path / "run.sqlite", "task_data": DATA, "rounds": 3}
    seen = []
    for _ in range(5):
        result = improve(TASK, nearness, max_failures=2, **kept)
        seen.append((result.stopped, len(result.episodes)))
    assert seen == [("failures", 3), ("failures", 5), ("failures", 7), ("rounds", 9), ("rounds", 9)]
    assert [e["response"] for e in result.episodes if "response" in e] == ["10", "20", "30"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": float("nan")}, r"task_data\['a'\]"),
        ({"a": [1, {2: 3}]}, r"task_data\['a'\]\[1\]"),
        ({"a": object()}, r"task_data\['a'\]"),
        ({"a": 2**70}, "64 bits"),
        (3, "task_data must be a mapping"),
    ],
)
def test_task_data_that_could_not_be_stored_is_refused_where_it_is(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        improve(TASK, nearness, model=climber, task_data=data)


def test_task_data_is_the_same_after_it_was_stored(tmp_path: Path) -> None:
    data = {"pair": (1, 2), "secret": 42, "deep": {"x": [None, True, 0.5]}}
    for _ in range(2):
        result = improve(TASK, nearness, model=climber, task_data=data, path=tmp_path / "run.sqlite")
    assert result.reward == 1.0


def test_a_task_of_messages_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    task = [{"role": "user", "content": "Find it."}]
    model = ScriptedModel(digest)
    for _ in range(2):
        result = improve(task, nearness, model=model, task_data=DATA, rounds=3, path=tmp_path / "run.sqlite")
    assert not any("error" in episode for episode in result.episodes)
    assert len(model.prompts) == 3


def test_a_journal_of_ones_own_is_used(tmp_path: Path) -> None:
    journal = MemoryJournal()
    improve(TASK, nearness, model=climber, task_data=DATA, rounds=2, journal=journal)
    assert len(journal._replies) == 2


def test_a_file_that_is_no_database_is_an_error_not_an_empty_run(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    path.write_text("not a database, and long enough to be looked at as one" * 10)
    with pytest.raises(ValueError, match=r"run\.sqlite is a file of another kind"):
        improve(TASK, nearness, model=climber, task_data=DATA, path=path)


def test_a_run_that_an_older_version_kept_is_refused_with_both_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> Any:
        return improve(TASK, nearness, model=climber, task_data=DATA, rounds=2, path=tmp_path / "run.sqlite")

    for part in ("prepare", "parts"):
        monkeypatch.setattr(f"icrl_graph.topologies.nodes.{part}.SCHEMA_VERSION", 1)
    kept()
    monkeypatch.undo()
    with pytest.raises(ThreadMismatch, match="schema version 1, this version of icrl_graph reads 3"):
        kept()


@pytest.mark.parametrize("path", ["mysql://me:secret@host/runs", "sqlite:///run.sqlite", "https://x/y", "s3://a"])
@pytest.mark.parametrize("way", ["sync", "async", "Path"])
def test_an_address_is_no_path_and_what_to_do_instead_is_told(way: str, path: str, here: Path) -> None:
    given: Any = {"model": lambda: "42", "path": Path(path) if way == "Path" else path}
    with pytest.raises(ValueError, match="postgresql://.*got an address") as raised:
        asyncio.run(aimprove("x", lambda: 1.0, **given)) if way == "async" else improve("x", lambda: 1.0, **given)
    assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="is saved in a folder"):
        compare("hidden-color", "icrl", folder=path)
    assert list(here.iterdir()) == []


def test_a_folder_is_no_file_to_save_a_run_in(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path is a file for SQLite.* got the folder"):
        improve("x", lambda: 1.0, model=lambda: "42", path=tmp_path)


def test_an_empty_path_is_refused_before_anything_is_paid() -> None:
    """SQLite takes it for a file that it deletes at the end."""
    model = ScriptedModel(["42"])
    with pytest.raises(ValueError, match="path is a file for SQLite.* got an empty text"):
        improve("x", lambda: 1.0, model=model, path="")
    assert model.prompts == []


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_run_that_was_stopped_before_its_first_step_had_ended_begins_anew(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call() -> Any:
        given: Any = {"model": lambda: "42", "rounds": 1, "path": tmp_path / "run.sqlite", "task_data": {"secret": 42}}
        if way == "sync":
            return improve("Find the number.", nearness, **given)
        return asyncio.run(aimprove("Find the number.", nearness, **given))

    def stop(*given: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("icrl_graph.topologies.nodes.prepare.resolve", stop)
        with pytest.raises(KeyboardInterrupt):
            call()
    assert (tmp_path / "run.sqlite").exists()
    assert call().reward == 1.0
