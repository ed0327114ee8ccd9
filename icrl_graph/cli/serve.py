"""`icrl serve`."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icrl_graph.cli.completion import model_names, topology_names
from icrl_graph.cli.shared import BaseUrl, Json, app, check_port, err, errors_reported, warn, write
from icrl_graph.models.learners import LEARNERS, find_learner
from icrl_graph.state.formatting import command, cost
from icrl_graph.state.loading import absolute
from icrl_graph.testing.dialects import DIALECTS

if TYPE_CHECKING:
    from icrl_graph.integrations.serving import Endpoint
    from icrl_graph.topologies.base import Graph

SERVED, LIMITS, REHEARSED = "Topologies", "Limits of each request to a topology", "A model alone, for rehearsals"
"""The panels of the help."""


def _targets() -> list[str]:
    return [*LEARNERS, "local:smollm2", "local:icrl-smollm2", *topology_names()]


@app.command(
    epilog="Examples:\n\n  icrl serve my_graph.py:graph --max-calls 20 --path runs.sqlite\n\n"
    "  icrl serve icrl best_of_n --model openai:gpt-4.1-mini --evaluator my_score.py:score\n\n"
    "  icrl serve --port 8000 --latency 0.2\n\n  icrl serve --dialect llama.cpp --context 600"
)
def serve(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Topologies: path.py:graph, or the names of methods; NAME=... names one. Or one model: "
            f"{', '.join(LEARNERS)}, local:icrl-smollm2, provider:name or path.py:function; default hidden-color.",
            autocompletion=_targets,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="<int>", help="Of the server; 0 takes a free one.")
    ] = 8000,
    host: Annotated[
        str | None,
        typer.Option(
            help="The address to listen at, default 127.0.0.1; what other machines reach demands a token.",
            rich_help_panel=SERVED,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that clients give as their API key.", rich_help_panel=SERVED),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="An SQLite file, or postgresql://..., that saves runs; default memory.", rich_help_panel=SERVED
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Of topologies given by name: provider:name or path.py:name.",
            autocompletion=model_names,
            rich_help_panel=SERVED,
        ),
    ] = None,
    evaluator: Annotated[
        str | None, typer.Option(help="Of these, path.py:name or module:name.", rich_help_panel=SERVED)
    ] = None,
    base_url: BaseUrl = None,
    max_runs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="<int>", help="Runs at once, default 64; more are refused (429).", rich_help_panel=SERVED
        ),
    ] = None,
    max_body: Annotated[
        int | None,
        typer.Option(min=1, metavar="<int>", help="Bytes of a request, default 16 MiB.", rich_help_panel=SERVED),
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=1, metavar="<int>", help="Paid calls.", rich_help_panel=LIMITS)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="<int>", help="Tokens, in and out.", rich_help_panel=LIMITS)
    ] = None,
    max_usd: Annotated[float | None, typer.Option(help="US dollars.", rich_help_panel=LIMITS)] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Seconds; then the best answer so far is given.", rich_help_panel=LIMITS)
    ] = None,
    latency: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds before each answer.", rich_help_panel=REHEARSED)
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help=f"Whose words, fields and habits it has: {', '.join(DIALECTS)}.",
            autocompletion=lambda: [*DIALECTS],
            rich_help_panel=REHEARSED,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="<int>", help="Tokens of a prompt and its answer; default any.", rich_help_panel=REHEARSED
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve topologies over OpenAI's protocol: each request is a run, its answer the best one.

    Or a model on this machine alone: a shipped learner, say, to try things out over real HTTP, and to rehearse a run
    against the server that it is for.

    With --json, the address is printed on stdout, and each request as a line of JSON on stderr.
    """
    limits = {"max_calls": max_calls, "max_tokens": max_tokens, "max_usd": max_usd, "max_seconds": max_seconds}
    sizes = {"max_runs": max_runs, "max_body": max_body}
    of_models = {"latency": latency, "dialect": dialect, "context": context}
    made_of = {"model": model, "evaluator": evaluator}
    with errors_reported():
        if host is None:
            check_port(port)
        served = _served(targets or ["hidden-color"], model, evaluator, base_url)
        models = [name for name, each in served.items() if callable(each)]
        if models and len(served) > 1:
            raise ValueError(f"a model is served alone, got {', '.join(served)}, of which {models[0]} is one")
        if models:
            _refuse({"host": host, "token_file": token_file, "path": path, **made_of, **sizes, **limits}, "topologies")
            _serve_model(models[0], served[models[0]], targets, port, as_json, _given(of_models))
        _refuse(of_models, "a model alone")
        from icrl_graph.integrations.serving import Endpoint

        endpoint = Endpoint(
            served,
            token=None if token_file is None else token_file.read_text(encoding="utf-8").strip(),
            path=path,
            limits=_given(limits),
            on_request=_print_json if as_json else _print_line,
            **_given(sizes),
        )
        asyncio.run(_serve_graphs(endpoint, host or "127.0.0.1", port, list(served), as_json))
        raise typer.Exit(143)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: Mapping[str, Any], whose: str) -> None:
    """Raise ValueError for options that were given and are for something else."""
    if given := [f"--{name.replace('_', '-')}" for name in _given(options)]:
        raise ValueError(f"{' and '.join(given)} {'are' if given[1:] else 'is'} for {whose}")


