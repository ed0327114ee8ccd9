"""ScienceWorld in real JVMs: it repeats itself, breaks in known ways, and leaves nothing behind.

Where Java is missing this is skipped, but for CI, where it fails. `--soak` plays the solutions of all 30 tasks.
"""

import asyncio
import gc
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.memory import InMemorySaver

from icrl_graph.environments import Outcome, replay
from icrl_graph.environments.java import SimulatorDied, call_java
from icrl_graph.environments.players import follow
from icrl_graph.environments.rollouts import episode_return, rollout
from icrl_graph.environments.scienceworld import (
    REFUSED,
    SIMPLIFICATIONS,
    TASKS,
    UNKNOWN,
    ScienceWorld,
    Simulator,
    Spec,
    actions,
    capacity,
    closest,
    describe,
    gold_path,
    instructions,
    nearest,
)
from icrl_graph.environments.scienceworld.matching import memoized
from icrl_graph.errors import ModelError, NoEpisode, SimulatorError, SimulatorUnavailable
from icrl_graph.topologies.methods import create_icrl
from tests import helpers

java = pytest.mark.skipif(
    not os.environ.get("CI") and (shutil.which("java") is None or find_spec("scienceworld") is None),
    reason="needs Java and the extra scienceworld",
)
EASY: Any = {"task": "find-living-thing", "variation": 0}
PACKAGE = "icrl_graph.environments.scienceworld"


class BagOfWords(Embeddings):
    """Tells which words a text has, but for those that say little; `asked` are the texts so far."""

    little = frozenset(("i", "would", "please", "me", "my", "over", "to", "the", "now", "on", "in", "into"))

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * 500
        for word in text.lower().split():
            vector[crc32(word.encode()) % 500] += word not in self.little
        return vector


@pytest.fixture(scope="module")
def environment() -> Iterator[ScienceWorld]:
    """One for all who need any, for each takes a JVM; it reads free text, and each test begins an episode."""
    made = ScienceWorld(max_actions=200, details=True, embeddings=BagOfWords())
    yield made
    asyncio.run(made.close())


def reset(environment: ScienceWorld, task_data: Any = EASY) -> Outcome:
    return asyncio.run(environment.reset(task_data))


def steps(environment: ScienceWorld, *actions: str) -> list[Outcome]:
    """What actions lead to, each in an event loop of its own."""
    return [asyncio.run(environment.step(action)) for action in actions]


ACTIONS = (
    *("look around", "wait1", "teleport to greenhouse", "teleport to outside", "teleport to kitchen", "open bee hive"),
    *("pick up {}", "open {}", "pour {} in {}", "use lighter on {}", "1", "0", "gibberish", "teleport to foundary"),
)


async def wandering(
    environment: ScienceWorld, task_data: Any, seed: int, length: int = 10, choices: Sequence[str] = ACTIONS
) -> list[Any]:
    """A random walk: its first observation, and each action with what it led to."""
    rng = random.Random(seed)
    seen: list[Any] = [await environment.reset(task_data)]
    objects: Sequence[str] = ["door"]
    for _ in range(length):
        action = rng.choice(choices).format(rng.choice(objects), rng.choice(objects))
        outcome = await environment.step(action)
        seen.append((action, outcome))
        objects = outcome.info["objects"]
        if outcome.done:
            break
    return seen


def stop(pid: int) -> None:
    """Have a child stand still; its threads go on until it has taken notice."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


def gone(pidfd: int) -> bool:
    """Whether a process ends, at last."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        return bool(poll.poll(60_000))
    finally:
        os.close(pidfd)


# ------------------------------------------------------------------------------------------------------- without Java


