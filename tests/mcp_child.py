"""A server of the Model Context Protocol over stdio, for tests: `python tests/mcp_child.py ADDRESS [FILE [MODEL]]`.

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
    file, name = (sys.argv[at] if sys.argv[at:] else given for at, given in ((2, None), (3, "model")))
    model = load_model(f"openai:{name}", base_url=sys.argv[1])
    server(model, score, path=file, rounds=6, max_calls=5).run("stdio")
