"""What the commands share: the app, the two consoles, how failures are told."""

from __future__ import annotations

import json
import logging
import signal
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from icrl_graph.errors import IcrlError, JournalError, MissingExtra, ModelError

app = typer.Typer(
    name="icrl",
    help="Reward-driven self-improvement of language models at inference time.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
out, err = Console(), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


@contextmanager
def telling(resume: Path | None = None) -> Iterator[None]:
    """Turn failures into one clear line and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except _Drained:
        err.print(f"Stopped. {_kept(resume)}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        err.print(f"\nInterrupted. {_kept(resume)}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except (JournalError, ModelError, MissingExtra, OSError) as error:
        fail(error, _kept(resume))
        raise typer.Exit(1) from None
    except (ValueError, IcrlError) as error:
        fail(error)
        raise typer.Exit(2) from None
    except Exception as error:
        fail(f"{type(error).__name__}: {error}", _kept(resume))
        raise typer.Exit(1) from None


class _Repeats(logging.Handler):
    """Tells each call that is to be made again."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one."""
        told = printable(f"          ~ {record.getMessage()}")
        err.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def telling_repeats() -> Iterator[None]:
    """Tell when a provider is waited for: nobody likes to look at a screen that stands still."""
    logger, handler = logging.getLogger("icrl_graph.execution.rate_limit"), _Repeats()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Drained(Exception):
    """A run was ended by SIGTERM."""


@contextmanager
def draining() -> Iterator[Any]:
    """Let SIGTERM end what is run with this `RunControl` after the step that it is in; a second one, at once."""
    from langgraph.errors import GraphDrained
    from langgraph.runtime import RunControl

    control = RunControl()

    def drain(*_: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        control.request_drain("SIGTERM")
        told = "Stopping once the calls in flight have answered; SIGTERM again stops at once."
        err.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)

    before = signal.signal(signal.SIGTERM, drain)
    try:
        yield control
    except GraphDrained:
        raise _Drained from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _kept(folder: Path | None) -> str:
    if folder is None or not any((folder / name).exists() for name in ("run.json", "bench.json")):
        return ""
    return f"What was done so far is kept. Go on with: icrl resume {folder}"


def fail(error: object, hint: str = "") -> None:
    """Tell an error on stderr, and what to do."""
    err.print(printable(f"error: {error}"), style="red", highlight=False, markup=False, soft_wrap=True)
    if hint:
        err.print(hint, highlight=False, markup=False, soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """Bars that count something, with the time that is left."""
    bar = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*bar, console=console, transient=True)


def quiet(as_json: bool) -> AbstractContextManager[Any]:
    """With --json, what a model or an evaluator prints goes to stderr."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def printable(text: str) -> str:
    """Without control characters: what a model says must not steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def whole(name: str | None) -> Any:
    """A file's name as a whole path, so that a run can be resumed from anywhere."""
    where, colon, attribute = (name or "").rpartition(":")
    return f"{Path(where).resolve()}:{attribute}" if colon and where.endswith(".py") else name


def read_json(text: str | None, option: str) -> Any:
    """What stands in an option as JSON."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is JSON, got {text!r}: {error}") from None
