"""Users' code that would end Python: it fails like any other code, and only a person's stop is a stop."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from icrl_graph import aimprove, chat_model, improve
from icrl_graph.testing import OpenAIServer
from tests.command_line import icrl, process

WAYS = [improve, aimprove]


class Stop(BaseException):
    """As frameworks have them: `trio.Cancelled`, `pytest.fail.Exception`, `gevent.GreenletExit`."""


EXITS: list[Any] = [lambda: sys.exit(0), lambda: exec("import sys; sys.exit('enough')"), lambda: _raise(Stop("now"))]
GROUP = BaseExceptionGroup("several", [Stop("now"), ValueError("no")])
EXITS += [lambda: _raise(GROUP), lambda: _raise(GeneratorExit("gone"))]


def _raise(error: BaseException) -> Any:
    raise error


def _played(way: Any, score: Any, **options: Any) -> Any:
    with OpenAIServer(lambda: "42") as server:
        rounds = {} if "topology" in options else {"rounds": 3}
        options = {"model": chat_model("openai:any", base_url=server.base_url), **rounds, **options}
        played = way("Say 42.", score, **options)
        return asyncio.run(played) if asyncio.iscoroutine(played) else played


def _evaluators(leave: Any) -> dict[str, Any]:
    """An evaluator of each form that leaves in the second round."""
    rounds = iter(range(99))

    def function(response: str) -> float:
        return float(leave()) if next(rounds) == 1 else 1.0

    async def coroutine(response: str) -> float:
        return function(response)

    def flow(response: str) -> Any:
        yield from ()
        return function(response)

    return {
        "function": function,
        "coroutine": coroutine,
        "flow": flow,
        "runnable": RunnableLambda(lambda given: function("")),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("leave", EXITS)
@pytest.mark.parametrize("form", ["function", "coroutine", "flow", "runnable"])
def test_an_evaluator_that_would_end_python_leaves_its_attempt_unscored(form: str, leave: Any, way: Any) -> None:
    result = _played(way, _evaluators(leave)[form])
    assert (result.rewards, result.stopped) == ([1.0, None, 1.0], "rounds")
    assert any(
        each in result.episodes[1]["reward"]["error"]
        for each in ("SystemExit: ", "Stop: now", "several", "GeneratorExit: gone")
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("leave", EXITS)
@pytest.mark.parametrize(
    "options", [{"rounds": 2}, {"rounds": 2, "max_seconds": 60}, {"topology": "best_of_n", "n": 2}]
)
def test_a_model_that_would_end_python_loses_its_attempt(options: Any, leave: Any, way: Any) -> None:
    options = {"model": leave, **options}
    result = _played(way, lambda: 1.0, **options)
    assert result.rewards == [None, None]
    assert all("RuntimeError: " in episode["error"] for episode in result.episodes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", ["memory", "schedule", "extract", "on_episode"])
def test_other_parts_that_would_end_python_are_errors_with_their_reason(part: str, way: Any) -> None:
    def leave(*_: Any) -> Any:
        sys.exit(0)

    if part == "extract":
        assert "SystemExit: 0" in _played(way, lambda: 1.0, extract=leave).episodes[0]["error"]
        return
    with pytest.raises(RuntimeError, match="SystemExit: 0"):
        _played(way, lambda: 1.0, **{part: leave})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["score", "model", "on_episode"])
def test_a_ctrl_c_still_stops_a_run(where: str, way: Any) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    given: Any = {where: interrupted if where != "on_episode" else lambda event: interrupted()}
    with pytest.raises(KeyboardInterrupt):
        _played(way, given.pop("score", lambda: 1.0), **given)


def test_a_group_of_errors_with_a_ctrl_c_among_them_still_stops_a_run() -> None:
    with pytest.raises(BaseExceptionGroup):
        _played(improve, lambda: _raise(BaseExceptionGroup("", [KeyboardInterrupt(), Stop()])))


MINE = """
def score(response, task_data):
    exec(task_data.get("code", ""))
    return 1.0
"""


def test_a_comparison_in_which_code_exits_has_all_its_rows_and_says_so(here: Path) -> None:
    (here / "mine.py").write_text(MINE)
    exits = '{"task": "B", "task_data": {"code": "import sys; sys.exit(0)"}}'
    (here / "mine.jsonl").write_text(f'{{"task": "A"}}\n{exits}\n{{"task": "C"}}\n')
    with OpenAIServer(lambda: "42") as server:
        model = ("--model", "openai:any", "--base-url", server.base_url, "--evaluator", "mine.py:score")
        options = ("--topologies", "icrl", "--rounds", "2", "--concurrency", "1", "--out", "out")
        done = icrl("bench", "mine.jsonl", *model, *options)
    assert done.returncode == 1
    assert "1 runs have no score at all, such as icrl on 2: RuntimeError: SystemExit: 0" in done.stderr
    assert (here / "out" / "results.jsonl").read_bytes().count(b"\n") == 3


def test_a_command_whose_part_exits_does_not_end_with_success(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys\n\ndef memory(past):\n    sys.exit(0)\n\ndef score():\n    return 1.0\n"
    )
    with OpenAIServer(lambda: "42") as server:
        model = ("--model", "openai:any", "--base-url", server.base_url, "--evaluator", "mine.py:score")
        done = process("run", "Say 42.", *model, "--memory", "mine.py:memory", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "SystemExit: 0" in done.stderr
