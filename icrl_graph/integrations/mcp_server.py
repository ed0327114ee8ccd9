"""A Model Context Protocol server, by which agents have tasks improved, answers judged and costs estimated.

    server("openai:gpt-4.1-mini", score, max_calls=64, path="runs.sqlite").run("stdio")

Needs the extra `mcp`. On the command line: `icrl mcp`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

import icrl_graph
from icrl_graph.api import aimprove, aplay, check_inputs
from icrl_graph.errors import IcrlError
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.preview import preview
from icrl_graph.prompts.text import number
from icrl_graph.state.episode import answer_text
from icrl_graph.topologies.methods import build, find_topology, size_option

_JUDGING = ("metric", "bounds", "timeout", "on_error", "prices", "rate_limit", "max_tokens", "max_usd", "max_seconds")
"""The options that judging an answer takes, too."""

Task = Annotated[str, Field(description="The whole task, with all that is needed to solve it: nothing else is seen.")]
TaskData = Annotated[
    dict[str, Any] | None,
    Field(description="For the evaluator alone, such as the right answer; the model does not see it."),
]
Rounds = Annotated[int | None, Field(ge=1, description="Attempts at most; default, and at most, the server's own.")]
MaxCalls = Annotated[
    int | None, Field(ge=1, description="Calls of models at most; default, and at most, the server's own.")
]


class Improved(BaseModel):
    """What a run came to."""

    answer: str = Field(description="The best answer; one that has a form, as JSON.")
    reward: float | None = Field(description="Its reward; null if no attempt has a score.")
    rewarded_by: str | None = Field(description="Whose reward that is: oracle, judged, self-judged or human.")
    stopped: str = Field(description="Why it ended, such as rounds, success, calls or failures.")
    rewards: list[float | None] = Field(description="The reward of each attempt; null if it has no score.")
    usage: dict[str, float] = Field(description="What it cost: calls, input and output tokens, usd, seconds.")


class Judged(BaseModel):
    """The reward of an answer."""

    value: float | None = Field(description="Null if it has no score; never taken to be 0.")
    feedback: str | None = None
    error: str | None = Field(default=None, description="Why it has no score.")


class Estimate(BaseModel):
    """What a run would cost at most."""

    usage: dict[str, float] = Field(description="Calls, and, as far as prices are known, tokens and usd.")


def server(
    model: Any,
    evaluator: Evaluator,
    *,
    topology: str = "icrl",
    path: str | PathLike[str] | None = None,
    name: str = "icrl",
    **options: Any,
) -> MCPServer:
    """A server with the tools `improve`, `judge` and `check`, to be run by its own `run`.

    Of a caller's limits and the server's own the lower ones hold. A call that is cancelled pays for nothing more but
    what is in flight; with `path` it is saved, the same call goes on with it, and once it has ended gives its result.

    Args:
        model: as for `improve`, and so are the others.
        evaluator: gives the reward.
        topology: the method, a name.
        path: an SQLite file, or the address of a PostgreSQL database, that saves runs.
        name: of the server, as agents see it.
        options: what the function of the topology takes, such as rounds and max_calls.

    Raises:
        ValueError: an argument is wrong.
    """
    graph = build(topology, model, evaluator, **options)
    graph.check_names()
    size = size_option(find_topology(topology))
    made = MCPServer(
        name,
        version=icrl_graph.__version__,
        instructions="improve solves a task by several attempts, each judged, and gives the best one. check says ahead "
        "what that would cost; judge gives the reward of an answer of your own.",
    )

    @made.tool(title="Improve an answer by its rewards")
    async def improve(
        task: Task, context: Context, rounds: Rounds = None, max_calls: MaxCalls = None, task_data: TaskData = None
    ) -> Improved:
        """Solve a task by several attempts, each judged, and give the best one. Takes minutes; tells its progress."""
        with _told():
            inputs = check_inputs(task, task_data)
            within = graph.settings_within({size: rounds, "max_calls": max_calls})
            settings = {setting: getattr(within, setting) for setting in within.model_fields_set}
            asked = json.dumps([topology, inputs, rounds, max_calls], sort_keys=True)
            attempts, told = getattr(within, size), list[asyncio.Task[None]]()

            def tell(event: Mapping[str, Any]) -> None:
                words = f"attempt {len(told) + 1}: reward {number(event['reward'])}, best {number(event['best'])}"
                told.append(asyncio.ensure_future(context.report_progress(len(told) + 1, attempts, words)))

            id = hashlib.sha256(asked.encode()).hexdigest()[:16]
            result = await aplay(graph, inputs, path, id, tell, settings=settings)
            await asyncio.gather(*told, return_exceptions=True)
            usage = {key: amount for key, amount in result.usage.items() if isinstance(amount, int | float)}
            return Improved(
                answer=answer_text({"answer": result.answer, "stopped": result.stopped}),
                reward=result.reward,
                rewarded_by=result.rewarded_by,
                stopped=result.stopped,
                rewards=result.rewards,
                usage=usage,
            )

    @made.tool(title="Judge an answer")
    async def judge(task: Task, response: str, task_data: TaskData = None) -> Judged:
        """The reward of one answer, by the evaluator that `improve` uses. No model is asked for an answer."""
        with _told():
            judging = {option: options[option] for option in _JUDGING if option in options}
            result = await aimprove(task, evaluator, model=lambda: response, task_data=task_data, rounds=1, **judging)
            reward: Mapping[str, Any] = result.episodes[0]["reward"]
            return Judged(value=reward["value"], feedback=reward.get("feedback"), error=reward.get("error"))

    @made.tool(title="Estimate the cost of improving")
    async def check(
        task: Task, rounds: Rounds = None, max_calls: MaxCalls = None, task_data: TaskData = None
    ) -> Estimate:
        """What `improve` would cost at most with the same arguments. Asks no model."""
        with _told():
            within = graph.settings_within({size: rounds, "max_calls": max_calls})
            changed = {setting: getattr(within, setting) for setting in within.model_fields_set}
            arguments = {"topology": topology, "task_data": task_data, **options, **changed}
            usage = await asyncio.to_thread(preview, task, score=evaluator, model=model, **arguments)
            return Estimate(usage={key: amount for key, amount in usage.items() if isinstance(amount, int | float)})

    return made


@contextmanager
def _told() -> Iterator[None]:
    """Tell the caller what is wrong in our words: of other errors the protocol's server says only that there was one.

    Raises:
        ToolError: something is wrong with an argument, the model or what saves the run.
    """
    try:
        yield
    except (ValueError, OSError, IcrlError) as error:
        raise ToolError(f"{type(error).__name__}: {error}") from error