def test_there_are_thirty_tasks_with_three_splits() -> None:
    assert len(TASKS) == 30
    assert sum(len(task.variations()) for task in TASKS.values()) == 7207
    assert [len(TASKS["boil"].variations(split)) for split in ("train", "dev", "test")] == [14, 7, 9]
    assert TASKS["boil"].variations("test") == range(21, 30)
    with pytest.raises(ValueError, match="split must be one of train, dev, test; got 'tset'"):
        TASKS["boil"].variations("tset")  # type: ignore[arg-type]


BAD: list[tuple[Any, str]] = [
    ({}, "must have a task, one of boil, "),
    ({"task": "boyl"}, "task must be one of boil, .*got 'boyl'"),
    ({"task": None}, "task must be one of boil, .*got None"),
    ({"task": "boil", "variaton": 1}, "must be one of task, variation, simplification; got 'variaton'"),
    *(({"task": "boil", "variation": v}, "from 0 to 29, got ") for v in (30, -1, "3", 1.0, True, None)),
    ({"task": "boil", "simplification": "esay"}, "one of teleportAction, .*got 'esay'"),
    ({"task": "boil", "simplification": "easy,openDoors"}, "got 'easy'"),
    ({"task": "boil", "simplification": "openDoors, teleportAction"}, "got ' teleportAction'"),
    ({"task": "boil", "simplification": ["easy"]}, "must be a text, got"),
    ({"task": "test-conductivity", "simplification": "noElectricalAction"}, "needs electricity"),
]


@pytest.mark.parametrize(("task_data", "message"), BAD)
def test_a_wrong_episode_is_refused_before_java_starts(task_data: Any, message: str) -> None:
    environment = ScienceWorld(java="no-such-java")
    with pytest.raises(ValueError, match=message):
        reset(environment, task_data)
    asyncio.run(environment.close())


@pytest.mark.parametrize(
    "options",
    [
        *({"max_actions": 0}, {"max_actions": True}, {"failure": "x"}, {"similarity": 0}, {"patience": 0}),
        *({"closeness": wrong} for wrong in (-0.1, 1, 80, float("nan"))),
        {"embeddings": "openai:text-embedding-3-small"},
    ],
)
def test_a_wrong_option_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        ScienceWorld(**options)


OBJECTS = ("red apple", "metal pot", "stove", "door to kitchen", "kitchen", "stove top")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Pick up the red aple.", "pick up red apple"),
        ("**open the door to kitchn**", "open door to kitchen"),
        ("go to the kichen", "go to kitchen"),
        ("move metal pott to the stove", "move metal pot to stove"),
        ("put metal pot on stove top!", "put metal pot on stove top"),
        ("teleport to the foundary", "teleport to foundry"),
        ("look arond", "look around"),
        ("activate the stov", "activate stove"),
        ("deactivate the stov", "deactivate stove"),
        ("focus on metal pot.", "focus on metal pot"),
        ("focus on metal pott", None),
        ("pick up the zebra", None),
        ("I would like to think about this first", None),
        ("", None),
        ("x" * 5000, None),
    ],
)
def test_a_misspelled_action_is_matched_but_never_what_to_focus_on(text: str, meant: str | None) -> None:
    assert nearest(text, OBJECTS, 0.85) == meant


VALID = ("look at apple", "focus on metal pot", "teleport to kitchen", "pick up metal pot", "wait")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("please teleport me over to the kitchen now", "teleport to kitchen"),
        ("**Please pick up my metal pot.**", "pick up metal pot"),
        ("I would focus on the metal pot", None),
        ("teleport over to a secret kitchen", None),  # not close enough
        ("sing a song", None),
        ("over to me", None),
        (" ... ", None),
        ("x" * 5000, None),
    ],
)
def test_a_free_text_is_matched_by_meaning_but_never_what_to_focus_on(text: str, meant: str | None) -> None:
    assert closest(text, VALID, BagOfWords().embed_documents, 0.8) == meant
    assert closest(text, (), BagOfWords().embed_documents, 0.8) is None


