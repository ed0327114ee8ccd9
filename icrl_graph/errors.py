"""All errors of the package, in one tree.

    IcrlError
    ├── BudgetExceeded    a call would pass a cap; raised into a node, which ends the run with its best answer
    ├── JournalError      a reply could not be saved or looked up: the disk is full, the file is not a journal
    ├── ModelError        no attempt can succeed until a person mends something: key, model name, address
    ├── ThreadMismatch    a stored thread holds another task or was made by another version (also a ValueError)
    ├── NoEpisode         an environment was acted in before an episode had begun, after it had ended, or once closed
    ├── SimulatorError    the simulator of an environment failed by itself, not because of an action
    │   └── SimulatorUnavailable    it does not start: a program that it needs is missing or broken
    ├── UnknownTask       the shipped learner got a task that it does not play (also a ValueError)
    └── MissingExtra      an optional package is not installed (also an ImportError)

Wrong arguments are plain `ValueError`s, raised when a graph is built, that name the value and the choices. A failed
attempt is not an error: it is data on its episode.
"""

from __future__ import annotations


class IcrlError(RuntimeError):
    """Base of the errors of this package.

    A RuntimeError, because LangGraph's server tells a client the words of built-in exceptions only.
    """


class BudgetExceeded(IcrlError):
    """One more call would pass a cap.

    Args:
        cap: which one: "calls", "tokens", "usd" or "time".
    """

    def __init__(self, cap: str) -> None:
        super().__init__(f"the budget of {cap} is spent")
        self.cap = cap


class ModelError(IcrlError):
    """The model can't answer at all; the run stops here, keeps what it has, and can be resumed once this is mended."""


class JournalError(IcrlError):
    """The journal failed; the run stops here, before anything more is paid, and can be resumed."""


class ThreadMismatch(IcrlError, ValueError):
    """A stored thread is not the run that was asked for."""


class NoEpisode(IcrlError):
    """There is no episode to act in; `reset` begins one."""


class SimulatorError(IcrlError):
    """The simulator of an environment failed; its result says nothing about the actions."""


class SimulatorUnavailable(SimulatorError):
    """The simulator can't be started on this machine as it is."""


class UnknownTask(IcrlError, ValueError):
    """The shipped learner got a task that it does not know."""


class MissingExtra(IcrlError, ImportError):
    """An optional dependency is missing."""


def missing_extra(package: str, extra: str) -> MissingExtra:
    """The error for an optional package, with the command that installs it."""
    return MissingExtra(f"{package} is not installed; run: pip install 'icrl-graph[{extra}]'")
