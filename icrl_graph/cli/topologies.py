"""`icrl topologies` and `icrl draw`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from icrl_graph.cli.shared import Json, app, out, telling


@app.command(epilog="Example:\n\n  icrl topologies --json")
def topologies(as_json: Json = False) -> None:
    """List the methods."""
    from icrl_graph.topologies.methods import TOPOLOGIES

    lines = {name: (create.__doc__ or "").splitlines()[0] for name, create in TOPOLOGIES.items()}
    if as_json:
        typer.echo(json.dumps(lines))
        return
    for name, line in lines.items():
        out.print(f"{name:12} {line}", highlight=False, markup=False, soft_wrap=True)


@app.command(epilog="Example:\n\n  icrl draw icrl")
def draw(topology: Annotated[str, typer.Argument(help="See: icrl topologies.")], as_json: Json = False) -> None:
    """Print a method's graph as a mermaid diagram, or with --json as nodes and edges."""
    from icrl_graph.topologies.methods import build

    with telling():
        graph = build(topology, lambda: "", lambda: 0.0).compile(name=topology).get_graph()
    typer.echo(json.dumps(graph.to_json()) if as_json else graph.draw_mermaid())