def test_a_text_must_be_closer_than_the_threshold() -> None:
    embed = {"one": [3.0, 4.0], "other": [4.0, 3.0], "orthogonal": [4.0, -3.0]}
    for threshold, meant in ((0.95, "other"), (0.96, None)):
        assert closest("one", ["orthogonal", "other"], lambda texts: [*map(embed.get, texts)], threshold) == meant


def test_a_text_is_embedded_once_and_the_latest_stay_in_the_cache() -> None:
    words = BagOfWords()
    embed = memoized(words.embed_documents, limit=2)
    for texts, new in (("abab", "ab"), ("ba", ""), ("ca", "c"), ("a", ""), ("b", "b"), ("abcd", "cd"), ("", "")):
        words.asked.clear()
        assert [[*vector] for vector in embed([*texts])] == [words.embed_query(text) for text in texts]
        assert words.asked == [*new]
    with pytest.raises(ValueError, match="shorter"):
        memoized(lambda texts: [])(["a"])


def test_instructions_list_the_actions_that_there_are_and_warn_of_focus() -> None:
    easy, plain = instructions("boil"), instructions("boil", "", description="Boil it.")
    assert "- teleport OBJ:" in easy
    assert "connect OBJ" not in easy
    assert "- connect OBJ to OBJ:" in plain
    assert "teleport" not in plain
    assert "connect OBJ" in instructions("test-conductivity")
    assert plain.endswith("wrong focus fails the task at once.\n\nBoil it.")
    assert "reset" not in plain
    with pytest.raises(ValueError, match="task must be one of"):
        instructions("boyl")


FAKES = {
    "broken": ("echo cannot; echo oops >&2; exit 3", "printed 'cannot'|broke off"),
    "absent": ("echo oops >&2; exit 3", "broke off. oops"),
    "killed": ("kill -9 $$", "broke off"),
    "silent": ("exec sleep 600", "printed nothing for 0.2 s"),
    "strange": ("echo hello; echo environment; exec sleep 600", "printed 'hello' instead of its port"),
    "closed": ("echo 1; echo secret; exec sleep 600", "broke off"),
}


@pytest.mark.parametrize("fake", FAKES)
def test_the_error_of_a_java_that_does_not_start_names_the_install_command(fake: str, tmp_path: Path) -> None:
    pytest.importorskip("scienceworld")
    script, message = FAKES[fake]
    command = tmp_path / "java"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    environment = ScienceWorld(java=str(command), patience=0.2 if fake == "silent" else 60)
    with pytest.raises(SimulatorUnavailable, match=rf"(?s)({message}).*apt-get install openjdk-17-jre-headless"):
        reset(environment)
    assert environment.pid is None
    with pytest.raises(NoEpisode):
        steps(environment, "wait")
    asyncio.run(environment.close())


def test_the_error_of_a_missing_java_names_the_install_command(tmp_path: Path) -> None:
    pytest.importorskip("scienceworld")
    (tmp_path / "java").write_text("no program")
    for name, message in (("no-such-java", "there is no 'no-such-java'"), (str(tmp_path / "java"), "there is no")):
        with pytest.raises(SimulatorUnavailable, match=f"{message}.*apt-get install openjdk-17-jre-headless"):
            reset(ScienceWorld(java=name))
    (tmp_path / "java").chmod(0o755)
    with pytest.raises(SimulatorUnavailable, match="can't be run"):
        reset(ScienceWorld(java=str(tmp_path / "java")))


def test_the_error_of_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scienceworld.constants", None)
    with pytest.raises(ImportError, match=r"icrl-graph\[scienceworld\]"):
        reset(ScienceWorld())


class FakeSimulator:
    """Says what an episode's task is; counts how often it was asked."""

    asked = 0

    def __init__(self, patience: float) -> None:
        self.jvm = type("FakeJVM", (), {"end": lambda _: None})()

    def connect(self) -> None:
        pass

    def load(self, spec: Spec, gold: bool) -> None:
        FakeSimulator.asked += 1

    def description(self) -> str:
        return "Your task is to boil it."