def _served(specs: list[str], model: str | None, evaluator: str | None, base_url: str | None) -> dict[str, Any]:
    """What is named: topologies as graphs, models as functions that answer, by the names that clients give."""
    served: dict[str, Any] = {}
    for each in specs:
        named = re.fullmatch(r"([\w.-]+)=(.+)", each)
        spec = named[2] if named else each
        name = named[1] if named else Path(re.split("[:/]", spec)[-1]).stem if spec not in LEARNERS else "learner"
        if name in served:
            raise ValueError(f"two are named {name!r}; name one by NAME={spec}")
        served[name] = _part(spec, model, evaluator, base_url)
    return served


def _part(spec: str, model: str | None, evaluator: str | None, base_url: str | None) -> Graph | Callable[..., Any]:
    """A topology as a graph, or a model as a function that answers."""
    if spec in LEARNERS:
        return find_learner(spec)
    from langchain_core.runnables import Runnable

    from icrl_graph.models.function import reply_of
    from icrl_graph.models.policy import Policy, as_policy
    from icrl_graph.models.registry import load_model
    from icrl_graph.topologies.base import uncompiled
    from icrl_graph.topologies.methods import build

    def built(topology: Any) -> Graph:
        if model is None or evaluator is None:
            raise ValueError(f"the topology {spec!r} is made of a model and an evaluator: give --model and --evaluator")
        return build(topology, load_model(model, base_url=base_url), absolute(evaluator))

    if spec in topology_names():
        return built(spec)
    try:
        part = load_model(spec, base_url=base_url)
    except ValueError as error:
        if ":" in spec:
            raise
        choices = ", ".join(map(repr, (*LEARNERS, *topology_names())))
        raise ValueError(f"unknown learner or topology {spec!r}; choose one of {choices}, or path.py:name") from error
    if inspect.isfunction(part):
        parameters = inspect.signature(part).parameters
        if {"model", "evaluator"} <= parameters.keys():
            return built(absolute(spec))
        if not parameters and (made := uncompiled(part())) is not None:
            return made
    if (topology := uncompiled(part)) is not None:
        return topology
    if not (callable(part) or isinstance(part, str | Policy | Runnable)):
        raise ValueError(f"{spec!r} is neither a topology nor a chat model or a function of messages, got {part!r:.80}")
    policy = as_policy(part, what="served part")
    if policy.kind != "chat":
        raise ValueError(f"{spec!r} is neither a topology nor a chat model or a function of messages")
    return reply_of(policy.part)  # type: ignore[arg-type]


def _serve_model(
    name: str, reply: Callable[..., Any], targets: list[str] | None, port: int, as_json: bool, options: Any
) -> None:
    """Serve a model until the process ends."""
    from icrl_graph.testing import OpenAIServer

    with OpenAIServer(reply, model=name, port=port, **options) as server:
        item = "words:prize:wordings:0" if name != "learner" else "hidden-color:#b94"
        if targets and targets[0].startswith("game24"):
            item = "game24:4,5,6,10"
        use = f"OPENAI_BASE_URL={server.base_url} {command('run', item, '--model', f'openai:{name}')}"
        hint = f"Serving at {server.base_url}; stop with Ctrl-C. Use it with:\n  {use}"
        typer.echo(json.dumps({"base_url": server.base_url}) if as_json else hint)
        threading.Event().wait()


async def _serve_graphs(endpoint: Endpoint, host: str, port: int, names: list[str], as_json: bool) -> None:
    """Serve topologies until SIGTERM; a second one ends the process at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        warn("Stopping once the runs that are being played can be left; SIGTERM again stops at once.")
        stopped.set()

    with suppress(NotImplementedError):  # Windows has none
        loop.add_signal_handler(signal.SIGTERM, stop)
    async with endpoint.serving(host, port) as url:
        hint = f"Serving {', '.join(names)} at {url}; stop with Ctrl-C."
        typer.echo(json.dumps({"base_url": url}) if as_json else hint)
        await stopped.wait()
        await endpoint.drain()


def _print_json(told: Mapping[str, Any]) -> None:
    typer.echo(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **told}), err=True)


def _print_line(told: Mapping[str, Any]) -> None:
    from icrl_graph.prompts.text import number

    words = [time.strftime("%H:%M:%S"), str(told["status"]), str(told.get("model", told["path"]))]
    if "error" in told:
        words.append(str(told["error"]))
    elif "usage" in told:
        words.append(f"reward {number(told['reward'])} ({told['stopped']}), {cost(told['usage'])}")
    again = ", of an earlier request" if told.get("repeated") else ""
    write(f"{'  '.join(words)}, {told['seconds']:.1f} s{again}", err)
