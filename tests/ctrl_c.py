"""What a child process of a test does to be ended by one Ctrl-C, as under a terminal."""

import atexit
import signal


def heed_ctrl_c() -> None:
    """Raise KeyboardInterrupt at a SIGINT: whoever runs the tests may ignore it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def accept_ctrl_c() -> None:
    """Raise KeyboardInterrupt at a SIGINT, for certain.

    CPython misses a signal that comes in the moment in which the main thread begins to wait for a lock: it is marked
    as pending, but the thread sleeps on until another signal wakes it. A person presses Ctrl-C again; here a timer
    wakes the thread. The timer outlives an exec and would end the new program: before one, take `heed_ctrl_c` alone.
    """
    heed_ctrl_c()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # an exiting Python removes the handler
