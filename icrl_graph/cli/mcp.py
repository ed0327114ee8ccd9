"""`icrl mcp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icrl_graph.cli.completion import model_names, topology_names
from icrl_graph.cli.run import RunCommand
from icrl_graph.cli.settings_options import SetOption, chosen_settings
from icrl_graph.cli.shared import (
    CALLS,
    Attempts,
    BaseUrl,
    MaxResponseTokens,
    Prices,
    System,
    Temperature,
    app,
    check_port,
    err,
    errors_reported,
    parse_json,
    write,
)
from icrl_graph.errors import missing_extra
from icrl_graph.state.loading import absolute


@app.command(
    cls=RunCommand,
    epilog="Examples:\n\n  icrl mcp --model openai:gpt-4.1-mini --evaluator score.py:score --max-calls 32\n\n"
    "  icrl mcp --model learner:hidden-color --evaluator icrl_graph.tasks.hidden_color:closeness --http 8001",
)
def mcp(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="provider:name, local:smollm2 or path.py:name.", autocompletion=model_names)
    ],
    evaluator: Annotated[str, typer.Option(help="path.py:name or module:name; gives the rewards.")],
    metric: Annotated[str | None, typer.Option(help="The evaluator to report, if it is not the reward.")] = None,
    topology: Annotated[
        str, typer.Option(help="See icrl topologies; or path.py:name.", autocompletion=topology_names)
    ] = "icrl",
    path: Annotated[
        Path | None,
        typer.Option(help="An SQLite file that saves runs: the same call goes on with one that was cancelled or lost."),
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="<int>", help="Serve over HTTP on this port of this machine; default stdio."
        ),
    ] = None,
    assignments: SetOption = None,
    system: System = None,
    temperature: Temperature = None,
    max_response_tokens: MaxResponseTokens = None,
    base_url: BaseUrl = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, metavar="<int>", help="Most calls in flight at once.", rich_help_panel=CALLS),
    ] = None,
    attempts: Attempts = 6,
    prices: Prices = None,
) -> None:
    """Serve agents over the Model Context Protocol: the tools improve, judge and check.

    The settings here are the server's own: what an agent asks for beyond its limits is not granted.
    """
    with errors_reported():
        try:
            from icrl_graph.integrations.mcp_server import server
        except ImportError as missing:
            raise missing_extra("mcp", "mcp") from missing
        from icrl_graph.evaluators.evaluator import find_evaluator
        from icrl_graph.execution.rate_limit import RateLimit
        from icrl_graph.models.registry import load_model
        from icrl_graph.topologies.methods import build
        from icrl_graph.topologies.options import at_temperature

        topology = absolute(topology)
        schemas = [build(topology, lambda: "", lambda: 0.0).parts.schema] if assignments else []
        options = {
            **chosen_settings(context, assignments or [], schemas, ["model"]),
            "system": system,
            "max_response_tokens": max_response_tokens,
            "prices": parse_json(prices, "--prices"),
            "metric": None if metric is None else find_evaluator(metric),
        }
        made = server(
            load_model(model, base_url=base_url),
            find_evaluator(evaluator),
            topology=topology,
            path=path,
            rate_limit=RateLimit(max_attempts=attempts, max_concurrency=concurrency),
            **at_temperature(temperature),
            **{name: value for name, value in options.items() if value is not None},
        )
        if http is None:
            made.run("stdio")
        else:
            import uvicorn  # comes with the SDK, whose own `run` waits at the end for every client that is connected

            check_port(http, "--http")
            write(f"Serving at http://127.0.0.1:{http}/mcp; stop with Ctrl-C.", err)
            app = made.streamable_http_app()
            uvicorn.run(app, host="127.0.0.1", port=http, log_level="warning", timeout_graceful_shutdown=1)
