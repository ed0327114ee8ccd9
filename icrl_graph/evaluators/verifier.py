"""Verifiers: evaluators that decide by exact means whether an answer is right, in worker processes with limits.

Two faults are kept apart. An answer that can't be judged (it does not parse, takes too long, kills its process) is
wrong: it earns 0, and the reason is its feedback. Task data that can't be judged by (a reference query that fails, a
schema that is none) is an error that names it: `check` raises it before the first call to a model is paid; where it
turns up later, the attempt is unscored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from icrl_graph.errors import missing_extra
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.isolation import LimitReached, isolated
from icrl_graph.state.reward import UNSCORED, Reward
from icrl_graph.tasks.mathematics.answers import tagged

TIMEOUT = 300.0
"""Seconds by the clock after which a worker is given up, and the attempt is unscored: its limit of the processor's time
has come long before, unless the machine is overloaded."""
FEEDBACK_CHARACTERS = 500
"""Of feedback, at most: the messages of libraries quote what they are about."""
EXTRA = "verifiers"

Judge = Callable[[Any, Mapping[str, Any]], Reward]
"""Judges an answer by the task data, in a worker; raises `Refused` where the answer is at fault, ValueError where the
task data is. For the answer None it only checks the task data."""


class Refused(Exception):
    """An answer can't be judged, and so is wrong; the message is its feedback."""


@dataclass(frozen=True)
class Verifier:
    """An evaluator that judges in workers.

    Attributes:
        judge: a function of a module, which the workers import.
        read: finds what is judged in an answer that is text.
        longest: characters of an answer that is judged.
        cpu: seconds of the processor's time for one answer.
        memory: MiB of a worker.
        blamed: what a worker may die of so that the answer is wrong, not unscored.
    """

    judge: Judge
    read: Callable[[str], str]
    longest: int
    cpu: float = 5.0
    memory: float = 512.0
    blamed: type[ChildProcessError] = LimitReached

    def verify(self, answer: Any, task_data: Mapping[str, Any]) -> Reward:
        """The evaluator.

        Args:
            answer: a text, or what `extract` made of one.
            task_data: what it is judged by.

        Raises:
            RuntimeError: the task data is at fault; of the name ValueError.
            TimeoutError: the machine is overloaded.
        """
        found = self.read(answer) if isinstance(answer, str) else answer
        if found is None or found == "":
            return Reward(value=0.0, feedback="There is no answer.")
        if isinstance(found, str) and len(found) > self.longest:
            return Reward(value=0.0, feedback=f"The answer is longer than {self.longest} characters.")
        try:
            reward: Reward = self._workers(answer=found, task_data=task_data)
        except self.blamed as died:
            return Reward(value=0.0, feedback=f"The answer could not be judged within its limits: {died}")
        if "feedback" in reward:
            reward["feedback"] = _shortened(reward["feedback"])
        return reward

    def check(self, task_data: Mapping[str, Any]) -> None:
        """Raise if no answer can be judged by some task data.

        Raises:
            ValueError: says what of it is wrong.
        """
        try:
            self._workers(answer=None, task_data=task_data)
        except ChildProcessError as died:
            raise ValueError(f"the task data can't be judged by: {died}") from None
        except RuntimeError as wrong:  # what the worker has raised
            raise ValueError(str(wrong)) from None

    @cached_property
    def _workers(self) -> Any:
        return isolated(_InWorker(self.judge), timeout=TIMEOUT, cpu=self.cpu, memory=self.memory).part


@dataclass(frozen=True)
class _InWorker:
    """The judge as it runs in a worker."""

    judge: Judge

    def __call__(self, answer: Any, task_data: Mapping[str, Any]) -> Reward:
        try:
            return self.judge(answer, task_data)
        except Refused as wrong:
            if answer is None:  # no answer was judged, but one of the task's own
                raise ValueError(str(wrong)) from None
            return Reward(value=0.0, feedback=str(wrong))


def bound(name: str, verifier: Verifier) -> BoundEvaluator:
    """A verifier under a name."""
    return BoundEvaluator(verifier.verify, ("answer", "task_data"), name, on_error=UNSCORED, check=verifier.check)


def require(package: str) -> None:
    """Raise if a package of the extra is missing.

    Raises:
        MissingExtra: names it, with the command that installs it.
    """
    if find_spec(package) is None:
        raise missing_extra(package, EXTRA)


def texts(task_data: Mapping[str, Any], name: str, what: str) -> list[str]:
    """What a task has under a name: a text, or a list of texts.

    Args:
        task_data: the task's.
        name: the key.
        what: it should be, for the error.

    Raises:
        ValueError: it is something else.
    """
    told = task_data.get(name)
    found = [told] if isinstance(told, str) else told
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in found):
        raise ValueError(f"task_data[{name!r}] must be {what}, got {told!r:.200}")
    return found


_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n?", re.M)


def read_block(text: str) -> str:
    """The code or the data that an answer gives, as models write it.

    It is what stands in the last `<answer>...</answer>`; of this, or of the whole text, the last block between two
    fences of three backticks; without any, the whole.
    """
    inner = tagged(text)
    text = text if inner is None else inner
    fences = list(_FENCE.finditer(text))
    if len(fences) > 1:
        last = len(fences) - len(fences) % 2
        text = text[fences[last - 2].end() : fences[last - 1].start()]
    return text.strip()


def _shortened(text: str) -> str:
    return text if len(text) <= FEEDBACK_CHARACTERS else f"{text[:FEEDBACK_CHARACTERS]}..."
