"""`python -m icrl_graph` is `icrl`."""

from icrl_graph.cli import main

main()
