"""`icrl topologies` and `icrl draw`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from icrl_graph.cli.completion import topology_names
from icrl_graph.cli.shared import Json, app, errors_reported, write
from icrl_graph.state.choices import absolute


@app.command(epilog="Example:\n\n  icrl topologies --json")
def topologies(as_json: Json = False) -> None:
    """List the methods, those of installed packages included."""
    names = topology_names()
    with errors_reported():
        lines = {name: _first_line(name) for name in names}
    if as_json:
        typer.echo(json.dumps(lines))
        return
    for name, line in lines.items():
        write(f"{name:{max(map(len, names))}} {line}")


def _first_line(topology: str) -> str:
    """What a topology says of itself."""
    from icrl_graph.topologies.methods import find_topology

    try:
        create = find_topology(topology)
    except Exception as error:  # one broken package must not hide the others
        return f"can't be loaded: {type(error).__name__}: {error}"
    return next(iter((create.__doc__ or "").strip().splitlines()), "")


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
