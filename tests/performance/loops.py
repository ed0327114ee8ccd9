"""Many tasks in one process, each a loop of rounds, in one of several set-ups; prints what it took as JSON.

    python -m tests.performance.loops SET_UP TASKS ROUNDS BASE_URL

Set-ups:
    ours            `create_icrl`, the package's own client, no checkpoints; garbage is collected as the runner does
    ours-best-of-n  `create_best_of_n`, its attempts side by side, without a saver
    ours-sqlite     the same with every round durable, each task in a file of its own
    ours-few-files  the same as the runner does it: the tasks in a few files
    ours-one-file   the same with one file for all, each task a thread of it
    bare            no graph: a plain loop over the package's own client, garbage collected as above
    naive           a graph as one writes it first: the prompt in the state, lists that grow, LangChain's default client
"""

from __future__ import annotations

import asyncio
import json
import operator
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import TypedDict

from icrl_graph import chat_model, create_best_of_n, create_icrl
from icrl_graph.api import aplay, check_inputs
from icrl_graph.benchmarks.scheduler import make_room, seldom_collecting
from icrl_graph.benchmarks.storage import SqliteStorage

Play = Callable[[int], Awaitable[Any]]
"""One task, from its first round to its last."""


async def reward(response: str) -> float:
    """Any will do."""
    return len(response) % 7 / 7


def task(number: int) -> str:
    """Each task is another one."""
    return f"Task {number}: " + "write a short text about a thing. " * 10


def bare(base_url: str, rounds: int, folder: Path) -> Play:
    """A plain loop over the package's own client."""
    model = chat_model("openai:local", base_url=base_url)

    async def play(number: int) -> None:
        prompt = [{"role": "user", "content": task(number)}]
        for _ in range(rounds):
            said = await model.ainvoke(prompt)
            outcome = f"Reward: {await reward(str(said.text)):.6g}"
            prompt += [{"role": "assistant", "content": str(said.text)}, {"role": "user", "content": outcome}]

    return play


def ours(base_url: str, rounds: int, folder: Path) -> Play:
    """The package's graph, without a saver."""
    model = chat_model("openai:local", base_url=base_url)
    graph: Any = create_icrl(model, reward, rounds=rounds).compile()
    return lambda number: graph.ainvoke({"task": task(number)}, {"recursion_limit": 10**6})


def ours_best_of_n(base_url: str, rounds: int, folder: Path) -> Play:
    """The package's Best-of-N, without a saver."""
    model = chat_model("openai:local", base_url=base_url)
    graph: Any = create_best_of_n(model, reward, n=rounds).compile()
    return lambda number: graph.ainvoke({"task": task(number)}, {"recursion_limit": 10**6})


def ours_kept(base_url: str, rounds: int, folder: Path) -> Play:
    """The package's graph, every round durable."""
    graph = create_icrl(chat_model("openai:local", base_url=base_url), reward, rounds=rounds)
    return lambda number: aplay(graph, check_inputs(task(number), None), folder / f"{number}.sqlite", "run")


def ours_in_few_files(base_url: str, rounds: int, folder: Path) -> Play:
    """The package's graph, every round durable, all tasks in a few files."""
    graph = create_icrl(chat_model("openai:local", base_url=base_url), reward, rounds=rounds)
    storage, opened = SqliteStorage(folder), list[Any]()

    async def play(number: int) -> None:
        if not opened:
            opened.append(storage.open())
            await opened[0].__aenter__()
        async with storage.drive(f"{number % 2**64:016x}") as thread:
            await aplay(graph, check_inputs(task(number), None), *thread)

    return play


def ours_in_one_file(base_url: str, rounds: int, folder: Path) -> Play:
    """The package's graph, every round durable, all tasks as threads of one file."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    graph = create_icrl(chat_model("openai:local", base_url=base_url), reward, rounds=rounds)
    compiled: list[Any] = []

    async def play(number: int) -> None:
        if not compiled:
            saver = AsyncSqliteSaver(await aiosqlite.connect(folder / "all.sqlite"))
            compiled.append(graph.compile(checkpointer=saver))
        config = {"configurable": {"thread_id": str(number)}, "recursion_limit": 10**6}
        await compiled[0].ainvoke({"task": task(number)}, config, durability="sync")

    return play


class _Naive(TypedDict):
    task: str
    prompt: list[dict[str, str]]
    responses: Annotated[list[str], operator.add]
    rewards: Annotated[list[float], operator.add]


def naive(base_url: str, rounds: int, folder: Path) -> Play:
    """A graph as one writes it first."""
    from langchain_openai import ChatOpenAI
    from langgraph.graph import END, START, StateGraph

    model = ChatOpenAI(model="local", base_url=base_url, api_key="none")  # type: ignore[arg-type]

    async def build_prompt(state: _Naive) -> dict[str, Any]:
        prompt = [{"role": "user", "content": state["task"]}]
        for response, given in zip(state["responses"], state["rewards"], strict=True):
            prompt += [{"role": "assistant", "content": response}, {"role": "user", "content": f"Reward: {given:.6g}"}]
        return {"prompt": prompt}

    async def generate(state: _Naive) -> dict[str, Any]:
        return {"responses": [str((await model.ainvoke(state["prompt"])).text)]}

    async def evaluate(state: _Naive) -> dict[str, Any]:
        return {"rewards": [await reward(state["responses"][-1])]}

    graph = StateGraph(_Naive)
    graph.add_node(build_prompt)
    graph.add_node(generate)
    graph.add_node(evaluate)
    graph.add_edge(START, "build_prompt")
    graph.add_edge("build_prompt", "generate")
    graph.add_edge("generate", "evaluate")
    graph.add_conditional_edges(
        "evaluate", lambda state: END if len(state["rewards"]) >= rounds else "build_prompt", [END, "build_prompt"]
    )
    compiled: Any = graph.compile()
    return lambda number: compiled.ainvoke(
        {"task": task(number), "responses": [], "rewards": []}, {"recursion_limit": 10**6}
    )


SET_UPS: dict[str, Callable[[str, int, Path], Play]] = {
    "ours": ours,
    "ours-best-of-n": ours_best_of_n,
    "ours-sqlite": ours_kept,
    "ours-few-files": ours_in_few_files,
    "ours-one-file": ours_in_one_file,
    "bare": bare,
    "naive": naive,
}


def _resident() -> int:
    """Bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _play(play: Play, tasks: int) -> tuple[float, float, int]:
    await play(-1)  # connections, imports and caches are not what is measured
    resident, cpu, wall = _resident(), time.process_time(), time.perf_counter()
    await asyncio.gather(*map(play, range(tasks)))
    return time.process_time() - cpu, time.perf_counter() - wall, _resident() - resident


def main(set_up: str, tasks: int, rounds: int, base_url: str) -> None:
    """Play, and print CPU and wall seconds, and the bytes that memory has grown by."""
    make_room(tasks)
    with tempfile.TemporaryDirectory() as folder, nullcontext() if set_up == "naive" else seldom_collecting():
        play = SET_UPS[set_up](base_url, rounds, Path(folder))
        cpu, wall, grown = asyncio.run(_play(play, tasks))
    print(json.dumps({"cpu": cpu, "wall": wall, "grown": grown, "rounds": tasks * rounds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
