"""All errors of the package, in one tree.

    IcrlError
    ├── BudgetExceeded    a call would pass a cap; raised into a node, which ends the run with its best answer
    ├── JournalError      a reply could not be saved or looked up: the disk is full, the file is not a journal
    ├── ModelError        no attempt can succeed until a person fixes something: key, model name, address
    ├── ThreadMismatch    a stored thread holds another task or was made by another version (also a ValueError)
    ├── ThreadBusy        somebody else drives the thread (also a BlockingIOError)
    ├── NoEpisode         an action before an episode of an environment was begun, after it ended, or after `close`
    ├── SimulatorError    the simulator of an environment failed, independently of the agent's actions
    │   └── SimulatorUnavailable    it does not start: a program that it needs is missing or broken
    ├── UnknownTask       the task is not one that the shipped learner was trained on (also a ValueError)
    └── MissingExtra      an optional package is not installed (also an ImportError)

Wrong arguments are plain `ValueError`s, raised when a graph is built, that name the value and the choices. A failed
attempt is not an error: it is data on its episode.
"""

from __future__ import annotations


class IcrlError(RuntimeError):
    """Base of the errors of this package.

    A RuntimeError, because LangGraph's server sends a client the messages of built-in exceptions only.
    """


class BudgetExceeded(IcrlError):
    """One more call would pass a cap.

    Args:
        cap: "calls", "tokens", "usd" or "time".
    """

    def __init__(self, cap: str) -> None:
        super().__init__(f"the budget of {cap} is spent")
        self.cap = cap


class ModelError(IcrlError):
    """The model can't answer at all; the run stops here, keeps its episodes, and can be resumed once this is fixed."""


class JournalError(IcrlError):
    """The journal failed; the run stops here, before anything more is paid, and can be resumed."""


class ThreadMismatch(IcrlError, ValueError):
    """A stored thread is not the run that was requested."""


class ThreadBusy(IcrlError, BlockingIOError):
    """A stored thread is being driven by somebody else; two drivers would pay twice and spoil each other's results."""


class NoEpisode(IcrlError):
    """There is no episode to act in; `reset` begins one."""


class SimulatorError(IcrlError):
    """The simulator of an environment failed; the episode says nothing about the agent."""


class SimulatorUnavailable(SimulatorError):
    """The simulator can't be started on this machine as it is."""


class UnknownTask(IcrlError, ValueError):
    """The task is not one that the shipped learner was trained on."""


class MissingExtra(IcrlError, ImportError):
    """An optional dependency is missing."""


def missing_extra(package: str, extra: str) -> MissingExtra:
    """The error for an optional package, with the command that installs it."""
    return MissingExtra(f"{package} is not installed; run: pip install 'icrl-graph[{extra}]'")
