"""Evaluators in worker processes: one that crashes, hangs or eats memory costs its attempt, never the run.

    from icrl_graph.evaluators import isolated

    result = improve(task, isolated(passes_the_tests, timeout=10, memory=512), model="openai:gpt-4.1-mini")

A worker is a fresh Python that reads arguments and writes rewards; it serves one evaluation after another. It leads a
process group of its own, so what it has started is ended with it, except what has left the group
(`start_new_session=True`), and the kernel ends it when the run's process is gone, however that ended. What it prints
goes to the standard error. It is not a sandbox: code that runs there may do what you may. For Linux and macOS.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TypeVar

from icrl_graph.evaluators.evaluator import BoundEvaluator, Evaluator, bind_evaluator
from icrl_graph.state.checks import check_above_0
from icrl_graph.state.loading import LOADED
from icrl_graph.state.reward import OnError, Reward, as_reward

_Any = TypeVar("_Any")
LOADING = 120.0
"""Seconds that a worker may take to load the evaluator."""
OUT_OF_MEMORY = 77
"""Exit code of a worker that has reached its memory limit."""
_BY_ITSELF = {signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
"""Signals that a process gets for what it does: it has used up its time, or it crashed."""
LONGEST_REPLY = 2**24
"""Bytes; what is longer is no reward."""


class LimitReached(ChildProcessError):
    """A worker died of what it did: out of memory, out of the processor's time, or it crashed in native code."""


def isolated(
    evaluator: Evaluator,
    *,
    timeout: float = 60.0,
    cpu: float | None = None,
    memory: float | None = None,
    workers: int | None = None,
    on_error: OnError | None = None,
) -> BoundEvaluator:
    """The same evaluator, in worker processes.

    A worker that dies or takes too long is replaced; for its attempt that is as if the evaluator had raised. The
    workers live as long as what this returns, and no longer than this process; `.part.close()` ends the idle ones
    before. A process that is forked from it has its own.

    Args:
        evaluator: a function, sync or async, or a LangChain tool, with the arguments that evaluators have. What can
            be imported, such as a function of a module, the workers import anew, as it is on the disk; the rest, such
            as a lambda or a function of a script or a notebook, is copied with the values that it has now. A change
            that it makes to a variable stays in its worker.
        timeout: seconds for one evaluation.
        cpu: seconds of the processor's time for one evaluation, which do not pass while the machine is busy with
            others; without the processes that it starts. None for no limit.
        memory: MiB of data that a worker, and each process that it starts, may hold; None for no limit. Linux only.
        workers: evaluations at the same time at most; default as many as there are processors.
        on_error: the reward of an attempt on which it raises, dies or takes too long, such as 0, or "unscored"; default
            what the evaluator declares, else what the graph's option says.

    Raises:
        ValueError: the evaluator can't be copied to another process or loaded there, is not a function or a tool, asks
            a person, or a number is not above 0.
    """
    inner = bind_evaluator(evaluator)
    if on_error is not None:
        inner = replace(inner, on_error=on_error)
    if _is_worker:  # a module that isolates its evaluator is imported by the worker, too
        return inner
    workers = (os.cpu_count() or 1) if workers is None else workers
    check_above_0(timeout=timeout, cpu=cpu, memory=memory, workers=workers)
    if inner.flow or inner.calls or inner.asks:
        raise ValueError(
            f"only a function or a tool can be isolated, not a judge, a Runnable or a person; got {evaluator!r}"
        )
    pool = WorkerPool((_copied(inner.part), cpu, memory), timeout, workers)
    pool.__wrapped__ = inner.part
    return replace(inner, part=pool)


Setup = tuple[bytes, float | None, float | None]
"""The evaluator, copied, and the limits of a worker: seconds of the processor's time, MiB of memory."""


