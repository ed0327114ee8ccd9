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


class Cluster:
    """A head and some more nodes, each with one CPU."""

    def __init__(self, nodes: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
        (self.home / "token").write_text(secrets.token_hex(32))
        (self.home / "token").chmod(0o600)
        with socket.socket() as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        self.address, self.environment = f"{HOST}:{port}", environment(self.home)
        self._logs = (self.home / "logs").open("wb")
        self.head = self._start(
            "--head", f"--port={port}", "--include-dashboard=false", "--no-monitor", f"--temp-dir={self.home / 't'}"
        )
        self._wait_for_nodes(1)
        self.nodes: list[subprocess.Popen[bytes]] = []
        for place in range(1, nodes):  # one after another: they share a folder
            self.add_node()
            self._wait_for_nodes(place + 1)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={HOST}", "--num-cpus=1", "--object-store-memory=80000000", *options),
        ]
        return subprocess.Popen(
            command, env=self.environment, stdout=self._logs, stderr=self._logs, stdin=subprocess.DEVNULL
        )

    def _wait_for_nodes(self, count: int) -> None:
        end = time.monotonic() + 120
        while (logs := (self.home / "logs").read_text()).count("Ray runtime started") < count:
            assert time.monotonic() < end, f"a node did not start: {logs[-2000:]}"
            time.sleep(0.1)

    def kill_node(self, place: int = 0) -> None:
        """Kill a node other than the head, with all its processes."""
        _kill(self.nodes.pop(place))

    def add_node(self) -> None:
        """Start one more."""
        self.nodes.append(self._start(f"--address={self.address}"))

    def workers(self) -> list[psutil.Process]:
        """The processes that do the work of all nodes."""
        return [
            child
            for node in (self.head, *self.nodes)
            for child in psutil.Process(node.pid).children(recursive=True)
            if "ray::" in " ".join(child.cmdline()[:1])
        ]

    def close(self) -> None:
        """End all of it."""
        for node in (*self.nodes, self.head):
            _kill(node)
        self._logs.close()
        shutil.rmtree(self.home, ignore_errors=True)


def environment(home: Path) -> dict[str, str]:
    """What Ray's processes and a driver need to know."""
    return {
        **os.environ,
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        "ICRL_TEST_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


def _kill(node: subprocess.Popen[bytes]) -> None:
    try:
        processes = psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        processes = []
    node.kill()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()
    psutil.wait_procs(processes, timeout=30)


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    started = Cluster(nodes)
    try:
        yield started
    finally:
        started.close()