def test_the_cache_saves_descriptions_where_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scienceworld")
    monkeypatch.setattr(f"{PACKAGE}.offline.Simulator", FakeSimulator)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        assert describe("boil", 3) == "Your task is to boil it."
    assert FakeSimulator.asked == 1
    (cached,) = (tmp_path / "icrl-graph" / "scienceworld-1.2.3").iterdir()
    cached.write_text("{")
    assert describe("boil", 3) == "Your task is to boil it."
    monkeypatch.setenv("XDG_CACHE_HOME", str(cached))  # a file: nothing can be saved there
    assert describe("boil", 3) == "Your task is to boil it."
    assert FakeSimulator.asked == 3
    with pytest.raises(ValueError, match="from 0 to 29"):
        describe("boil", 30)


def test_as_many_simulators_run_as_there_are_processors_and_memory_for() -> None:
    assert 1 <= capacity() <= (os.cpu_count() or 1)


# ----------------------------------------------------------------------------------------------------------- with Java


@java
def test_the_tables_are_the_simulators(environment: ScienceWorld, request: pytest.FixtureRequest) -> None:
    few = ("boil", "grow-plant", "identify-life-stages-1", "inclined-plane-friction-unnamed-surfaces")
    inner: Any = environment

    def compare() -> None:
        simulator: Simulator = inner._simulator
        assert simulator.tasks() == {name: len(task.variations()) for name, task in TASKS.items()}
        for name in TASKS if request.config.getoption("--soak") else few:
            splits = [[*TASKS[name].variations(split)] for split in ("train", "dev", "test")]
            assert [*simulator.splits(name)] == splits
        for name, simplification in (("boil", "easy"), ("boil", ""), ("power-component", "easy")):
            spec = Spec(name, 0, simplification)
            simulator.load(spec)
            assert sorted([*actions(name, simplification), "reset task"]) == sorted(simulator.templates())
            assert simulator.simplified() == spec.simplifications()
        simulator.load(Spec("boil", 0, ",".join(SIMPLIFICATIONS)))
        assert simulator.simplified() == set(SIMPLIFICATIONS)

    reset(environment)
    asyncio.run(inner._run(compare))


