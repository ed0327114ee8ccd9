"""`icrl studio`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from icrl_graph.cli.shared import app, check_port, errors_reported, write
from icrl_graph.errors import missing_extra

LINK = "https://smith.langchain.com/studio/?baseUrl=http://127.0.0.1:{port}"
LISTED = Path("langgraph.json")
SHIPPED = Path(__file__).resolve().with_name("langgraph.json")
"""Lists the graphs of this package, by their modules."""
EXAMPLE = '{"dependencies": ["."], "graphs": {"mine": "./mine.py:graph"}}'
SILENT = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGGRAPH_NO_VERSION_CHECK": "true"}
"""Otherwise `langgraph dev` tells LangChain that it was started, and asks PyPI for a newer version."""


@app.command(epilog="Examples:\n\n  icrl studio --port 2024\n\n  icrl studio --config mine/langgraph.json")
def studio(
    config: Annotated[
        Path | None,
        typer.Option(
            help=f"The file that lists the graphs to serve; default {LISTED}, else all methods of this package."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="<int>", help="Of the server.")] = 2024,
    browser: Annotated[bool, typer.Option(help="Open Studio in a browser.")] = True,
    jobs: Annotated[int, typer.Option(min=1, metavar="<int>", help="Most runs at once.")] = 10,
) -> None:
    """Serve graphs by `langgraph dev`, to open in LangGraph Studio.

    The server runs on this machine and needs no key and no network; Studio itself is a web page of LangChain's, with a
    login.
    """
    with errors_reported():
        if any(importlib.util.find_spec(name) is None for name in ("langgraph_api", "langgraph_cli")):
            raise missing_extra("langgraph-cli[inmem]", "studio")
        if config is None and not os.path.lexists(LISTED):
            folder, config = Path(), SHIPPED
        else:
            config = (config or LISTED).absolute()
            folder = config.parent  # where its relative paths start
        names = _graphs_of(config)
        check_port(port)  # `langgraph dev` would take another one, and the link would lead to another server
        write(f"Studio: {LINK.format(port=port)}\nAPI:    http://127.0.0.1:{port}/docs\nGraphs: {', '.join(names)}")
        sys.stdout.flush()
    os.chdir(folder)  # where .langgraph_api is made
    options = ["--config", str(config), "--port", str(port), "--n-jobs-per-worker", str(jobs), "--no-reload"]
    options += [] if browser else ["--no-browser"]
    os.execve(sys.executable, [sys.executable, "-m", "langgraph_cli", "dev", *options], {**SILENT, **os.environ})


def _graphs_of(config: Path) -> list[str]:
    """The names of the graphs that a file lists."""
    if not config.is_file():
        raise ValueError(f"there is no {config}; it would list graphs like {EXAMPLE}")
    try:
        graphs = json.loads(config.read_bytes())["graphs"]
    except (ValueError, KeyError, TypeError):
        graphs = None
    if not (graphs and isinstance(graphs, dict)):
        raise ValueError(f"{config} lists no graphs; it is JSON like {EXAMPLE}")
    return [*graphs]
