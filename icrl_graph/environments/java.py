"""A Java virtual machine used over py4j from one thread, which ends however this process ends.

This module works around py4j's defaults: a call waits without a limit, is sent again when the connection
fails (an action would be done twice), logs each failure by way of the root logger, reads an attribute by a round trip,
and frees Java's objects from whichever thread collects garbage.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import subprocess
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from icrl_graph.environments import EnvironmentLost
from icrl_graph.errors import SimulatorError, SimulatorUnavailable

INSTALL = "Java 8 or newer is needed, as in: sudo apt-get install openjdk-17-jre-headless"
"""The remedy where Java does not start; the command is for Debian and Ubuntu."""
FLAGS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",  # the same for all objects: else the order of a set depends on their addresses
    "-Xmx512m",  # else a quarter of the machine's memory
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dfile.encoding=UTF-8",  # its output must not depend on the machine's language
    "-Duser.language=en",
    "-Duser.country=US",
)


class SimulatorDied(EnvironmentLost, SimulatorError):
    """The simulator's process is gone or silent; its actions can be replayed in another one."""


class JVM:
    """A Java process with a gateway.

    The constructor starts it and returns at once; then `connect`, in the thread that is to use it.

    Args:
        jar: the program.
        patience: seconds that it may take to start, and for one call.
        java: the command.

    Raises:
        SimulatorUnavailable: there is no Java.
    """

    def __init__(self, jar: str, patience: float, java: str = "java") -> None:
        from py4j.java_gateway import find_jar_path

        command = shutil.which(java)
        if command is None:
            raise SimulatorUnavailable(f"there is no {java!r} on this machine. {INSTALL}")
        self._patience = patience
        path = os.pathsep.join([find_jar_path(), jar])
        server = ["py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"]
        try:
            self._process = subprocess.Popen(
                [command, *FLAGS, "-classpath", path, *server],
                stdin=subprocess.PIPE,  # the kernel closes it however this process ends; then Java ends
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=os.path.dirname(jar),
                process_group=0,  # Ctrl-C must not reach it
            )
        except OSError as error:
            raise SimulatorUnavailable(f"{command} can't be run: {error}. {INSTALL}") from None
        self.pid = self._process.pid
        self._killed = False
        self._connections: list[Any] = []
        self.end = weakref.finalize(self, _end, os.getpid(), self._process, self._connections)

    def connect(self) -> Any:
        """Wait until it has started, and connect; returns py4j's gateway.

        Raises:
            SimulatorUnavailable: it does not start.
        """
        from py4j.java_gateway import GatewayConnection, GatewayParameters, JavaGateway

        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)  # a hundred lines for each JVM that is gone
        port, token = self._read_address()
        parameters = GatewayParameters(
            port=int(port), auth_token=token, read_timeout=self._patience, enable_memory_management=False
        )
        gateway = JavaGateway(gateway_parameters=parameters)
        client = gateway._gateway_client
        connection = GatewayConnection(parameters, client.gateway_property)
        self._connections.append(connection)
        client.send_command = lambda command, *_, **__: connection.send_command(command)
        try:
            connection.start()
            # Its output is not read, and a full pipe would stop it.
            nowhere = gateway.jvm.java.io.PrintStream(os.devnull)
            gateway.jvm.java.lang.System.setOut(nowhere)
            gateway.jvm.java.lang.System.setErr(nowhere)
        except Exception as error:
            raise self._start_error(f"broke off: {error}") from None
        return gateway

    def alive(self) -> bool:
        """Whether it runs and was not killed."""
        return not self._killed and self._process.poll() is None

    def kill(self) -> None:
        """Kill it, from any thread; a call that waits for it fails. `end` cleans up after it."""
        self._killed = True
        self._process.kill()

    def _read_address(self) -> tuple[str, str]:
        """The first two lines of a gateway's output: its port, and the password for it."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        output = b""
        while output.count(b"\n") < 2:
            if not poll.poll(self._patience * 1000):
                raise self._start_error(f"printed nothing for {self._patience:g} s")
            if not (more := os.read(pipe, 4096)):
                raise self._start_error("broke off")
            output += more
        port, token = output.decode(errors="replace").split()[:2]
        if not port.isdigit():
            raise self._start_error(f"printed {port!r} instead of its port")
        return port, token

    def _start_error(self, reason: str) -> SimulatorUnavailable:
        """The error for a failed start, with Java's last output; ends the process."""
        assert self._process.stderr is not None
        self.kill()
        output = self._process.stderr.read().decode(errors="replace").strip()[-500:]
        self.end()
        return SimulatorUnavailable(f"Java did not start: it {reason}. {output}\n{INSTALL}")


def _end(owner: int, process: subprocess.Popen[bytes], connections: list[Any]) -> None:
    """End a JVM and wait until it is gone; in a forked process, only close the connections."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
    for connection in connections:
        connection.close() if connection.is_connected else connection.socket.close()
    for pipe in (process.stdin, process.stdout, process.stderr):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


def call_java(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of py4j.

    Raises:
        SimulatorError: Java raised an exception.
        SimulatorDied: the process is gone, or did not answer in time.
    """
    from py4j.protocol import Py4JError, Py4JJavaError

    try:
        return function(*args)
    except Py4JJavaError as error:
        exception = call_java(str, error.java_exception)  # a call, too
        raise SimulatorError(f"the simulator failed: {exception}") from None
    except Py4JError as error:
        raise SimulatorDied(f"the simulator has died: {error}: {getattr(error, 'cause', None)}") from None


class Worker:
    """A thread that runs functions one after another.

    It is a daemon: an executor's thread would delay the end of the interpreter for as long as a call takes.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()
        self.end = weakref.finalize(self, self._queue.put, None)
        self.end.atexit = False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function after all that were submitted before."""
        future: Future[Any] = Future()
        self._queue.put((future, function, args))
        return future


def _work(queue: SimpleQueue[Any]) -> None:
    while (task := queue.get()) is not None:
        future, function, args = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)
        del task, future, function, args  # so that what they hold can be collected while this thread waits
