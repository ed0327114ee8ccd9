"""A chat that says how long it has been, and gets longer; served by test_chat.py."""

from typing import Any

from icrl_graph.prompts.layouts import parse
from icrl_graph.topologies.chat import as_chat
from icrl_graph.topologies.methods import create_icrl


def longer(messages: Any) -> str:
    turns = sum(message["role"] == "user" and "Say" in message["content"] for message in messages)
    return f"turn {turns}" + "!" * len(parse(messages).attempts)


graph = as_chat(create_icrl(longer, lambda response: response.count("!") / 10, rounds=3)).compile(name="talking")
