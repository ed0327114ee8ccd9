"""A method under Temporal: each of its nodes is an activity, so where a worker dies, another one goes on."""

import asyncio
from datetime import timedelta
from shutil import which
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.langgraph import LangGraphPlugin, graph
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from icrl_graph import create_icrl
from icrl_graph.tasks.hidden_color import closeness, tasks


def as_activities(method: Any, seconds: float = 10) -> LangGraphPlugin:
    """The nodes of a topology as activities; a worker that is silent for so many seconds is taken for dead."""
    for name, node in [(name, method.node(name)) for name in method.nodes]:

        async def call(state: Any, node: Any = node) -> Any:
            working = asyncio.create_task(node.ainvoke(state))
            try:
                while not (await asyncio.wait([working], timeout=seconds / 4))[0]:
                    activity.heartbeat()
                return await working
            finally:
                working.cancel()

        call.__module__, call.__qualname__, call.__annotations__ = "icrl", name, {}
        del method.nodes[name]
        method.add_node(name, call, metadata={"execute_in": "activity"})
    options: Any = {"start_to_close_timeout": timedelta(hours=1), "heartbeat_timeout": timedelta(seconds=seconds)}
    options["retry_policy"] = RetryPolicy(non_retryable_error_types=["ModelError"])  # such as a wrong key
    return LangGraphPlugin({"icrl": method}, default_activity_options=options)


@workflow.defn
class Improve:
    """A run of the method: takes its input, gives its output."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, task: dict[str, Any]) -> Any:
        """Play it."""
        return await graph("icrl").compile().ainvoke(task)


async def main() -> None:
    """A server, a worker and a client, all in this process; your server: `await Client.connect("localhost:7233")`."""
    server: Any = {"dev_server_existing_path": which("temporal"), "dev_server_startup_timeout": timedelta(minutes=1)}
    server["dev_server_extra_args"] = ["--output", "none"]
    plugin = as_activities(create_icrl("learner:hidden-color", closeness, seed=0))
    parts: Any = {"workflows": [Improve], "plugins": [plugin], "workflow_runner": UnsandboxedWorkflowRunner()}
    async with await WorkflowEnvironment.start_local(**server) as env, Worker(env.client, task_queue="icrl", **parts):
        output = await env.client.execute_workflow(Improve.run, tasks(1, seed=7)[0], id="a game", task_queue="icrl")
        print(f"{output['answer']} earns {output['reward']}: {output['usage']['calls']} calls")


if __name__ == "__main__":
    asyncio.run(main())
