"""Code with unit tests: an answer is a Python program, and the share of tests that it passes is its reward.

The tests run in one process, the answer's code in another (`answer_process`), new for each answer. The tests call the
answer's functions over a pipe and get plain values back, which they compare themselves. So no code can pass by ending
its process, by printing, by replacing `assert`, by objects that equal everything, or by what it finds of the tests in
its memory: they are not there.
"""

from __future__ import annotations

import ast
import builtins
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from icrl_graph.evaluators import answer_process
from icrl_graph.evaluators.answer_process import decode, encode
from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.verifier import Refused, Verifier, bound, read_block, texts
from icrl_graph.state.reward import Reward

logger = logging.getLogger(__name__)

ALLOWED_BY = "ICRL_RUN_CODE"
"""The variable of the environment that allows, as 1, to run the code of answers."""
LONGEST = 100_000
"""Characters of an answer."""
SECONDS, CPU_SECONDS, MEMORY = 100.0, 10, 512
"""For one answer with all its tests: seconds by the clock and of the processor's time, and MiB."""
LONGEST_REPLY = 2**24
"""Bytes of a value."""


def code_tests(*, run: bool = False) -> BoundEvaluator:
    """An evaluator of Python code. It runs what a model wrote, on this machine: it has to be allowed.

    The task data has `tests`, a Python program or a list of them, which run one after another in one namespace with the
    public names that the answer defines. A test is an `assert` at their top level, a function `test_...` without
    parameters, or a function `check`, which is called with the answer's function that `entry_point` names (as in
    HumanEval). The reward is the share of tests that pass; the metric is 1 if all do, else 0. `target` may be a right
    answer: it must pass all tests before anything is paid. `setup` is a program that runs ahead of the tests.

    An answer stands in `<answer>...</answer>`, in its last block of code, or is code as a whole. Its functions get and
    give plain values: None, bool, numbers, text, bytes, ranges, and lists, tuples, sets and dictionaries of these;
    arguments that a function changes are changed in the tests, too. Of other objects, such as those of its classes, the
    tests see attributes, methods, length, items, `str` and arithmetic; two of them are equal if their own class says
    so, and none equals a plain value. Tests can't hand functions or objects of their own over to an answer.

    The answer's process has limits: 10 seconds of the processor's time, 100 by the clock, 512 MiB. It has no
    environment, its output is thrown away, and it can write no files. On Linux (x86-64 and ARM64, Landlock from Linux
    5.13 on) it can start no processes and threads, reads no files but Python's and the system's, and reaches no
    network; elsewhere it may read and delete files and use the network, as you may, and a warning says so. Nothing here
    protects against faults of the kernel: for what strangers wrote, use a virtual machine.

    Args:
        run: whether code may be run; else the environment must say so, by ICRL_RUN_CODE=1.

    Raises:
        ValueError: it is not allowed.
    """
    if not run and os.environ.get(ALLOWED_BY) != "1":
        raise ValueError(
            "code_tests runs the code of answers on this machine: allow it by ICRL_RUN_CODE=1 in the environment, or "
            "by code_tests(run=True)"
        )
    return bound("code_tests", Verifier(judge, read_block, LONGEST, cpu=60.0, blamed=ChildProcessError))


def judge(code: Any, task_data: Mapping[str, Any]) -> Reward:
    """What the worker does; see `verifier.Judge`."""
    tests = _parsed(task_data)
    target = task_data.get("target")
    if code is None:
        for statement in tests:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                _imported(_step(statement, {}))
        if target is not None and (wrong := _outcomes(str(target), tests, task_data)[0]):
            raise ValueError(f"the right answer task_data['target'] fails test {min(wrong)}: {wrong[min(wrong)]}")
        return Reward(value=None)
    if not isinstance(code, str):
        raise Refused("The answer is no text.")
    failed, total = _outcomes(code, tests, task_data)
    told = f"{total - len(failed)} of {total} tests pass."
    first = f" Test {min(failed)}: {failed[min(failed)]}." if failed else ""
    return Reward(value=1 - len(failed) / total, metric=float(not failed), feedback=told + first)


