"""Evaluators in processes of their own: real workers that die, hang, eat memory, and never outlive anybody."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from icrl_graph import create_best_of_n, create_icrl, improve, llm_judge
from icrl_graph.evaluators.evaluator import bind_evaluator
from icrl_graph.evaluators.isolation import LimitReached, isolated
from icrl_graph.state.choices import name_of_part
from icrl_graph.state.events import is_episode
from icrl_graph.state.loading import load
from icrl_graph.testing import ScriptedModel
from tests.helpers import play
from tests.verdicts import Judge, later, verdict, writes_itself

BAD = {
    "exit": "the evaluator's process died: exit code 7",
    "crash": "the evaluator's process died: killed by SIGSEGV",
    "leave": "the evaluator's process died: exit code 1",
    "hang": "TimeoutError: nothing came back within 0.5 s",
    "eat": "the evaluator's process died: out of memory",
    "raise": "KeyError: 'of its own'",
    "quit": "SystemExit: enough",
    "object": "a reward must be a number",
    "nan": "a reward must be finite",
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    made: Any = isolated(verdict, timeout=0.5, workers=2)
    yield made
    made.part.close()


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("bad", BAD)
def test_whatever_a_verifier_does_costs_its_attempt_and_nothing_else(bad: str, way: str, judge: Any) -> None:
    graph = create_icrl(ScriptedModel(["fine", bad, "fine"]), judge, rounds=3).compile()
    streamed = list(graph.stream({"task": "x"}, stream_mode="custom")) if way == "invoke" else asyncio.run(_all(graph))
    events = list(filter(is_episode, streamed))
    assert [event["reward"] for event in events] == [1.0, None, 1.0]
    assert BAD[bad] in events[1]["error"]


async def _all(graph: Any) -> list[Any]:
    return [event async for event in graph.astream({"task": "x"}, stream_mode="custom")]


def test_a_supervisor_that_terminates_all_processes_at_once_costs_no_evaluation(judge: Any) -> None:
    assert judge(response="terminated", task_data={})["value"] == 1.0


def test_a_worker_serves_one_evaluation_after_another_and_is_replaced_when_it_died(judge: Any) -> None:
    first, second = _pid(judge), _pid(judge)
    assert first == second
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # it is dead, and nobody has looked at it yet
    assert _pid(judge) != first


def _pid(judge: Any) -> int:
    return int(judge(response="fine", task_data={})["feedback"])


def test_an_evaluator_that_forks_answers_once(judge: Any) -> None:
    first = _pid(judge)
    assert judge(response="fork", task_data={})["feedback"] == str(first)
    assert _pid(judge) == first


FORKED = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from icrl_graph.evaluators.isolation import isolated

def score(response):
    print("printed", flush=True)
    return {"value": float(response), "feedback": str(os.getpid())}

judge = isolated(score, workers=1)

def wrong(start):
    return [i for i in range(start, start + 100) if judge(response=str(i))["value"] != i]

if __name__ == "__main__":
    sys.path.append(os.path)  # no path at all
    before = judge(response="1")
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        print(list(pool.map(wrong, [1000, 2000])))
    if (child := os.fork()) == 0:
        sys.exit()  # unlike those of a pool, it runs what is to be run at the end
    os.waitpid(child, 0)
    isolated(score)
    print(judge(response="1") == before)
"""


def test_a_forked_process_has_workers_of_its_own_and_what_they_print_is_no_output() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert done.stdout == "[[], []]\nTrue\n"
    assert "printed" in done.stderr


def test_memory_is_limited() -> None:
    def big(response: str) -> float:
        return float(len(bytearray(int(response) * 2**20)) > 0)

    limited: Any = isolated(big, memory=256)
    assert limited(response="64")["value"] == 1.0
    with pytest.raises(ChildProcessError, match="out of memory"):
        limited(response="512")
    assert limited(response="64")["value"] == 1.0


def test_as_many_work_at_once_as_there_may_be(tmp_path: Path) -> None:
    fifos = [str(tmp_path / f"fifo{number}") for number in range(4)]
    for fifo in fifos:
        os.mkfifo(fifo)

    def meet(response: str) -> dict[str, Any]:
        path, mode = response.split()
        with open(path, mode):  # opens when the other side is opened, too
            return {"value": 1.0, "feedback": str(os.getpid())}

    pair: Any = isolated(meet, workers=2)
    with ThreadPoolExecutor(2) as pool:  # of each pair, both sides are at work at once
        given = list(
            pool.map(lambda asked: pair(response=asked), [f"{fifo} {mode}" for fifo in fifos for mode in "rw"])
        )
    assert all(reward["value"] == 1.0 for reward in given)
    assert len({reward["feedback"] for reward in given}) == 2


def test_many_runs_share_the_workers(judge: Any) -> None:
    async def many() -> Any:
        graph = create_icrl(lambda: "fine", judge, rounds=3).compile()
        return await asyncio.gather(*(graph.ainvoke({"task": "x"}) for _ in range(10)))

    assert all(out["reward"] == 1.0 for out in asyncio.run(many()))


@tool
def told(response: str) -> float:
    """Give 1 for fine."""
    return float(response == "fine")


@tool
async def told_later(response: str) -> float:
    """Give 1 for fine."""
    return float(response == "fine")


