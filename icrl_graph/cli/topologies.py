"""`icrl topologies` and `icrl draw`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from icrl_graph.cli.completion import topology_names
from icrl_graph.cli.shared import Json, app, errors_reported, list_parts
from icrl_graph.state.loading import absolute


@app.command(epilog="Example:\n\n  icrl topologies --json")
def topologies(as_json: Json = False) -> None:
    """List the methods, those of installed packages included."""
    from icrl_graph.topologies.methods import find_topology

    def first_line(name: str) -> str:
        return next(iter((find_topology(name).__doc__ or "").strip().splitlines()), "")

    list_parts(topology_names(), first_line, as_json)


@app.command(epilog="Examples:\n\n  icrl draw icrl\n\n  icrl draw my_method.py:create_mine")
def draw(
    topology: Annotated[
        str, typer.Argument(help="See icrl topologies; or path.py:name.", autocompletion=topology_names)
    ],
    as_json: Json = False,
) -> None:
    """Print a method's graph as a mermaid diagram.

    With --json, its nodes and edges.
    """
    from icrl_graph.topologies.methods import build

    with errors_reported():
        graph = build(absolute(topology), lambda: "", lambda: 0.0).compile(name=topology).get_graph()
    typer.echo(json.dumps(graph.to_json()) if as_json else graph.draw_mermaid())
