"""The templates of the actions, and the instructions for an agent."""

from __future__ import annotations

from icrl_graph.environments.scienceworld.tasks import Spec
from icrl_graph.prompts.templates import SCIENCEWORLD_INSTRUCTIONS, fill

_ACTIONS = {
    "open OBJ": "open a container or a door",
    "close OBJ": "close a container or a door",
    "activate OBJ": "turn on a device",
    "deactivate OBJ": "turn off a device",
    "connect OBJ to OBJ": "connect electrical components",
    "disconnect OBJ": "disconnect electrical components",
    "use OBJ on OBJ": "use a tool or a device on something",
    "look around": "see the room that you are in",
    "look at OBJ": "see something closely",
    "look in OBJ": "see what a container holds",
    "read OBJ": "read a note or a book",
    "move OBJ to OBJ": "put something into or onto something else",
    "pick up OBJ": "take something along",
    "put down OBJ": "leave something that you carry",
    "pour OBJ in OBJ": "pour a liquid into a container",
    "dunk OBJ in OBJ": "dip a container into a liquid",
    "mix OBJ": "mix what a container holds",
    "go OBJ": "go to a neighbouring room, through an open door",
    "teleport OBJ": "go straight to any room",
    "eat OBJ": "eat something",
    "flush OBJ": "flush a toilet",
    "focus on OBJ": "say that this is the object that the task is about",
    "inventory": "see what you carry",
    "task": "read the task again",
    "wait": "let ten moments pass",
    "wait1": "let one moment pass",
}
"""The simulator's templates, but for "reset task", which is refused: it would take back what the task has counted."""
_NEEDS = {"teleport OBJ": "teleportAction"}
_LACKS = {"connect OBJ to OBJ": "noElectricalAction", "disconnect OBJ": "noElectricalAction"}


def actions(task: str, simplification: str = "easy") -> list[str]:
    """The templates of a task's actions, with OBJ in place of an object.

    Raises:
        ValueError: there is no such episode.
    """
    simplified = Spec(task, 0, simplification).simplifications()
    return [a for a in _ACTIONS if _NEEDS.get(a) in {None, *simplified} and _LACKS.get(a) not in simplified]


def instructions(task: str, simplification: str = "easy", *, description: str = "") -> str:
    """The instructions before an agent's first action.

    Args:
        task: one of `TASKS`.
        simplification: as in `Spec`.
        description: the task in the simulator's words (`describe`), if it is to stand here, too, not in the first
            observation alone.

    Raises:
        ValueError: there is no such episode.
    """
    listed = "\n".join(f"- {action}: {_ACTIONS[action]}" for action in actions(task, simplification))
    return fill(SCIENCEWORLD_INSTRUCTIONS, actions=listed, task=f"\n\n{description}" if description else "")


def words_of(text: str) -> list[str]:
    """The words of a text without articles, which the simulator skips."""
    return [word for word in text.lower().split() if word not in ("the", "a", "an")]


def allowed(action: str) -> bool:
    """Whether an action is not "reset task", however it is written."""
    return words_of(action) != ["reset", "task"]
