"""What the thread of a run is to do next: begin, go on, be played for longer, or nothing, because it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from langgraph.types import StateSnapshot

from icrl_graph.errors import ThreadMismatch
from icrl_graph.state.fingerprint import differ, edited
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.nodes import check_schema_version
from icrl_graph.topologies.settings import (
    EARLY_STOPS,
    GIVEN_UP,
    MAIN,
    RENAMED,
    SWITCH,
    RunSettings,
    SavedSettings,
    Settings,
)
from icrl_graph.topologies.stopping import reopen, stop_reason


class Step(NamedTuple):
    """What a thread is to do next."""

    input: dict[str, Any] | None = None
    """None where it has begun."""
    update: dict[str, Any] | None = None
    """Of its state, as of `evaluate`, before."""
    is_last: bool = True
    """Whether that is all; else what is asked for beyond it follows once it has ended."""


def next_step(graph: Graph, stored: StateSnapshot, inputs: Mapping[str, Any], wanted: RunSettings) -> Step | None:
    """What a thread is to do next for the run that is asked for; None where that has ended.

    A thread has ended where no task is left, not even one that has done its work and waits to be saved: only then may
    its state be changed. What was interrupted is played to its end first, as if nothing had happened.

    Raises:
        ThreadMismatch: the thread is another run than the one asked for.
    """
    saved = stored.values.get("settings")
    if not saved:  # new, or killed before anything was paid
        return Step(dict(inputs))
    check_schema_version(saved)
    if stored.values["inputs"] != inputs:
        raise ThreadMismatch("the thread holds a run on another task; give another thread_id or another path")
    settings, episodes = SavedSettings.of(saved), stored.values["episodes"]
    is_open, gave_up = bool(stored.tasks), stored.values.get("stopped") in GIVEN_UP
    changes = _changes(saved, wanted, ended=not is_open and not gave_up)
    rounds = settings.rounds if is_open or gave_up else episodes[-1]["round"] + 1 - settings.lost_rounds
    can_be_longer = settings.has_rounds and graph.parts.schema.can_be_extended
    if changes and not (can_be_longer and _is_longer(wanted, changes, rounds)):
        raise ThreadMismatch(f"the thread holds another run ({', '.join(changes.values())}); {_OTHER_THREAD}")
    if is_open:
        return Step(is_last=not changes)
    if gave_up and not settings.has_rounds:  # nothing was answered: begin anew
        return Step(dict(inputs))
    longer = {**saved, **{name: getattr(wanted, name) for name in changes}}
    if gave_up:
        return Step(update=reopen(longer, episodes))
    if not changes:
        return None
    later = SavedSettings.of(longer)
    reason = stop_reason(later, episodes, graph.parts.calls_ahead(later, episodes), graph.parts.is_enough(later))
    return Step(update={"settings": longer, "stopped": reason})


_OTHER_THREAD = "give another thread_id or path, or what it was made with"
_WRITERS = ("reflector", "critic")
"""What a run that has not ended may be resumed with another one of, as with another model."""


def _changes(saved: Mapping[str, Any], wanted: RunSettings, ended: bool) -> dict[str, str]:
    """By name, the settings, parts and options that differ from what is saved, as "name 'saved' -> 'wanted'"."""
    settings = {RENAMED.get(name, name): value for name, value in saved.items()}
    values, parts = wanted.model_dump(), {**saved["parts"], **wanted.parts}
    added = Settings.model_fields.keys() - settings  # what the version that saved it did not have
    compared = [name for name in values if name not in added and (ended or name not in (MAIN, SWITCH))]
    pairs = [(name, settings.get(name), values[name]) for name in compared]
    fixed = [name for name in parts if ended or name not in (*wanted.models, *_WRITERS)]
    pairs += [(name, saved["parts"].get(name), wanted.parts.get(name)) for name in fixed]
    changes = {name: f"{name} {old!r} -> {new!r}" for name, old, new in pairs if old != new}
    mendable = () if ended else (*wanted.models, *_WRITERS, "sampling", "max_response_tokens")
    code = edited(saved.get("code", {}), wanted.code)
    if (options := saved.get("options")) is not None:  # else an earlier version saved the run
        code += [name for name in {**options, **wanted.options} if differ(options.get(name), wanted.options.get(name))]
    return {name: f"{name} has been edited" for name in code if name not in mendable} | changes


def _is_longer(wanted: RunSettings, changes: Mapping[str, str], rounds: int) -> bool:
    """Whether all that is wanted beyond a run is more rounds than these, or one early stop less."""
    dropped = {name for name in EARLY_STOPS if getattr(wanted, name, None) is None}
    return getattr(wanted, "rounds", 0) > rounds and changes.keys() <= {"rounds", *dropped}
