"""What the commands share: the app, the two consoles, errors and exit codes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typer.core import TyperCommand, TyperGroup

import icrl_graph
from icrl_graph.errors import IcrlError, JournalError, MissingExtra, ModelError
from icrl_graph.state.formatting import command

Function = TypeVar("Function", bound=Callable[..., Any])
PANELS: Mapping[str, tuple[str, ...]] = {
    "Improve an answer": ("init", "run", "resume", "show"),
    "Compare methods": ("bench", "reproduce", "report", "rejudge", "win-rates", "export", "meta-eval"),
    "See what there is": ("benchmarks", "topologies", "draw"),
    "Try it offline": ("demo", "train"),
    "Serve it": ("serve", "mcp", "studio"),
}
"""The commands in the order of use; any other comes after them."""


def _without_flag_types(params: list[Any]) -> list[Any]:
    """Parameters whose help doesn't say that a flag is a `<bool>`."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command with readable help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its arguments and options, `--help` among them."""
        return _without_flag_types(super().get_params(ctx))


class Group(TyperGroup):
    """The commands in the order of use."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options before a command."""
        return _without_flag_types(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        order = [name for names in PANELS.values() for name in names]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))


class App(typer.Typer):
    """An app whose commands stand in panels."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **options: Any
    ) -> Callable[[Function], Function]:
        """Register a command."""

        def register(function: Function) -> Function:
            panel = next((title for title, names in PANELS.items() if (name or function.__name__) in names), None)
            return add(name, cls=cls, rich_help_panel=panel, **options)(function)

        add = super().command
        return register


app = App(
    name="icrl",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Output(Console):
    """A stream of output; where its reader is gone, as after `| head`, writing to it is an error like others."""

    def on_broken_pipe(self) -> None:
        """Raise what click ends a command by."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


out, err = Output(), Output(stderr=True)

CALLS = "Calls"
"""The panel of options about the calls of models."""
TOTAL = "When to stop a whole comparison; what is left can be resumed with more"
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="trackio:<str>|wandb:<str>|mlflow:<str>",
        help="Log attempts to a project of an experiment tracker, which is installed apart; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
