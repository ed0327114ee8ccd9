"""ScienceWorld (Wang et al., arXiv 2203.07540): 30 tasks of school science in a simulated house of ten rooms, by text.

    environment = ScienceWorld()
    first = await environment.reset({"task": "melt", "variation": 3})
    outcome = await environment.step("open door to kitchen")
    await environment.close()

The simulator is version 1.2.3 of the package `scienceworld`, a Java program; the extra `scienceworld` installs it, Java
itself is the system's (see docs/scienceworld.md). An episode is made of its actions alone: the same ones lead to the
same observations, in another process, after other episodes and on another machine. For that each environment has a
separate JVM (the simulator's random numbers are global to it), objects with one hash (`java.FLAGS`), and calls in one
order: some that look as if they only read, such as the list of valid actions, draw random numbers. So an environment
that shows valid actions (`show_valid`), or that compares texts with them (`embeddings`), gives other episodes than one
that does not.

Scores are those of the simulator, 0 to 100, and -100 once something wrong was focused on, which ends an episode. Not
covered: other versions of the simulator, and its object tree.
"""

from __future__ import annotations

from icrl_graph.environments.scienceworld.environment import EPISODES, REFUSED, Failure, ScienceWorld
from icrl_graph.environments.scienceworld.matching import ROOMS, closest, nearest
from icrl_graph.environments.scienceworld.offline import describe, gold_path
from icrl_graph.environments.scienceworld.simulator import PATIENCE, UNKNOWN, Simulator, Snapshot, capacity
from icrl_graph.environments.scienceworld.tasks import SIMPLIFICATIONS, TASKS, Spec, Split, Task
from icrl_graph.environments.scienceworld.templates import actions, instructions

__all__ = [
    "EPISODES",
    "PATIENCE",
    "REFUSED",
    "ROOMS",
    "SIMPLIFICATIONS",
    "TASKS",
    "UNKNOWN",
    "Failure",
    "ScienceWorld",
    "Simulator",
    "Snapshot",
    "Spec",
    "Split",
    "Task",
    "actions",
    "capacity",
    "closest",
    "describe",
    "gold_path",
    "instructions",
    "nearest",
]
