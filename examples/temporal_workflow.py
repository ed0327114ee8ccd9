"""A method under Temporal: each of its nodes is an activity, so where a worker dies, another one goes on."""

import asyncio
from datetime import timedelta
from shutil import which
from typing import Any

from temporalio import activity, exceptions, worker, workflow
from temporalio.langgraph import LangGraphPlugin, graph
from temporalio.testing import WorkflowEnvironment

from icrl_graph import ModelError, create_icrl
from icrl_graph.tasks.hidden_color import closeness, tasks


def as_activities(method: Any, seconds: float = 10) -> LangGraphPlugin:
    """The nodes of a topology as activities; a worker that is silent for so many seconds is taken for dead."""
    method.context_schema = None  # a context travels as JSON, and becomes settings where a node is called
    times = {"start_to_close_timeout": timedelta(hours=1), "heartbeat_timeout": timedelta(seconds=seconds)}
    for name, node in [(name, method.nodes.pop(name).runnable) for name in [*method.nodes]]:

        async def call(state: Any, runtime: Any, node: Any = node) -> Any:
            working = asyncio.create_task(node.ainvoke(state))
            try:
                object.__setattr__(runtime, "context", method.settings(runtime.context))
                while not (await asyncio.wait([working], timeout=seconds / 4))[0]:
                    activity.heartbeat()
                return await working
            except (ModelError, ValueError) as error:  # wrong for good, such as a key or a setting
                raise exceptions.ApplicationError(str(error), type=type(error).__name__, non_retryable=True) from error
            finally:
                working.cancel()

        call.__module__, call.__qualname__, call.__annotations__ = "icrl", name, {}
        method.add_node(name, call, metadata={"execute_in": "activity", **times})
    return LangGraphPlugin({"icrl": method})


@workflow.defn(failure_exception_types=[ValueError])
class Improve:
    """A run of the method: takes its input, gives its output."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, task: dict[str, Any]) -> Any:
        """Play it."""
        return await graph("icrl").compile().ainvoke(task)


async def main() -> None:
    """A server, a worker and a client, all in this process; your server: `await Client.connect("localhost:7233")`."""
    dev: Any = {"dev_server_existing_path": which("temporal"), "dev_server_startup_timeout": timedelta(minutes=1)}
    dev["dev_server_extra_args"] = ["--output", "none"]
    plugin = as_activities(create_icrl("learner:hidden-color", closeness, seed=0))
    own: Any = {"workflows": [Improve], "plugins": [plugin], "workflow_runner": worker.UnsandboxedWorkflowRunner()}
    async with await WorkflowEnvironment.start_local(**dev) as env, worker.Worker(env.client, task_queue="icrl", **own):
        output = await env.client.execute_workflow(Improve.run, tasks(1, seed=7)[0], id="a game", task_queue="icrl")
        print(f"{output['answer']} earns {output['reward']}: {output['usage']['calls']} calls")


if __name__ == "__main__":
    asyncio.run(main())