BaseUrl = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible server; default OPENAI_BASE_URL.", rich_help_panel=CALLS)
]
JudgeBaseUrl = Annotated[
    str | None, typer.Option(help="The judge's server; default that of --base-url.", rich_help_panel=CALLS)
]
SwitchBaseUrl = Annotated[
    str | None,
    typer.Option(help="The server of the model to switch to; default that of --base-url.", rich_help_panel=CALLS),
]
Db = Annotated[
    str | None,
    typer.Option(
        metavar="postgresql://...",
        help="A PostgreSQL database that saves runs until they end; default files of the folder.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="process|ray",
        help="Where runs are played: in this process, or on the machines of a Ray cluster, saved in --db.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="The Ray cluster, host:port; default RAY_ADDRESS, one on this machine, else a new one."),
]
Attempts = Annotated[
    int, typer.Option(help="Attempts per API call, retries of transient errors included.", rich_help_panel=CALLS)
]
Concurrency = Annotated[
    int,
    typer.Option(
        help="Most runs, and calls in flight, at once; a server of your own: as many as it has slots.",
        rich_help_panel=CALLS,
    ),
]
RequestsPerMinute = Annotated[float | None, typer.Option(help="Most paid calls per minute.", rich_help_panel=CALLS)]
TokensPerMinute = Annotated[
    float | None, typer.Option(help="Most tokens per minute, in and out, on average.", rich_help_panel=CALLS)
]
CallTimeout = Annotated[
    float, typer.Option(help="Seconds for one call of a model openai:... or local:...", rich_help_panel=CALLS)
]
System = Annotated[str | None, typer.Option(help="A system prompt.", rich_help_panel=CALLS)]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature of every call.", rich_help_panel=CALLS)]
Preview = Annotated[bool, typer.Option("--preview", help="Print the estimated cost and exit.")]
ResponseTokens = Annotated[int, typer.Option(min=1, metavar="<int>", help="Tokens of a response, for --preview.")]
MaxResponseTokens = Annotated[
    int | None, typer.Option(min=1, metavar="<int>", help="Tokens of each response at most.", rich_help_panel=CALLS)
]
NoSeed = Annotated[
    bool, typer.Option("--no-seed", help="Send no seed, for servers that know none.", rich_help_panel=CALLS)
]
TotalUsd = Annotated[
    float | None, typer.Option(help="US dollars for all runs together, resumed ones included.", rich_help_panel=TOTAL)
]
TotalCalls = Annotated[int | None, typer.Option(help="Paid calls, the same.", rich_help_panel=TOTAL)]
TotalSeconds = Annotated[
    float | None, typer.Option(help="Seconds that it may take by the clock, the same.", rich_help_panel=TOTAL)
]
Prices = Annotated[
    str | None,
    typer.Option(
        help='US dollars per million tokens, as JSON: {"my-model": {"input": 1, "output": 4}}.', rich_help_panel=CALLS
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"icrl-graph {icrl_graph.__version__}")
        raise typer.Exit


@app.callback()
def icrl(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Reward-driven self-improvement of language models at inference time."""


@contextmanager
def errors_reported(resume: Path | str | None = None) -> Iterator[None]:
    """Turn an exception into one line on stderr and an exit code.

    Args:
        resume: the folder of the run; if one is saved there, the line after says how to resume it. Or that line.
    """
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:
        if hint := _resume_hint(resume):
            warn(hint)
        raise
    except _Terminated:
        warn(f"Stopped. {_resume_hint(resume)}")
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        warn(f"\nInterrupted. {_resume_hint(resume)}")
        raise typer.Exit(1) from None
    except (JournalError, ModelError, MissingExtra, OSError) as error:
        print_error(error, _resume_hint(resume))
        raise typer.Exit(1) from None
    except (ValueError, IcrlError) as error:
        print_error(error)
        raise typer.Exit(2) from None
    except BaseException as error:  # a SystemExit of somebody's code must not look like success
        print_error(f"{type(error).__name__}: {error}", _resume_hint(resume))
        raise typer.Exit(1) from None


class _RetryPrinter(logging.Handler):
    """Prints each retry as it is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        warn(f"          ~ {record.getMessage()}")


@contextmanager
def retries_shown() -> Iterator[None]:
    """Print every retry, so that a run that waits for a provider doesn't look as if it hung."""
    logger, handler = logging.getLogger("icrl_graph.execution.rate_limit"), _RetryPrinter()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Terminated(Exception):
    """A run was ended by SIGTERM."""


@contextmanager
def tracked(where: Sequence[str] | None, name: str | None = None) -> Iterator[Callable[[Any], None]]:
    """A function of events that logs them to trackers, or does nothing; at the end all of it is logged.

    Raises:
        ValueError: there is no such tracker.
        MissingExtra: it is not installed.
    """
    if not where:
        yield lambda event: None
        return
    from icrl_graph.integrations.tracking import track

    with ExitStack() as stack:
        trackers = [stack.enter_context(closing(track(each, name=name))) for each in where]

        def tell(event: Any) -> None:
            for tracker in trackers:
                tracker(event)

        yield tell


@contextmanager
def drained_by_sigterm() -> Iterator[Any]:
    """A `RunControl` through which SIGTERM ends a run after its current step; a second SIGTERM ends it at once."""
    from langgraph.errors import GraphDrained
    from langgraph.runtime import RunControl

    control = RunControl()

    def drain(*_: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        control.request_drain("SIGTERM")
        warn("Stopping once the calls in flight have answered; SIGTERM again stops at once.")

    before = signal.signal(signal.SIGTERM, drain)
    try:
        yield control
    except GraphDrained:
        raise _Terminated from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _resume_hint(folder: Path | str | None) -> str:
    if isinstance(folder, str):
        return folder
    if folder is None or not any(os.path.exists(folder / name) for name in ("run.json", "bench.json")):
        return ""
    return f"Progress is saved. Resume with: {command('resume', folder)}"


def tell_addresses(folder: Path, **addresses: str | None) -> None:
    """Tell which servers will be asked because a folder names them.

    Args:
        folder: what is resumed.
        addresses: by the name of the option that gives one.
    """
    from icrl_graph.models.addresses import FolderAddress, server_of

    for option, address in addresses.items():
        if isinstance(address, FolderAddress) and not server_of(address)[1]:
            hint = command("resume", folder, f"--{option.replace('_', '-')}", address)
            warn(
                f"Asks {address}, which {folder} names, without a key or user:password@. To send them, give it: {hint}"
            )


def write(text: str, console: Console = out, style: str = "") -> None:
    """Print a text as it is: without markup, line breaks or the control characters that a model may have sent."""
    console.print(without_control(text), style=style, highlight=False, markup=False, soft_wrap=True)


def list_parts(names: Sequence[str], describe: Callable[[str], str], as_json: bool) -> None:
    """Print parts with a line about each; one that an installed package declares and that can't be loaded says so."""

    def line(name: str) -> str:
        try:
            return describe(name)
        except ValueError as error:
            return f"! {error}"

    lines = {name: line(name) for name in names}
    if as_json:
        typer.echo(json.dumps(lines))
        return
    for name, about in lines.items():
        write(f"{name:{max(map(len, lines))}} {about}")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    write(text, err, "yellow")


def print_error(error: object, hint: str = "") -> None:
    """Print an error on stderr, and what to do."""
    write(f"error: {error}", err, "red")
    if hint:
        write(hint, err)


def without_control(text: str) -> str:
    """A text without control characters: a response must not steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def progress_bar(console: Console) -> Progress:
    """Bars that count something, with the time that is left."""
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def check_port(port: int, option: str = "--port") -> None:
    """Raise `OSError` if no server can listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that has just been closed is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise OSError(f"port {port} is unavailable: {error.strerror}; choose another by {option}") from None


def stdout_reserved(as_json: bool) -> AbstractContextManager[Any]:
    """With --json, what a model or an evaluator prints goes to stderr."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def parse_json(text: str | None, option: str) -> Any:
    """The value of an option that is JSON.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is JSON, got {text!r}: {error}") from None
