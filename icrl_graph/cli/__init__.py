"""`icrl`, the command line: the only place that prints.

Exit codes: 0 done, 1 the run failed or was interrupted, 2 the arguments were wrong, 143 it was ended by SIGTERM. With
--json, stdout holds one JSON value and nothing else; all other output goes to stderr.
"""

from __future__ import annotations

import io
import logging
import sys

from icrl_graph.cli import (  # noqa: F401 - each adds its commands
    bench,
    demo,
    init,
    learner,
    mcp,
    meta_eval,
    reproduce,
    run,
    serve,
    show,
    studio,
    topologies,
    win_rates,
)
from icrl_graph.cli.shared import app


def main() -> None:
    """The entry point of the console script."""
    if "" not in sys.path:
        sys.path.append("")  # module:name may be of the current folder, as under `python -m icrl_graph`
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no character that a terminal lacks may end a command
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("icrl_graph").addHandler(logging.NullHandler())  # what fails is printed with its round
    app(prog_name="icrl")