def _parsed(task_data: Mapping[str, Any]) -> list[ast.stmt]:
    """The statements of the tests.

    Raises:
        ValueError: they are no Python, there is no test among them, or they ask nothing of an answer.
    """
    setup = texts(task_data, "setup", "a Python program, or a list of them") if task_data.get("setup") else []
    programs = [*setup, *texts(task_data, "tests", "a Python program, or a list of them")]
    try:
        statements = [statement for program in programs for statement in ast.parse(program).body]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"task_data['tests'] or task_data['setup'] is no Python: {error}") from None
    entry = task_data.get("entry_point")
    if not any(_is_test(statement, entry) for statement in statements):
        raise ValueError(
            "task_data['tests'] has no test: an assert at its top level, a function test_..., or a function check with "
            "an entry_point in the task data"
        )
    if entry is None and not _asked(statements):
        raise ValueError(
            "task_data['tests'] asks nothing of an answer: it uses no name that is not its own or Python's"
        )
    return statements


def _is_test(statement: ast.stmt, entry: Any) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return statement.name.startswith("test_") or (statement.name == "check" and entry is not None)
    return isinstance(statement, ast.Assert)


def _asked(statements: list[ast.stmt]) -> set[str]:
    """The names that tests use and do not define."""
    used, own = set[str](), set(dir(builtins))
    for node in ast.walk(ast.Module(statements, [])):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.alias):
            own.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            own.add(node.name)
    return used - own


def _outcomes(code: str, tests: list[ast.stmt], task_data: Mapping[str, Any]) -> tuple[dict[int, str], int]:
    """Which tests fail, by number from 1, and why; and how many there are.

    Raises:
        Refused: the code does not run.
        ValueError: the tests are at fault.
    """
    entry, failed, number = task_data.get("entry_point"), dict[int, str](), 0
    wanted = _asked(tests) if entry is None else _asked(tests) | {str(entry)}
    with _answer(code) as (answer, names):
        if missing := sorted(wanted - names.keys()):
            raise Refused(f"The code defines no {', '.join(missing)}.")
        scope = {"__name__": "tests", **{name: names[name] for name in wanted}}

        def attempt(test: Callable[[], Any]) -> None:
            nonlocal number
            number += 1
            if (reason := _reason(test, answer)) is not None:
                failed[number] = reason

        for statement in tests:
            step = _step(statement, scope)
            if isinstance(statement, ast.Assert):
                attempt(step)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                _imported(step)
            else:
                _reason(step, answer)
            if isinstance(statement, ast.FunctionDef) and _is_test(statement, entry):
                test: Any = scope.get(statement.name)
                attempt(partial(test, names[str(entry)]) if statement.name == "check" else test)
    return failed, number


def _step(statement: ast.stmt, scope: dict[str, Any]) -> Callable[[], None]:
    code = compile(ast.Module([statement], []), "<tests>", "exec")
    return lambda: exec(code, scope)


