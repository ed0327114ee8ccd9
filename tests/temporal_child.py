"""A worker of Temporal that never ends, to be killed by test_temporal.py.

Its argument is JSON: the address of Temporal's server, that of a model's, and a file for replies.
"""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.langgraph import graph
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from icrl_graph import chat_model, create_icrl
from icrl_graph.evaluators import llm_judge
from icrl_graph.execution.sql_journals import SqliteJournal
from icrl_graph.state.loading import load

EXAMPLE = Path(__file__).parents[1] / "examples" / "temporal_workflow.py"
SILENCE = 6.0
"""Seconds after which a worker is taken for dead."""


@workflow.defn(failure_exception_types=[ValueError])
class ImproveWith:
    """The example's workflow, with settings."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, task: dict[str, Any], settings: dict[str, Any]) -> Any:
        return await graph("icrl").compile().ainvoke(task, context=settings)


def worker(client: Client, method: Any) -> Worker:
    """A worker for both workflows; it tells that it is alive far more often than it must."""
    return Worker(
        client,
        task_queue="icrl",
        workflows=[load(f"{EXAMPLE}:Improve"), ImproveWith],
        plugins=[load(f"{EXAMPLE}:as_activities")(method, SILENCE)],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_heartbeat_throttle_interval=timedelta(seconds=SILENCE / 8),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),  # else a dead worker's own queue is waited for
    )


async def main(temporal: str, base_url: str, replies: str) -> None:
    model = chat_model("openai:any", base_url=base_url)
    judge = llm_judge(model, "Good?", samples=2)
    method = create_icrl(model, judge, rounds=4, journal=SqliteJournal(replies))
    async with worker(await Client.connect(temporal), method):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*json.loads(sys.argv[1])))