class WorkerPool:
    """The workers of one evaluator; called like it, from any number of threads.

    Attributes:
        __wrapped__: the evaluator in this process, which a saved run is known by.

    Raises:
        ValueError: a worker can't load the evaluator.
    """

    __wrapped__: Any

    def __init__(self, setup: Setup, timeout: float, workers: int) -> None:
        self._timeout, self._setup, self._most = timeout, setup, workers
        self._here: dict[int, tuple[threading.Semaphore, list[Worker]]] = {}
        self._of_process()[1].append(Worker(self._setup))  # so that a failure to load is raised now

    def __call__(self, **arguments: Any) -> Reward:
        """Evaluate.

        Raises:
            TimeoutError: it took too long.
            LimitReached: the worker died of what it did.
            ChildProcessError: it died otherwise.
            ConnectionError: no worker can be started.
            RuntimeError: the evaluator raised; its class has the name of that of the exception.
        """
        slots, idle = self._of_process()
        with slots:
            worker = self._take(idle)
            try:
                reply = worker.ask(arguments, self._timeout)
            except BaseException:
                worker.end()
                raise
            idle.append(worker)
        if "raised" in reply:
            name, message = reply["raised"]
            raise type(name, (RuntimeError,), {})(message)
        return as_reward(reply["reward"])

    def close(self) -> None:
        """End the idle workers; later evaluations start new ones."""
        _, idle = self._of_process()
        with suppress(IndexError):
            while True:
                idle.pop().end()

    def _of_process(self) -> tuple[threading.Semaphore, list[Worker]]:
        """The slots and the idle workers of this process: a forked one shares no pipe with its parent."""
        return self._here.setdefault(os.getpid(), (threading.BoundedSemaphore(self._most), []))

    def _take(self, idle: list[Worker]) -> Worker:
        """An idle worker, or a new one."""
        with suppress(IndexError):
            while not (worker := idle.pop()).idle():
                worker.end()
            return worker
        try:
            return Worker(self._setup)
        except (OSError, ValueError) as error:  # it could be started before, so that is not because of the answer
            raise ConnectionError(f"no worker could be started: {error}") from error


class Worker:
    """A process that evaluates.

    Args:
        setup: the evaluator, copied, and the worker's limits.

    Raises:
        ValueError: it can't load the evaluator.
    """

    def __init__(self, setup: Setup) -> None:
        self._pipe, theirs = socket.socketpair()
        lifeline, held = os.pipe()  # nothing is written to it; the kernel closes our end when this process ends
        fds = (theirs.fileno(), lifeline)
        path = [entry for entry in sys.path if isinstance(entry, str)]
        begin = f"import sys; sys.path[:] = {path}; from icrl_graph.evaluators.isolation import serve; serve{fds}"
        command = [sys.executable, "-c", begin]
        with theirs:  # what a worker prints is not output of the run: it goes to the standard error
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=fds, start_new_session=True
            )
        os.close(lifeline)
        self.end = weakref.finalize(self, _end, os.getpid(), self._process, self._pipe, held)
        problem: str | None
        try:
            raised = self.ask(setup, LOADING).get("raised")
            problem = raised and ": ".join(raised)
        except (ChildProcessError, TimeoutError) as error:
            problem = str(error)
        if problem is not None:
            self.end()
            raise ValueError(f"the evaluator can't be loaded in a process of its own: {problem}; {_ADVICE}")

    def ask(self, question: Any, timeout: float) -> dict[str, Any]:
        """Send the worker a question, and wait for its whole reply: a line of JSON.

        Raises:
            TimeoutError: no whole reply in time.
            ChildProcessError: the worker died, or gave something that is no reply.
        """
        end, reply = time.monotonic() + timeout, bytearray()
        unsent = memoryview(pickle.dumps(question))
        try:
            while unsent:
                unsent = unsent[self._in_time(self._pipe.send, unsent, end, timeout) :]
            while not reply.endswith(b"\n"):
                reply += (chunk := self._in_time(self._pipe.recv, 2**16, end, timeout))
                if not chunk:
                    raise EOFError
                if len(reply) > LONGEST_REPLY:
                    raise ValueError("it is too long")
            read = json.loads(reply)
            if not (isinstance(read, dict) and read.keys() <= {"reward", "raised"}):
                raise ValueError("it has another form")
        except (ConnectionError, EOFError):
            raise self._death() from None
        except (ValueError, RecursionError) as error:
            raise ChildProcessError(f"the evaluator's process gave no reply that can be read: {error}") from None
        return read

    def _in_time(self, step: Callable[[Any], _Any], argument: Any, end: float, timeout: float) -> _Any:
        """Send or receive as soon as that is possible."""
        from icrl_graph.execution.queue import interrupted  # here, because workers load this module, too

        while True:
            if interrupted():
                raise KeyboardInterrupt
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError(f"nothing came back within {timeout:g} s")
            self._pipe.settimeout(min(0.1, left))
            with suppress(TimeoutError):
                return step(argument)

    def idle(self) -> bool:
        """Whether it waits for work; if not, it has died, or says what nobody has asked."""
        self._pipe.settimeout(0)
        try:
            self._pipe.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _death(self) -> ChildProcessError:
        with suppress(subprocess.TimeoutExpired):  # it may have closed its pipe and be about to exit by itself
            self._process.wait(1)
        self.end()
        code = self._process.returncode
        fate = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        fate = {OUT_OF_MEMORY: "out of memory", -signal.SIGPROF: "out of the processor's time"}.get(code, fate)
        kind = LimitReached if code == OUT_OF_MEMORY or -code in _BY_ITSELF else ChildProcessError
        return kind(f"the evaluator's process died: {fate}")


