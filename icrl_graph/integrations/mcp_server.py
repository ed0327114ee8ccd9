"""A Model Context Protocol server, by which agents have tasks improved, answers judged and costs estimated.

    server("openai:gpt-4.1-mini", score, max_calls=64, path="runs.sqlite").run("stdio")

Needs the extra `mcp`. On the command line: `icrl mcp`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from os import PathLike
from typing import Annotated, Any, cast

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, Field

import icrl_graph
from icrl_graph.api import Result, aimprove, check_inputs
from icrl_graph.errors import IcrlError, ThreadBusy
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.integrations.kept_runs import EvaluatorFailed, KeptRuns, Run
from icrl_graph.preview import preview
from icrl_graph.prompts.text import number
from icrl_graph.state.episode import answer_text, error_of
from icrl_graph.state.events import EpisodeEvent
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.methods import build, find_topology, size_option
from icrl_graph.topologies.settings import RunSettings

_JUDGING = ("metric", "bounds", "timeout", "on_error", "prices", "rate_limit", "max_tokens", "max_usd", "max_seconds")
"""The options that judging an answer takes, too."""

Task = Annotated[str, Field(description="The whole task, with all that is needed to solve it: nothing else is seen.")]
TaskData = Annotated[
    dict[str, Any] | None,
    Field(description="For the evaluator alone, such as the right answer; the model does not see it."),
]
Rounds = Annotated[
    int | None, Field(ge=1, strict=True, description="Attempts at most; default, and at most, the server's own.")
]
MaxCalls = Annotated[
    int | None, Field(ge=1, strict=True, description="Calls of models at most; default, and at most, the server's own.")
]


class Improved(BaseModel):
    """What a run came to."""

    answer: str | None = Field(description="The best answer, one that has a form as JSON; null if there is none.")
    reward: float | None = Field(description="Its reward; null if no attempt has a score.")
    rewarded_by: str | None = Field(description="Whose reward that is: oracle, judged, self-judged or human.")
    stopped: str = Field(description="Why it ended, such as rounds, success, calls or failures.")
    error: str | None = Field(description="Why there is no reward, if there is none.")
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
    what is in flight, and the same call within a minute goes on with it. With `path` it is saved: the same call goes on
    with it at any time, and once it has ended gives its result.

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

    @asynccontextmanager
    async def lifespan(_: MCPServer[_Runs]) -> AsyncIterator[_Runs]:
        async with AsyncExitStack() as opened:
            opened.callback(sys.stdout.flush)  # while what is printed still goes to stderr
            yield _Runs(path, opened)

    def settings_of(rounds: int | None, max_calls: int | None) -> RunSettings:
        return graph.settings_within({size: rounds, "max_calls": max_calls})

    async def improve(
        task: Task, context: Context, rounds: Rounds = None, max_calls: MaxCalls = None, task_data: TaskData = None
    ) -> Improved:
        """Solve a task by several attempts, each judged, and give the best one. Takes minutes; tells its progress."""
        with _told():
            inputs, settings, done = check_inputs(task, task_data), settings_of(rounds, max_calls).model_dump(), 0
            runs = cast(_Runs, context.request_context.lifespan_context)
            async with runs.played(graph, inputs, settings, topology) as (run, events):
                async for event in events:
                    done += 1
                    words = f"attempt {done}: reward {number(event['reward'])}, best {number(event['best'])}"
                    await context.report_progress(done, settings[size], words)
                result = run.result
                runs.kept.delivered(run)
            return Improved(
                answer=None if result.answer is None else answer_text({"answer": result.answer}),
                reward=result.reward,
                rewarded_by=result.rewarded_by,
                stopped=result.stopped,
                error=_why_unscored(result) if result.reward is None else None,
                rewards=result.rewards,
                usage=_numbers(result.usage),
            )

    async def judge(task: Task, response: str, task_data: TaskData = None) -> Judged:
        """The reward of one answer, by the evaluator that `improve` uses. No model is asked for an answer."""
        with _told():
            judging = {option: options[option] for option in _JUDGING if option in options}
            result = await aimprove(task, evaluator, model=lambda: response, task_data=task_data, rounds=1, **judging)
            reward: Mapping[str, Any] = result.episodes[0]["reward"]
            error = _why_unscored(result) if reward["value"] is None else reward.get("error")
            return Judged(value=reward["value"], feedback=reward.get("feedback"), error=error)

    async def check(
        task: Task, rounds: Rounds = None, max_calls: MaxCalls = None, task_data: TaskData = None
    ) -> Estimate:
        """What `improve` would cost at most with the same arguments. Asks no model."""
        with _told():
            changed = settings_of(rounds, max_calls).model_dump(exclude_unset=True)
            arguments = {"topology": topology, "task_data": task_data, **options, **changed}
            usage = await asyncio.to_thread(preview, task, score=evaluator, model=model, **arguments)
            return Estimate(usage=_numbers(usage))

    return MCPServer(
        name,
        version=icrl_graph.__version__,
        lifespan=lifespan,
        instructions="improve solves a task by several attempts, each judged, and gives the best one. check says ahead "
        "what that would cost; judge gives the reward of an answer of your own.",
        tools=[
            _tool(improve, "Improve an answer by its rewards"),
            _tool(judge, "Judge an answer"),
            _tool(check, "Estimate the cost of improving"),
        ],
    )


class _Runs:
    """The runs of a server, opened with the first: a call that is repeated is the run that it was."""

    def __init__(self, path: str | PathLike[str] | None, opened: AsyncExitStack) -> None:
        self.kept = KeptRuns(path, most=64, grace=60.0)
        self._is_saved, self._opened, self._opening, self._is_open = path is not None, opened, asyncio.Lock(), False

    @asynccontextmanager
    async def played(
        self, graph: Graph, inputs: Any, settings: Any, name: str
    ) -> AsyncIterator[tuple[Run, AsyncIterator[EpisodeEvent]]]:
        """A run while somebody waits for it, and its attempts as they are judged."""
        async with self._opening:
            if not self._is_open:
                await self._opened.enter_async_context(self.kept.opened())
                self._is_open = True
        key = json.dumps([inputs, settings], sort_keys=True) if self._is_saved else None
        run = self.kept.ask(graph, inputs, settings, name, key, is_repeat=False)
        with self.kept.waiting(run):
            async with aclosing(self.kept.follow(run, every=60.0)) as events:
                yield run, (event async for event in events if event is not None)


def _tool(function: Callable[..., Any], title: str) -> Tool:
    """A tool that refuses arguments that it does not know: a limit that is misspelt would be none."""
    tool = Tool.from_function(function, title=title)
    tool.fn_metadata.arg_model.model_config["extra"] = "forbid"
    tool.fn_metadata.arg_model.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False
    return tool


def _why_unscored(result: Result) -> str:
    reason = next(filter(None, map(error_of, result.episodes)), None)
    return reason or "the evaluator returned None, which is no reward"


def _numbers(usage: Mapping[str, Any]) -> dict[str, float]:
    return {name: amount for name, amount in usage.items() if isinstance(amount, int | float)}


@contextmanager
def _told() -> Iterator[None]:
    """Tell the caller what is wrong in our words: of other errors the protocol's server says only that there was one.

    Raises:
        ToolError: something is wrong with an argument, the model or what saves the run.
    """
    try:
        yield
    except ThreadBusy as error:
        raise ToolError("the same call is being played by another server; call again once that has ended") from error
    except EvaluatorFailed as error:
        raise ToolError(error.logged) from error
    except (ValueError, OSError, IcrlError) as error:
        raise ToolError(f"{type(error).__name__}: {error}") from error
