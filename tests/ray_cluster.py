"""A Ray cluster of several nodes on this machine, as a user starts one: by `ray start`, with a home of its own.

Whatever it starts is ended by its process id. A node is killed with all its processes: of a raylet that alone was
killed, the workers go on.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from icrl_graph.benchmarks.plan import Plan

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

    def workers(self) -> list[psutil.Process]:
        """Its processes that play a shard now."""
        processes = psutil.Process(self._process.pid).children(recursive=True)
        return [process for process in processes if "ray::play" in " ".join(process.cmdline())]

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

    @property
    def nodes(self) -> list[Node]:
        """Its nodes, the head first."""
        return [self._head, *self._nodes]

    def add_node(self) -> None:
        """Start one more."""
        for _ in range(5):
            node = Node(self.home, f"--address={self.address}")
            if node.has_started():
                self._nodes.append(node)
                return
        raise AssertionError("a node did not start")

    def kill_node(self, players: Callable[[], Collection[int]]) -> None:
        """Kill one that is not the head, once one of these processes is there: an idle one would lose nothing."""
        end = time.monotonic() + 120
        while not (there := [node for node in self._nodes if {it.pid for it in node.workers()} & {*players()}]):
            assert time.monotonic() < end, "no node but the head plays"
            time.sleep(0.01)
        self._nodes.remove(there[0])
        there[0].kill()

    def close(self) -> None:
        """End all of it."""
        for node in (*self._nodes, self._head):
            node.kill()
        shutil.rmtree(self.home, ignore_errors=True)


class Driver:
    """A process that is connected to the cluster, and runs one comparison after another."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.home = cluster, cluster.home
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_child", cluster.address],
            env=cluster.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pool = ThreadPoolExecutor(1)

    def run(self, plan: Plan, folder: Path, by_value: bool = False) -> dict[str, Any]:
        """Run a comparison to its end."""
        return self.start(plan, folder, by_value).result()

    def start(self, plan: Plan, folder: Path, by_value: bool = False) -> Future[dict[str, Any]]:
        """Run it, with an object by value on request, while the caller goes on."""
        (self.home / "log").write_text("")
        asked = {"plan": asdict(plan), "folder": str(folder), "by_value": by_value}
        return self._pool.submit(self._answer, json.dumps(asked))

    def _answer(self, asked: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{asked}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._pool.shutdown()


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