def _end(owner: int, process: subprocess.Popen[bytes], pipe: Any, held: int) -> None:
    """End a worker with all that it has started, and wait until it is gone; in a fork, only close the pipe to it."""
    pipe.close()
    if os.getpid() == owner:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    os.close(held)


_ADVICE = (
    "give a function that refers to nothing but other functions and plain values, and opens its files, locks and "
    "connections itself"
)


def _copied(part: Any) -> bytes:
    """A function or a tool as bytes: by its name where another process can import it, else with its code.

    Raises:
        ValueError: it can't be.
    """
    import cloudpickle

    code = getattr(part, "func", None) or getattr(part, "coroutine", None) or part
    module = sys.modules.get(getattr(code, "__module__", None) or "")
    by_value = module is not None and not _importable(module.__name__)
    try:
        if by_value:
            cloudpickle.register_pickle_by_value(module)
        copied: bytes = cloudpickle.dumps(part)
    except Exception as error:
        raise ValueError(f"the evaluator can't be copied to a process of its own: {error}; {_ADVICE}") from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return copied


def _importable(module: str) -> bool:
    """Whether another process finds a module; if not, it was loaded from a path, or has no file at all."""
    if module.startswith(LOADED):
        return False
    try:
        return find_spec(module.partition(".")[0]) is not None
    except ValueError:  # it has no spec; of __main__, cloudpickle itself takes care
        return module == "__main__"


# ------------------------------------------------------------------------------------------------------- in the worker

_is_worker = False


def serve(pipe: int, lifeline: int) -> None:
    """Evaluate what comes through a pipe, until it is closed.

    Args:
        pipe: the file descriptor of this process's end.
        lifeline: that of a pipe which is closed when this process is to end.
    """
    global _is_worker
    _is_worker = True
    _end_with(lifeline)
    signal.signal(signal.SIGTERM, lambda *_: None)  # a supervisor may send it to all; the run says when this one ends
    os.set_inheritable(pipe, False)
    connection = socket.socket(fileno=pipe)
    questions, worker = connection.makefile("rb"), os.getpid()
    runner = asyncio.Runner()  # one event loop for all evaluations, to which belongs what an async client keeps
    try:
        copied, cpu, memory = pickle.load(questions)
        part, reply = _loaded(copied, memory)
        while True:
            if os.getpid() != worker:  # the evaluator has forked; one of the two answers
                os._exit(0)
            connection.sendall(json.dumps(reply).encode() + b"\n")
            with _cpu_limit(cpu):
                reply = _judged(part, pickle.load(questions), runner)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (EOFError, ConnectionError):  # the run no longer needs it
        pass


def _end_with(lifeline: int) -> None:
    """Have the kernel end this process and what it has started when a pipe is closed, whatever they are doing."""
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    with suppress(BlockingIOError):  # it is open, so there is nothing to read
        os.read(lifeline, 1)
        os._exit(1)


def _loaded(copied: bytes, memory: float | None) -> tuple[Any, dict[str, Any]]:
    """The evaluator, and the reply to the run: empty, or with the error of loading it."""
    import resource

    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as oom_score:
        oom_score.write("1000")  # if memory is short, Linux is to end this process rather than the run
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(min(memory, 2**40) * 2**20),) * 2)
    try:
        return bind_evaluator(pickle.loads(copied)).part, {}  # a name may stand for an isolated evaluator here
    except Exception as error:
        return None, _raised(error)


@contextmanager
def _cpu_limit(seconds: float | None) -> Iterator[None]:
    """Have the kernel end this process when it has used up its time, also within native code that never returns."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _judged(part: Any, arguments: dict[str, Any], runner: asyncio.Runner) -> dict[str, Any]:
    """The reply to the run: the reward, or what the evaluator has raised. It runs in this process's main thread."""
    try:
        if hasattr(part, "invoke"):
            from icrl_graph.execution.calls import Call, begin

            result = begin(Call(part, arguments, read=as_reward))
        else:
            result = part(**arguments)
        return {"reward": as_reward(runner.run(_awaited(result)) if inspect.isawaitable(result) else result)}
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        return _raised(error)


def _raised(error: BaseException) -> dict[str, Any]:
    return {"raised": [type(error).__name__, str(error)]}


async def _awaited(result: Any) -> Any:
    return await result