WANTED = "fine"
FORMS = {
    "a lambda": lambda response: float(response == WANTED),
    "a coroutine function": later,
    "an object": Judge("fine"),
    "a partial": functools.partial(lambda wanted, response: float(response == wanted), "fine"),
    "a tool": told,
    "an async tool": told_later,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_evaluator_gives_the_same_when_isolated(form: str) -> None:
    here, there = FORMS[form], isolated(FORMS[form])
    assert bind_evaluator(there).names == bind_evaluator(here).names
    rewards = [[e["reward"]["value"] for e in _episodes(score)] for score in (here, there)]
    assert rewards == [[1.0, 0.0], [1.0, 0.0]]


def _episodes(score: Any) -> Any:
    return play(create_icrl(ScriptedModel(["fine", "bad"]), score, rounds=2), {"task": "x"})[1]


class Named(Judge):
    name = "a judge of its own name"


def test_a_saved_run_may_be_resumed_with_its_evaluator_isolated() -> None:
    for score in (verdict, told, FORMS["an object"], FORMS["a partial"], Named("fine")):
        assert name_of_part(isolated(score)) == name_of_part(score)


def test_candidates_metrics_and_selectors_may_be_isolated(judge: Any) -> None:
    model = ScriptedModel(["fine", "exit"])
    out, episodes = play(create_best_of_n(model, lambda: 0.5, metric=judge, select=judge, n=2), {"task": "x"})
    assert out["answer"] == "fine"
    assert ["error" in episode["reward"] for episode in episodes] == [
        episode["response"] == "exit" for episode in episodes
    ]


MODULE = """
from icrl_graph.evaluators.isolation import isolated

def helper(text):
    return float(text == "fine")

def score(response):
    return helper(response)

score = isolated(score)
"""


@pytest.mark.parametrize("where", ["path", "module"])
def test_a_module_may_isolate_its_own_evaluator(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"own_evaluator_by_{where}.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    score = load(f"{path if where == 'path' else path.stem}:score")
    assert score(response="fine")["value"] == 1.0


def test_a_script_needs_no_guard_and_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{MODULE}\nprint('run', score(response='fine')['value'])")
    for command in ([str(script)], ["-c", script.read_text()]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("run 1.0\n", "")


def _with_a_lock() -> Any:
    lock = threading.Lock()

    def score(response: str) -> float:
        with lock:
            return 1.0

    return score


class Unloadable:
    def __call__(self, response: str) -> float:
        return 1.0

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Deadly(Unloadable):
    def __reduce__(self) -> Any:
        return os._exit, (3,)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (_with_a_lock(), "can't be copied.*lock.*opens its files, locks and connections itself"),
        (Unloadable(), "can't be loaded.*no number"),
        (Deadly(), "can't be loaded.*exit code 3"),
        (llm_judge(lambda: "1", "Is it good?"), "only a function or a tool"),
        (RunnableLambda(lambda given: 1.0), "only a function or a tool"),
        (lambda nonsense: 1.0, "'nonsense'"),
        ("score", "unknown evaluator 'score'; choose one of mathematics"),
    ],
)
def test_what_can_not_be_isolated_is_refused_at_once(evaluator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        isolated(evaluator)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"memory": -1}, {"workers": 0}])
def test_a_number_that_is_not_above_0_is_refused(wrong: Any) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        isolated(verdict, **wrong)


def test_workers_end_with_what_uses_them() -> None:
    pids = []
    for end in (lambda made: made.part.close(), lambda made: None):
        made: Any = isolated(verdict)
        pids.append(_pid(made))
        end(made)
        del made
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # not even a zombie
            os.kill(pid, 0)


CHILD = """
import sys
from icrl_graph import improve
from icrl_graph.evaluators.isolation import isolated
from tests.ctrl_c import accept_ctrl_c
from tests.verdicts import verdict

accept_ctrl_c()
fifo, response = sys.argv[1:]
improve("x", isolated(verdict, timeout=100000), model=lambda: response, rounds=1, task_data={"fifo": fifo})
"""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """What a worker and the process that it starts hold open as long as they are there."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def _gone(fifo: Path, end: Callable[[], Any]) -> bool:
    """Wait until somebody has opened it, end them, and wait until nobody is left who could write to it."""
    with open(fifo, "rb", buffering=0) as met:
        assert met.read(1) == b"!"
        end()
        return met.read(1) == b""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_however_a_run_is_ended_no_process_is_left(end: str, fifo: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(fifo), "child"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        assert _gone(fifo, lambda: child.send_signal(getattr(signal, end)))


def test_a_run_that_ends_by_itself_leaves_no_process(fifo: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(fifo), "background"]
    with subprocess.Popen(command) as child:
        assert _gone(fifo, lambda: None)
    assert child.returncode == 0


def test_a_worker_that_times_out_is_killed_with_what_it_has_started(fifo: Path) -> None:
    judge: Any = isolated(verdict, timeout=0.5)
    with ThreadPoolExecutor(1) as pool:
        given = pool.submit(judge, response="child", task_data={"fifo": str(fifo)})
        assert _gone(fifo, lambda: given.exception(timeout=60))
    assert isinstance(given.exception(), TimeoutError)


@pytest.mark.parametrize("written", ["half", "header", "trickle", "noise"])
def test_half_a_reply_costs_its_attempt_and_nothing_else(written: str) -> None:
    def score(response: str) -> float:
        return 1.0 if response == "fine" else writes_itself(response)

    result = improve("x", isolated(score, timeout=0.5, workers=1), model=ScriptedModel([written, "fine"]), rounds=2)
    assert result.rewards == [None, 1.0]


def test_the_processors_time_is_limited_also_within_native_code() -> None:
    limited: Any = isolated(verdict, cpu=0.2, timeout=100, workers=1)
    with pytest.raises(LimitReached, match="out of the processor's time"):
        limited(response="hang", task_data={})
    assert limited(response="fine", task_data={})["value"] == 1.0
