"""Options of a command made from the settings of a run, and `--set` for the settings that have no option.

Name, type and help of an option are those of the field in `icrl_graph.topologies.settings`. That module takes most of
a second to import, so the options are made when a command is run or its help is shown, not when all are listed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, get_args

import typer
from rich.markup import escape

from icrl_graph.cli.shared import CALLS, Command
from icrl_graph.state.loading import absolute

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other setting, such as warmup=2; may be repeated. A wrong name lists the choices.",
    ),
]

BUDGETS = ("max_calls", "max_tokens", "max_usd", "max_seconds")


class SettingsCommand(Command):
    """A command with an option for each of some settings; those that were used are in `context.obj`."""

    panels: ClassVar[Mapping[str, Sequence[str]]]
    """The settings that have an option, by panel of the help."""

    @cached_property
    def options(self) -> list[Any]:
        """The options made from settings."""
        from icrl_graph.topologies.settings import BestOfNSettings, Settings

        names = {name: panel for panel, names in self.panels.items() for name in names}
        fields = {**BestOfNSettings.model_fields, **Settings.model_fields}
        only = dict.fromkeys(BestOfNSettings.model_fields.keys() - Settings.model_fields, BestOfNSettings.namespace)

        def command() -> None: ...

        parameters = [_parameter(name, fields[name], panel, only.get(name)) for name, panel in names.items()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app = typer.Typer(add_completion=False)
        app.command()(command)
        return list(typer.main.get_command(app).params)

    def get_params(self, ctx: Any) -> list[Any]:
        """All arguments and options; those of the settings stand before the panel of calls."""
        params = super().get_params(ctx)
        calls = next(at for at, param in enumerate(params) if getattr(param, "rich_help_panel", None) == CALLS)
        return [*params[:calls], *self.options, *params[calls:]]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, and set the settings apart from the arguments of the function."""
        rest = super().parse_args(ctx, args)
        values = {option.name: ctx.params.pop(option.name) for option in self.options}
        ctx.obj = {name: absolute(value) for name, value in values.items() if value is not None}
        return rest


def _parameter(name: str, field: Any, panel: str, only: str | None) -> inspect.Parameter:
    """A parameter as Typer reads it, of the field's type and not required."""
    types = {field.annotation, *get_args(field.annotation)}
    kind = next((each for each in (int, float) if each in types), str)
    choices = _choices(name)
    notes = [field.description, f"For {only}." if only else "", "Custom: path.py:name." if choices else ""]
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=escape(" ".join(filter(None, notes))),
        rich_help_panel=panel,
        autocompletion=(lambda: choices) if choices else None,
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _choices(name: str) -> list[str]:
    """The names that a setting can have, if it names a part; of one with a number, what stands ahead of that."""
    from icrl_graph.prompts.ablations import ABLATIONS
    from icrl_graph.prompts.layouts import LAYOUTS
    from icrl_graph.prompts.memory import MEMORIES
    from icrl_graph.prompts.plan import SCHEDULES, SPREADS
    from icrl_graph.state.stop_rules import STOP_RULES

    kinds = {
        "memory": MEMORIES,
        "schedule": SCHEDULES,
        "spread": SPREADS,
        "layout": LAYOUTS,
        "show": ABLATIONS,
        "stop": STOP_RULES,
    }
    names: Iterable[str] = kinds.get(name, ())
    return ["".join(each.partition(":")[:2]) for each in names]


def chosen_settings(
    context: typer.Context, assignments: Sequence[str], schemas: Sequence[Any], reserved: Sequence[str]
) -> dict[str, Any]:
    """The settings of a command line, those of `--set` validated.

    Args:
        context: of a `SettingsCommand`.
        assignments: the values of `--set`, as they were written.
        schemas: the settings that there are, as classes; of a name in several, the first counts.
        reserved: settings that `--set` can't change.

    Raises:
        ValueError: one is not NAME=VALUE, the setting is unknown or set twice, or the value is wrong; names the
            choices.
    """
    from icrl_graph.topologies.settings import schema

    owners = {name: each for each in reversed(schemas) for name in each.model_fields if name not in reserved}
    values = dict(context.obj)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--set is written NAME=VALUE, got {text!r}")
        if name not in owners:
            raise ValueError(f"--set: unknown setting {name!r}; choose among {', '.join(owners)}")
        if name in values:
            raise ValueError(f"--set: {name} is set twice")
        try:
            values[name] = getattr(schema(owners[name], {name: absolute(value)})(), name)
        except ValueError as error:
            raise ValueError(f"--set {error}") from None
    return values
