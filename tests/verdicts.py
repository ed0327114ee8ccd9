"""Verifiers that do what the response says; for workers, which load this file quickly."""

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import time
from typing import Any


def verdict(response: str, task_data: dict[str, Any]) -> Any:
    """1 and the worker's pid, or what else is asked for."""
    match response:
        case "exit":
            os._exit(7)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            _hang()
        case "eat":
            bytearray(2**46)
        case "raise":
            raise KeyError("of its own")
        case "quit":
            sys.exit("enough")
        case "object":
            return object()
        case "leave":
            raise GeneratorExit
        case "fork":
            if os.fork():
                os.waitid(os.P_ALL, 0, os.WEXITED)
        case "terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        case "nan":
            return float("nan")
        case "background":
            _start(task_data["fifo"])
        case "child":
            _start(task_data["fifo"])
            _hang()
    return {"value": 1.0, "feedback": str(os.getpid())}


def _hang() -> None:
    """Hang within C, where neither Python's threads nor its signal handlers get a turn."""
    re.match("(a+)+$", "a" * 64 + "b")


def _start(fifo: str) -> None:
    """Start a process that does not end; it holds the pipe open, and so does this one."""
    held = os.open(fifo, os.O_WRONLY)
    os.set_inheritable(held, True)
    subprocess.Popen(["sleep", "100000"], close_fds=False)
    os.write(held, b"!")


def runs(response: str) -> float:
    """1 for whatever can be run."""
    exec(response, {})
    return 1.0


class Judge:
    """An evaluator that is an object."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted

    def __call__(self, response: str, **others: Any) -> float:
        return float(response == self.wanted)


async def later(response: str, task_data: Any = None) -> float:
    """1 for fine."""
    await asyncio.sleep(0)
    return float(response == "fine")


def writes_itself(response: str) -> float:
    """Writes on the connection that its reply takes, as an answer's code can."""
    for fd in _sockets():
        if response == "trickle":
            while True:
                os.write(fd, b" ")
                time.sleep(0.01)
        os.write(fd, {"half": b'{"reward": ', "header": b"\0\0\1\0", "noise": b"[1]\n"}[response])
    while True:
        time.sleep(1)


def _sockets() -> list[int]:
    found = []
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
        except OSError:
            pass
    return found