def _imported(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:
        raise ValueError(f"task_data['tests'] can't be run: {type(error).__name__}: {error}") from None


def _reason(test: Callable[[], Any], answer: Answer) -> str | None:
    """Why a test fails, in words that tell nothing of the test; None if it passes.

    Raises:
        ValueError: the tests hand something over that an answer can't get.
    """
    try:
        test()
    except AssertionError:
        return "it gives something else"
    except NotPlain as wrong:
        raise ValueError(f"task_data['tests'] hands {wrong} over to the answer: only plain values can be") from None
    except Compared as error:
        return str(error)
    except Exception as error:
        return answer.ended or type(error).__name__
    return answer.ended


class NotPlain(BaseException):
    """Tests hand something over to an answer that is not a plain value."""


class Compared(TypeError):
    """Tests use an object of an answer as if it were a plain value."""


class Raised(Exception):
    """What an answer's code has raised, where it is no exception of Python's own."""


class Answer:
    """The process of an answer, as the tests see it."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._connection, self._process, self._end = connection, process, time.monotonic() + SECONDS
        self.ended: str | None = None
        """Why it does not answer any more."""
        if lacks := self._reply()["lacks"]:
            _warn(" and ".join(lacks))

    def ask(self, action: str, *content: Any) -> Any:
        """What it gives.

        Raises:
            Exception: what its code has raised, if that is an exception of Python's own, else `Raised`.
            NotPlain: the content is not made of plain values and handles.
        """
        coded = [encode(each, self._keep) for each in content]
        if self.ended is not None:
            raise Raised(self.ended)
        self._send(json.dumps([action, *coded]).encode() + b"\n")
        reply = self._reply()
        if "raised" in reply:
            raise self._raised(reply)
        return self._decoded(reply.get("value"))

    def _send(self, data: bytes) -> None:
        try:
            self._connection.settimeout(max(0.001, self._end - time.monotonic()))
            self._connection.sendall(data)
        except OSError:
            self._over(self._death())

    def _reply(self) -> dict[str, Any]:
        reply = bytearray()
        try:
            while not reply.endswith(b"\n"):
                self._connection.settimeout(max(0.001, self._end - time.monotonic()))
                chunk = self._connection.recv(2**16)
                reply += chunk
                if not chunk or len(reply) > LONGEST_REPLY:
                    self._over("it gives too long a value" if chunk else self._death())
            read = json.loads(reply)
        except TimeoutError:
            self._over(f"it takes longer than {SECONDS:g} seconds")
        except (OSError, ValueError, RecursionError):
            self._over(self._death())
        return read if isinstance(read, dict) else self._over("it gives no value")

    def _death(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self._process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"it takes more than {CPU_SECONDS} seconds of the processor's time"
        return "its process has ended"

    def _over(self, reason: str) -> Any:
        self.ended = self.ended or reason
        raise Raised(reason)

    def _decoded(self, coded: Any) -> Any:
        try:
            return decode(coded, lambda number: Handle(self, number))
        except (ValueError, RecursionError):
            return self._over("it gives no value")

    def _keep(self, value: Any) -> Any:
        if isinstance(value, Handle):
            return object.__getattribute__(value, "_number")
        raise NotPlain(f"an object of type {type(value).__name__}")

    def _raised(self, reply: Mapping[str, Any]) -> Exception:
        names = [str(name) for name in reply["raised"]] if isinstance(reply["raised"], list) else []
        for name in names:
            kind = getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                with suppress(Exception):
                    return kind(str(reply.get("message")))
        return Raised(f"{''.join(names[:1])}: {reply.get('message')}")


class Handle:
    """An object that an answer's process keeps. What is done to it is done there."""

    __slots__ = ("_answer", "_number")

    def __init__(self, answer: Answer, number: Any) -> None:
        object.__setattr__(self, "_answer", answer)
        object.__setattr__(self, "_number", number)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        return _ask(self, "get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", self, name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call it; lists, dictionaries and sets among the arguments become what they are there afterwards."""
        value, after = _ask(self, "call", self, list(args), named)
        for given, changed in zip(args, after, strict=True):
            if isinstance(given, list | bytearray):
                given[:] = changed
            elif isinstance(given, dict | set):
                given.clear()
                given.update(changed)
        return value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self is other or bool(_ask(self, "apply", "eq", self, other))
        raise Compared("it gives an object that is no plain value")

    __hash__ = object.__hash__


def _ask(handle: Handle, *content: Any) -> Any:
    return object.__getattribute__(handle, "_answer").ask(*content)


def _forwarded(name: str) -> Callable[..., Any]:
    return lambda self, *args: _ask(self, "apply", name, self, *args)


for _name in (
    *("len", "iter", "next", "getitem", "setitem", "delitem", "str", "repr", "bool", "abs", "float", "int"),
    *("add", "sub", "mul", "truediv", "neg"),
):
    setattr(Handle, f"__{_name}__", _forwarded(_name))


@cache
def _warn(lacks: str) -> None:
    logger.warning("this system does not keep the code of answers from your %s: use a virtual machine", lacks)


@contextmanager
def _answer(code: str) -> Iterator[tuple[Answer, dict[str, Any]]]:
    """A new process that has run an answer's code, and the names that this defines.

    Raises:
        Refused: the code does not run.
    """
    ours, theirs = socket.socketpair()
    limits = map(str, (theirs.fileno(), CPU_SECONDS, MEMORY))
    command = [sys.executable, "-I", "-B", str(Path(answer_process.__file__)), *limits]
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # it can start no threads
    with ours, theirs:
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=alone, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        try:
            answer = Answer(ours, process)
            yield answer, _names(answer, code)
        finally:
            process.kill()
            process.wait()


def _names(answer: Answer, code: str) -> dict[str, Any]:
    try:
        names = answer.ask("run", code)
    except Exception as error:
        told = str(error) if isinstance(error, Raised) else f"{type(error).__name__}: {error}"
        raise Refused(f"The code does not run: {told}") from None
    return names if isinstance(names, dict) else {}