@java
def test_environments_side_by_side_do_not_mix_and_unreferenced_ones_end(
    environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it matter what came before: each episode is repeated, by one of them alone and in another order."""
    monkeypatch.setattr(environment, "_embed", None)
    walks: Any = [("freeze", 25, 2), ("use-thermometer", 143, 4), ("freeze", 3, 1)]

    async def walk(environment: ScienceWorld, task: str, variation: int, seed: int) -> list[Any]:
        return await wandering(environment, {"task": task, "variation": variation}, seed, length=7)

    async def play() -> list[int]:
        pool = [*(ScienceWorld(max_actions=200, details=True) for _ in walks[1:]), environment]
        together = await asyncio.gather(*(walk(one, *start) for one, start in zip(pool, walks, strict=True)))
        alone = [await walk(environment, *start) for start in reversed(walks)]
        assert together == alone[::-1]
        assert any(UNKNOWN in outcome.observation for _, outcome in together[0][1:])
        return [os.pidfd_open(one.pid) for one in pool[:-1] if one.pid is not None]

    ended = asyncio.run(play())
    gc.collect()
    assert [gone(one) for one in ended] == [True] * 2


FREE = "please teleport me over to the kitchen now"


@java
def test_a_killed_simulator_is_replaced_and_the_episode_resumes(environment: ScienceWorld) -> None:
    """With embeddings, which have it draw random numbers: what is done again must draw them again."""
    task: Any = {"task": "freeze", "variation": 25}

    async def play() -> None:
        first, *rest = await wandering(environment, task, seed=6, length=8, choices=(FREE, "hum a song", *ACTIONS))
        pid = environment.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SimulatorDied):
            await environment.step("look around")
        with pytest.raises(NoEpisode, match="the simulator failed"):
            await environment.step("look around")
        seen = [first.observation, *(outcome.observation for _, outcome in rest[:4])]
        await replay(environment, task, seen, [action for action, _ in rest[:4]])
        assert environment.pid != pid
        assert [await environment.step(action) for action, _ in rest[4:]] == [outcome for _, outcome in rest[4:]]

    asyncio.run(play())


@java
def test_a_silent_simulator_times_out(environment: ScienceWorld) -> None:
    reset(environment)
    inner: Any = environment
    inner._simulator.jvm._connections[0].socket.settimeout(0.2)
    pid = environment.pid
    assert pid is not None
    ended = os.pidfd_open(pid)
    stop(pid)
    with pytest.raises(SimulatorDied, match="timed out"):
        steps(environment, "look around")
    assert gone(ended)


@java
def test_a_cancelled_action_ends_the_simulator_and_nothing_hangs(environment: ScienceWorld) -> None:
    reset(environment)
    pid = environment.pid
    assert pid is not None
    ended = os.pidfd_open(pid)
    stop(pid)

    async def play() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(environment.step("look around"), 0.1)
        with pytest.raises(NoEpisode, match="cut short|simulator failed"):
            await environment.step("look around")
        await environment.reset(EASY)

    asyncio.run(play())
    assert gone(ended)
    assert steps(environment, "look around")[0].observation.startswith("This room is called the hallway")


@java
def test_an_exception_within_the_simulator_is_not_a_failure_of_the_agent(environment: ScienceWorld) -> None:
    reset(environment)
    inner: Any = environment

    def break_it() -> None:
        inner._simulator._server.agentInterface().get().setErrorState("java.lang.IllegalStateException: oh")

    asyncio.run(inner._run(break_it))
    with pytest.raises(SimulatorError, match="failed at 'wait1': java.lang.IllegalStateException: oh") as caught:
        steps(environment, "wait1")
    assert not isinstance(caught.value, SimulatorDied)
    reset(environment)

    def provoke() -> None:
        call_java(inner._simulator._server.load, "boil", -1, "", False)

    with pytest.raises(SimulatorError, match="ArrayIndexOutOfBounds"):
        asyncio.run(inner._run(provoke))


@java
@pytest.mark.parametrize(("failure", "back"), [("penalty", -100), ("keep_best", 8), ("zero", 0)])
def test_a_wrong_focus_ends_an_episode(
    failure: Any, back: int, environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_failure", failure)
    reset(environment)
    outcomes = steps(environment, "teleport to outside", "focus on fountain")
    assert sum(outcome.reward for outcome in outcomes) == back
    last = outcomes[-1]
    assert (last.done, last.success, last.info["score"], last.info["final"]) == (True, False, -100, 0)
    with pytest.raises(NoEpisode, match="the episode has ended; reset begins one"):
        steps(environment, "look around")


@java
def test_whatever_an_agent_says_is_answered(environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_max_actions", 12)
    reset(environment)
    for text in ("", "   ", "gibberish", "x" * 5000, "a\nb", "\x00", "\U0001f600", "\ud800", "\\n", "yes'; drop"):
        (outcome,) = steps(environment, text)
        assert outcome.observation == UNKNOWN
        assert outcome.hint.startswith("Objects here: agent, air, ")
        assert (outcome.reward, outcome.done, outcome.info["moves"]) == (0, False, 0)
    for wrong in (None, 123, b"wait"):
        with pytest.raises(TypeError, match="an action must be a text"):
            asyncio.run(environment.step(wrong))  # type: ignore[arg-type]
    (refused, last) = steps(environment, " Reset  the TASK ", "Teleport to the kitchn!")
    assert refused.observation == REFUSED
    assert last.info["action"] == "teleport to kitchen"
    assert last.observation == "You teleport to the kitchen."
    assert (last.done, last.success, last.info["actions"], last.info["moves"]) == (True, False, 12, 1)


@java
def test_a_free_text_is_taken_for_the_valid_action_that_says_the_same(
    environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = BagOfWords()
    monkeypatch.setattr(environment, "_embed", ScienceWorld(embeddings=words)._embed)
    texts = ("please focus on the picture", "sing a song", "...", "look arond", "now close my door to kitchen", FREE)
    done = (*texts[:3], "look around", "close door to kitchen", "teleport to kitchen")
    first = [reset(environment, {"task": "boil"}), *steps(environment, *texts)]
    asked = len(words.asked)
    assert tuple(outcome.info["action"] for outcome in first[1:]) == done
    unknown = [outcome.observation == UNKNOWN for outcome in first[1:]]
    assert unknown == [text == action for text, action in zip(texts, done, strict=True)]
    assert first[-1].observation == "You teleport to the kitchen."
    assert "reset task" not in words.asked
    assert len(set(words.asked)) == asked
    assert [reset(environment, {"task": "boil"}), *steps(environment, *texts)] == first
    assert len(words.asked) == asked
    monkeypatch.setattr(environment, "_similarity", None)
    monkeypatch.setattr(environment, "_show_valid", True)  # the list that is shown serves for this, too
    reset(environment, {"task": "boil"})
    assert [outcome.info["action"] for outcome in steps(environment, "look arond", FREE)] == ["look arond", done[-1]]
    monkeypatch.setattr(environment, "_embed", None)
    reset(environment, {"task": "boil"})
    assert steps(environment, FREE)[0].observation == UNKNOWN


@java
def test_embeddings_that_fail_end_the_run_which_can_be_resumed(
    environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(texts: list[str]) -> list[list[float]]:
        raise ConnectionError("down")

    policy = rollout(follow(["teleport to outside", FREE, "inventory"]), lambda: environment, max_steps=3)
    graph: Any = create_icrl(policy, episode_return, rounds=1).compile(checkpointer=InMemorySaver())
    with monkeypatch.context() as patch:
        patch.setattr(environment, "_embed", down)
        with pytest.raises(ModelError, match="the embeddings failed: ConnectionError: down"):
            graph.invoke({"task": "Do it.", "task_data": EASY}, helpers.thread())
    pid = environment.pid
    with pytest.raises(NoEpisode, match="the embeddings failed; reset begins one"):
        steps(environment, "look around")
    graph.invoke(None, helpers.thread())
    (episode,) = graph.get_state(helpers.thread()).values["episodes"]
    assert [step["action"] for step in episode["steps"]] == ["teleport to outside", FREE, "inventory"]
    assert episode["steps"][1]["observation"] == "You teleport to the kitchen."
    assert environment.pid == pid is not None


@java
def test_an_ambiguous_action_is_asked_back(environment: ScienceWorld) -> None:
    reset(environment, {"task": "use-thermometer", "variation": 143})
    *_, asked_back, chosen = steps(environment, "teleport to kitchen", "look at orange", "0")
    assert asked_back.observation.startswith("Ambiguous request: Please enter the number")
    assert chosen.observation == "an orange"


@java
def test_an_episode_comes_first(environment: ScienceWorld) -> None:
    fresh = ScienceWorld()
    with pytest.raises(NoEpisode, match="no episode has begun; reset begins one"):
        steps(fresh, "look around")
    for _ in range(2):
        asyncio.run(fresh.close())
    for act in (lambda: steps(fresh, "look around"), lambda: reset(fresh)):
        with pytest.raises(NoEpisode, match="closed"):
            act()
    reset(environment)
    with pytest.raises(ValueError, match="task must be"):  # the episode goes on
        reset(environment, {"task": "x"})
    steps(environment, "look around")
    assert environment.pid is not None


@java
def test_only_the_environments_thread_calls_java_and_each_call_may_fail(
    environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call outside of `call_java` would raise an error of py4j's if Java died just then."""
    inner: Any = environment
    reset(environment)
    names, plain = set(), call_java
    inside, outside = [], []
    (connection,) = inner._simulator.jvm._connections
    send = connection.send_command

    def watched(*args: Any) -> Any:
        names.add(threading.current_thread().name)
        inside.append(args)
        try:
            return plain(*args)
        finally:
            inside.pop()

    def sent(command: str) -> Any:
        outside.extend([] if inside else [command])
        return send(command)

    monkeypatch.setattr(f"{PACKAGE}.simulator.call_java", watched)
    monkeypatch.setattr(connection, "send_command", sent)
    reset(environment)
    steps(environment, "look around", "hum a song")
    assert names == {"scienceworld"}
    assert outside == []
    monkeypatch.setattr(environment, "_owner", -1)
    with pytest.raises(NoEpisode, match="fork"):
        reset(environment)


@java
def test_valid_actions_are_shown_on_demand_and_a_simulator_is_replaced_after_its_episodes(
    environment: ScienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset(environment)
    pid = environment.pid
    monkeypatch.setattr(f"{PACKAGE}.environment.EPISODES", 1)
    monkeypatch.setattr(environment, "_show_valid", True)
    first = reset(environment)
    assert environment.pid not in (pid, None)
    assert "\nValid actions: " in first.hint
    (outcome,) = steps(environment, "look around")
    assert "go to door to kitchen" in outcome.info["valid"] or "go to kitchen" in outcome.info["valid"]
    assert "reset task" not in outcome.info["valid"]


CHILD = """
import asyncio, sys
from icrl_graph.environments.scienceworld import ScienceWorld
from tests.ctrl_c import heed_ctrl_c
heed_ctrl_c()
environment = ScienceWorld()
asyncio.run(environment.reset({"task": "boil"}))
print(environment.pid, flush=True)
sys.exit(sys.stdin.readline())
"""


@java
def test_no_simulator_outlives_its_python() -> None:
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with ExitStack() as stack:  # side by side
        children: dict[str, Any] = {
            end: stack.enter_context(subprocess.Popen([sys.executable, "-c", CHILD], **pipes))
            for end in ("SIGKILL", "SIGINT", "exit")
        }
        for end, child in children.items():
            ended = os.pidfd_open(int(child.stdout.readline()))
            child.communicate("\n") if end == "exit" else child.send_signal(signal.Signals[end])
            assert (end, gone(ended)) == (end, True)
            assert (end, child.wait(60)) != (end, 0)


@java
def test_the_solution_earns_everything(
    environment: ScienceWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    solution = gold_path("power-component")
    monkeypatch.setattr(f"{PACKAGE}.offline.Simulator", None)  # from now on only the cache knows
    assert gold_path("power-component") == solution
    outcomes = solved(environment, {"task": "power-component"}, solution)
    assert (outcomes[-1].done, outcomes[-1].success, outcomes[-1].info["final"]) == (True, True, 100)
    assert sum(outcome.reward for outcome in outcomes) == 100


def solved(environment: ScienceWorld, task_data: Any, solution: Sequence[str]) -> list[Outcome]:
    """What a solution leads to, until it is done."""
    reset(environment, task_data)
    outcomes = []
    for action in solution:
        outcomes += steps(environment, action)
        if outcomes[-1].done:
            break
    return outcomes


@java
@pytest.mark.parametrize("task", TASKS)
def test_each_solution_earns_everything_in_two_simulators_alike(task: str, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--soak"):
        pytest.skip("takes minutes: pytest tests/test_scienceworld.py --soak")
    played = []
    solution = gold_path(task)
    for _ in range(2):
        environment = ScienceWorld(max_actions=1000)
        played.append(solved(environment, {"task": task}, solution))
        asyncio.run(environment.close())
    assert played[0] == played[1]
    assert played[0][-1].info["final"] == 100
