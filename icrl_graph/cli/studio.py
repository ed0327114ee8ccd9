"""`icrl studio`."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from icrl_graph.cli.shared import app, out, telling
from icrl_graph.errors import missing_extra

LINK = "https://smith.langchain.com/studio/?baseUrl=http://127.0.0.1:{port}"
EXAMPLE = '{"dependencies": ["."], "graphs": {"mine": "./mine.py:graph"}}'
SILENT = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGGRAPH_NO_VERSION_CHECK": "true"}
"""Else `langgraph dev` tells LangChain that it was started, and asks PyPI for a newer version."""


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
        if any(importlib.util.find_spec(name) is None for name in ("langgraph_api", "langgraph_cli")):
            raise missing_extra("langgraph-cli[inmem]", "studio")
        _check_config(config)
        _check_port(port)
        out.print(
            f"Studio: {LINK.format(port=port)}\nAPI:    http://127.0.0.1:{port}/docs", highlight=False, soft_wrap=True
        )
        sys.stdout.flush()
    os.chdir(config.parent)  # the paths in it, and .langgraph_api, are beside it
    asked = ["--config", config.name, "--port", str(port), "--n-jobs-per-worker", str(jobs), "--no-reload"]
    quiet = [] if browser else ["--no-browser"]
    os.execve(sys.executable, [sys.executable, "-m", "langgraph_cli", "dev", *asked, *quiet], {**SILENT, **os.environ})


def _check_config(config: Path) -> None:
    if not config.is_file():
        raise ValueError(
            f"there is no {config}: go to a folder that has one, such as a checkout of icrl_graph, or name it by "
            f"--config; it lists graphs like {EXAMPLE}"
        )
    try:
        graphs = json.loads(config.read_text(encoding="utf-8"))["graphs"]
    except (ValueError, KeyError, TypeError):
        graphs = None
    if not graphs:
        raise ValueError(f"{config} lists no graphs; it is JSON like {EXAMPLE}")


def _check_port(port: int) -> None:
    """`langgraph dev` would take another one, and the link would lead to a stranger."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been let go is free
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise OSError(f"port {port} can't be had: {error.strerror}; name another one by --port") from None
