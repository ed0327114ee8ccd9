"""ScienceWorld (Wang et al., arXiv 2203.07540): 30 tasks of school science in a house of ten rooms, by text.

    world = ScienceWorld()
    begun = await world.reset({"task": "melt", "variation": 3})
    outcome = await world.step("open door to kitchen")
    await world.close()

The simulator is version 1.2.3 of the package `scienceworld`, a Java program; the extra `scienceworld` installs it, Java
itself is the system's (see docs/scienceworld.md). An episode is made of its actions alone: the same ones lead to the
same observations, in another process, after other episodes and on another machine. For that each world has a JVM of
its own (the simulator's random numbers are global to it), objects with one hash (`java.FLAGS`), and calls that come in
one order: some that look as if they only read, such as the list of valid actions, draw random numbers. So a world that
shows valid actions (`show_valid`), or that compares texts with them (`embeddings`), goes another way than one that does
not.

Scores are those of the simulator, 0 to 100, and -100 once something wrong was focused on, which ends an episode. Not
covered: other versions of the simulator, and its object tree.
"""

from __future__ import annotations

from icrl_graph.environments.scienceworld.matching import ROOMS, closest, nearest
from icrl_graph.environments.scienceworld.offline import describe, gold_path
from icrl_graph.environments.scienceworld.pool import Pool, room
from icrl_graph.environments.scienceworld.simulator import PATIENCE, UNKNOWN, Seen, Simulator
from icrl_graph.environments.scienceworld.tasks import SIMPLIFICATIONS, TASKS, Spec, Split, Task
from icrl_graph.environments.scienceworld.templates import actions, instructions
from icrl_graph.environments.scienceworld.world import EPISODES, REFUSED, Failure, ScienceWorld

__all__ = [
    "EPISODES",
    "PATIENCE",
    "REFUSED",
    "ROOMS",
    "SIMPLIFICATIONS",
    "TASKS",
    "UNKNOWN",
    "Failure",
    "Pool",
    "ScienceWorld",
    "Seen",
    "Simulator",
    "Spec",
    "Split",
    "Task",
    "actions",
    "closest",
    "describe",
    "gold_path",
    "instructions",
    "nearest",
    "room",
]
