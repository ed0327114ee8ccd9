"""A Ray cluster of several nodes on this machine, as a user starts one: by `ray start`, with a home of its own.

Whatever it starts is ended by its process id. A node is killed with all its processes: of a raylet that alone was
killed, the workers go on.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

HOST = "127.0.0.1"


class Node:
    """A node with one CPU: `ray start --block`, the parent of all its processes."""

    def __init__(self, home: Path, *options: str) -> None:
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={HOST}", "--num-cpus=1", "--object-store-memory=80000000", *options),
        ]
        fd, name = tempfile.mkstemp(dir=home)
        self._log = Path(name)
        with os.fdopen(fd, "wb") as log:
            self._process = subprocess.Popen(
                command, env=environment(home), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def has_started(self) -> bool:
        """Wait until it has; False where it gave up, as it does after 30 seconds on a busy machine."""
        end = time.monotonic() + 120
        while "Ray runtime started" not in (log := self._log.read_text()):
            assert time.monotonic() < end, f"a node did not start: {log[-2000:]}"
            if self._process.poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def kill(self) -> None:
        """Kill all its processes."""
        with suppress(psutil.NoSuchProcess):
            processes = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=30)
        self._process.wait()


class Cluster:
    """A head and some more nodes."""

    def __init__(self, nodes: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
        (self.home / "token").write_text(secrets.token_hex(32))
        (self.home / "token").chmod(0o600)
        with socket.socket() as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        self.address, self.environment = f"{HOST}:{port}", environment(self.home)
        options = (f"--port={port}", "--include-dashboard=false", "--no-monitor", f"--temp-dir={self.home / 't'}")
        self._head = Node(self.home, "--head", *options)
        assert self._head.has_started()
        self._nodes: list[Node] = []
        for _ in range(1, nodes):  # one after another: they share a folder
            self.add_node()

    def add_node(self) -> None:
        """Start one more."""
        for _ in range(5):
            node = Node(self.home, f"--address={self.address}")
            if node.has_started():
                self._nodes.append(node)
                return
        raise AssertionError("a node did not start")

    def kill_node(self) -> None:
        """Kill one that is not the head."""
        self._nodes.pop(0).kill()

    def close(self) -> None:
        """End all of it."""
        for node in (*self._nodes, self._head):
            node.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def environment(home: Path) -> dict[str, str]:
    """What Ray's processes and a driver need to know."""
    return {
        **os.environ,
        "HOME": str(home),
        "ICRL_TEST_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONUNBUFFERED": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # else other tests that run beside it come first
    }


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """Start one for a block."""
    started = Cluster(nodes)
    try:
        yield started
    finally:
        started.close()
