"""A server of the Model Context Protocol over stdio, for tests: `python tests/mcp_child.py ADDRESS [FILE]`.

Its evaluator prints, as users' do.
"""

import sys

from icrl_graph.integrations.mcp_server import server
from icrl_graph.models.registry import load_model


def score(response: str) -> float:
    """A tenth for each character."""
    print("judged")
    return len(response) / 10


if __name__ == "__main__":
    model = load_model("openai:model", base_url=sys.argv[1])
    server(model, score, path=sys.argv[2] if sys.argv[2:] else None, rounds=6, max_calls=5).run("stdio")
