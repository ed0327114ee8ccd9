"""What a child process of a test does to be ended by one Ctrl-C, as under a terminal."""

import atexit
import signal


def accept_ctrl_c() -> None:
    """Raise KeyboardInterrupt at a SIGINT, for certain.

    Whoever runs the tests may ignore SIGINT, and children inherit that. And CPython misses a signal that comes in the
    moment in which the main thread begins to wait for a lock: it is marked as pending, but the thread sleeps on until
    another signal wakes it. A person presses Ctrl-C again; here a timer wakes the thread.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # an exiting Python removes the handler
