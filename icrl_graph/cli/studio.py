"""`icrl studio`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from icrl_graph.cli.shared import app, out, telling
from icrl_graph.errors import missing_extra

LINK = "https://smith.langchain.com/studio/?baseUrl=http://127.0.0.1:{port}"


@app.command(epilog="Example:\n\n  icrl studio --port 2024")
def studio(
    config: Annotated[Path, typer.Option(help="Which graphs to serve.")] = Path("langgraph.json"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 2024,
    browser: Annotated[bool, typer.Option(help="Open Studio in a browser.")] = True,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 10,
) -> None:
    """Serve graphs on this machine by `langgraph dev`, and look at them in LangGraph Studio.

    The server needs no key and no network; Studio itself is a web page of LangChain's, with a login.
    """
    with telling():
        if importlib.util.find_spec("langgraph_api") is None:
            raise missing_extra("langgraph-cli[inmem]", "studio")
        if not config.is_file():
            raise ValueError(
                f"there is no {config}: go to a folder that has one, such as a checkout of icrl_graph, or name it by "
                '--config; it lists graphs like {"dependencies": ["."], "graphs": {"mine": "./mine.py:graph"}}'
            )
        out.print(
            f"Studio: {LINK.format(port=port)}\nAPI:    http://127.0.0.1:{port}/docs", highlight=False, soft_wrap=True
        )
        sys.stdout.flush()
    asked = ["--config", str(config), "--port", str(port), "--n-jobs-per-worker", str(jobs), "--no-reload"]
    quiet = [] if browser else ["--no-browser"]
    environment = {"LANGSMITH_TRACING": "false", **os.environ}
    os.execve(sys.executable, [sys.executable, "-m", "langgraph_cli", "dev", *asked, *quiet], environment)
