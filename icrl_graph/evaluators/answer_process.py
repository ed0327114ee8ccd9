"""A process that runs an answer's code and does nothing else; started by its path, it imports only Python's library.

The tests are in another process (`code_tests`), which sends one request a line, as JSON: run this code, call this
function, give this attribute. Plain values travel by value, in the form of `encode`; of all others only a number
travels, a handle, under which they are kept here. So nothing that the code does here (ends the process, prints,
replaces `assert` or `==`, looks through frames) can make a test pass: it can only give values.

Before the code runs, the process gives up what it does not need; see `restrict`.
"""

import builtins
import ctypes
import json
import operator
import os
import platform
import socket
import struct
import sys
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from types import ModuleType
from typing import Any

NAME = "answer"
"""The module that the code runs as."""


def encode(value: Any, keep: Any) -> Any:
    """A value as JSON: None, bool, float and text as they are, all else as [kind, content].

    Args:
        value: any.
        keep: takes a value that is not plain, and gives its handle, or raises.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return ["int", hex(int(value))]
    if isinstance(value, Fraction | Decimal):
        return [type(value).__name__, str(value)]
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    kind: Any
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [encode(each, keep) for each in kind.__iter__(value)]]
    if isinstance(value, range):
        return ["range", [value.start, value.stop, value.step]]
    if isinstance(value, dict):
        return ["dict", [[encode(key, keep), encode(held, keep)] for key, held in dict.items(value)]]
    return ["handle", keep(value)]


def decode(coded: Any, held: Any) -> Any:
    """The value that `encode` has made JSON of.

    Args:
        coded: the JSON.
        held: gives the value of a handle.

    Raises:
        ValueError: it is no such JSON.
    """
    if not isinstance(coded, list):
        return coded
    try:
        kind, content = coded
        if kind == "handle":
            return held(content)
        if kind == "dict":
            return {decode(key, held): decode(value, held) for key, value in content}
        return _DECODED[kind](content, held)
    except (TypeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"no value: {error}") from None


def _many(kind: Any) -> Any:
    return lambda content, held: kind(decode(each, held) for each in content)


_DECODED: dict[Any, Any] = {
    "int": lambda content, _: int(content, 16),
    "complex": lambda content, _: complex(*content),
    "bytes": lambda content, _: bytes.fromhex(content),
    "range": lambda content, _: range(*content),
    "Fraction": lambda content, _: Fraction(content),
    "Decimal": lambda content, _: Decimal(content),
    **{kind.__name__: _many(kind) for kind in (list, tuple, set, frozenset)},
}


def serve(pipe: int, cpu: int, memory: int) -> None:
    """Answer requests until the connection is closed.

    Args:
        pipe: the file descriptor of this end.
        cpu: seconds of the processor's time.
        memory: MiB of data.
    """
    connection = socket.socket(fileno=pipe)
    questions, kept = connection.makefile("rb"), list[Any]()
    connection.sendall(json.dumps({"lacks": restrict(cpu, memory)}).encode() + b"\n")

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    for question in questions:
        try:
            action, *content = json.loads(question)
            given = _ACTIONS[action](*(decode(each, kept.__getitem__) for each in content))
            reply = json.dumps({"value": encode(given, keep)})
        except BaseException as error:
            reply = json.dumps({"raised": [kind.__name__ for kind in type(error).__mro__], "message": _message(error)})
        connection.sendall(reply.encode() + b"\n")


def _message(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except BaseException:
        return ""


def _run(code: str) -> Any:
    """Run the answer's code; give its public names, with the value of each."""
    module = sys.modules[NAME] = ModuleType(NAME)
    exec(compile(code, f"<{NAME}>", "exec"), module.__dict__)
    return {name: value for name, value in vars(module).items() if name[:2] != "__"}


def _call(function: Any, args: Any, named: Any) -> Any:
    """Call a function; give what it returns, and its arguments, which it may have changed."""
    return (function(*args, **named), args)


def _apply(name: str, *args: Any) -> Any:
    """Apply an operator, or a function of Python's such as `len`."""
    return getattr(operator if hasattr(operator, name) else builtins, name)(*args)


_ACTIONS: dict[str, Any] = {"run": _run, "call": _call, "get": getattr, "set": setattr, "apply": _apply}


def restrict(cpu: int, memory: int) -> list[str]:
    """Give up what an answer's code does not need; what this system can't take away is left.

    Everywhere: more than some seconds of the processor's time and some MiB of data, files with anything in them, core
    dumps, and more open files than a few. On Linux: capabilities; files, but for reading Python and the system's
    libraries (Landlock); processes, threads, connections and signals (seccomp).

    Returns:
        What could not be taken away.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for name, limit in {"DATA": memory * 2**20, "FSIZE": 0, "CORE": 0, "NOFILE": 64}.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    if sys.platform != "linux":
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        return ["files", "connections"]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    lacks = [] if _shut_files(libc) else ["files"]
    libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
    if not _shut_calls(libc):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        lacks.append("connections")
    return lacks


_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_5 = (1 << 13) - 1, 1 << 13, 1 << 14, 1 << 15
_READ = 0b1100
"""Landlock's rights to read a file, and to list a folder."""


def _shut_files(libc: Any) -> bool:
    """Take away all files, but for reading Python and the system's libraries.

    See https://docs.kernel.org/userspace-api/landlock.html.
    """
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = _VERSION_1 | (_VERSION_2 if version > 1 else 0) | (_VERSION_3 if version > 2 else 0)
    rights |= _VERSION_5 if version > 4 else 0
    net, scoped = (3 if version > 3 else 0), (3 if version > 5 else 0)  # TCP; abstract sockets and signals
    ruleset = struct.pack("QQQ", rights, net, scoped)[: 8 if version < 4 else 16 if version < 6 else 24]
    fd = libc.syscall(_CREATE_RULESET, ruleset, ctypes.c_size_t(len(ruleset)), 0)
    for path in filter(os.path.isdir, {sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64"}):
        folder = os.open(path, os.O_PATH)
        libc.syscall(_ADD_RULE, fd, 1, struct.pack("=Qi", _READ, folder), 0)
        os.close(folder)
    done: int = libc.syscall(_RESTRICT_SELF, fd, 0)
    os.close(fd)
    return done == 0


_MACHINES: dict[str, tuple[int, tuple[int, ...]]] = {
    # clone3, io_uring_setup, pidfd_send_signal; clone, fork, vfork; socket, connect; kill, tkill, rt_sigqueueinfo
    "x86_64": (0xC000003E, (435, 425, 424, 56, 57, 58, 41, 42, 62, 200, 129)),
    "aarch64": (0xC00000B7, (435, 425, 424, 220, 198, 203, 129, 130, 138)),
}
"""By machine, what the kernel calls it, and the numbers of the system calls that start processes and threads, open
connections and send signals."""


def _shut_calls(libc: Any) -> bool:
    """Take away processes, threads, connections and signals.

    See https://docs.kernel.org/userspace-api/seccomp_filter.html.
    """
    if platform.machine() not in _MACHINES:
        return False
    audit, numbers = _MACHINES[platform.machine()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000  # EPERM
    steps = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, kill), (load, 0, 0, 0)]
    steps += [(at_least, len(numbers) + 1, 0, 1 << 30)]  # the same calls under other numbers (x32)
    steps += [(equal, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    steps += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filters = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program))
    done: int = libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), filters)
    return done == 0


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
