"""Models by name: "provider:name", "path.py:name" or "module:name"."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from icrl_graph.errors import MissingExtra, missing_extra
from icrl_graph.models.addresses import server_of, split_credentials
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.learners import find_learner
from icrl_graph.models.servers import server_at
from icrl_graph.state.choices import find, installed
from icrl_graph.state.loading import load

if TYPE_CHECKING:
    from icrl_graph.models.openai import LeanChatOpenAI

CALL_TIMEOUT = 600.0
"""Seconds for one call of a model named "openai:..." or "local:..." that sets no other limit."""


def chat_model(name: str, *, base_url: str | None = None, api_key: str | None = None, **options: Any) -> BaseChatModel:
    """A chat model by "provider:name".

    Args:
        name: such as "openai:gpt-4.1-mini", "local:icrl-smollm2", "local:path/to/model.gguf" or "learner:hidden-color".
        base_url: the server's address; for openai by default the environment's OPENAI_BASE_URL, else OpenAI's. One with
            `user:password@` is asked with these in place of a key.
        api_key: for openai by default the environment's OPENAI_API_KEY; a server at a `base_url` may need none.
        options: passed on to the model's class, such as `temperature` or `timeout` (seconds for a whole call, its body
            included; for openai by default 600, None for no limit). For openai `stream_usage=False` asks for no usage
            where an answer is streamed.

    Raises:
        ValueError: the name has no provider, the learner, the local model or the provider is unknown, a key is missing,
            the address is none of HTTP, the learner does not take an option, or a key would go to an address that only
            a saved folder names.
        MissingExtra: the provider is not openai, and langchain is not installed; or it is local, and llama.cpp is not.
    """
    provider, colon, model = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not (provider and colon and model):
        raise ValueError(f"a model is named 'provider:name', such as 'openai:gpt-4.1-mini', got {name!r:.80}")
    if not isinstance(base_url, str | None):
        raise ValueError(f"base_url is an address, such as 'http://localhost:8000/v1', got {base_url!r:.80}")
    if provider == "openai":
        return openai_model(model, base_url=base_url, api_key=api_key, **options)
    options |= {key: value for key, value in (("base_url", base_url), ("api_key", api_key)) if value is not None}
    if provider == "learner":
        if unknown := options.keys() - {"temperature"}:
            raise ValueError(f"a learner takes a temperature and no other option, got {', '.join(sorted(unknown))}")
        return learner(model, **options)
    if provider == "local":
        from icrl_graph.models.local import local_model

        return local_model(model, **options)
    if not server_of(base_url)[1]:
        raise ValueError(
            f"{name!r} would be asked with your key at {base_url}, which only the saved folder names: if it is yours, "
            "give it, as --base-url"
        )
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as missing:
        raise missing_extra(f"langchain, which knows the provider {provider!r},", "providers") from missing
    try:
        loaded: BaseChatModel = init_chat_model(name, **options)
    except ImportError as missing:
        raise ValueError(f"the model {name!r} can't be loaded: {missing}") from missing
    return loaded


def load_model(name: str, *, base_url: str | None = None, role: str = "model", **options: Any) -> Any:
    """A model by name: "provider:name", with options as for `chat_model`, or a custom one by path or entry point.

    Args:
        name: "provider:name", "path.py:object", "module.name:object", or an entry point of the group icrl_graph.models.
        base_url: the server's address.
        role: the argument or the setting that names it, for errors.
        options: as for `chat_model`.

    Raises:
        ValueError: there is no model of that name.
        MissingExtra: what it needs is not installed.
    """
    where, _, attribute = name.rpartition(":")
    with named_by(role, name):
        if "." in where and attribute.isidentifier():  # a file or a module; no provider has a dot in its name
            return load(name)
        if name in installed("model"):
            return find("model", name, {})
        return chat_model(name, base_url=base_url, **options)


@contextmanager
def named_by(role: str, name: str) -> Iterator[None]:
    """Has the error about a name tell which model was to have it, where that is another one than "model"."""
    try:
        yield
    except (ValueError, MissingExtra) as error:
        if role == "model":
            raise
        kind = MissingExtra if isinstance(error, MissingExtra) else ValueError
        raise kind(f"{role}={name!r}: {error}") from error


def learner(name: str, *, temperature: float | None = None) -> FunctionModel:
    """A shipped in-context learner by name.

    Args:
        name: "hidden-color"; "game24", "game24-weak" or "game24-strong" (see `icrl_graph.models.learners`).
        temperature: default 1, as it was trained; 0 takes the likeliest.

    Raises:
        ValueError: there is no learner of that name.
    """
    return FunctionModel(reply=find_learner(name), name=f"learner:{name}", temperature=temperature)


def openai_model(
    model: str,
    *,
    base_url: str | None,
    api_key: str | None,
    kind: type[LeanChatOpenAI] | None = None,
    **options: Any,
) -> LeanChatOpenAI:
    """A model of OpenAI's protocol, named as it is at its server; the rest as for `chat_model`, and its class."""
    from icrl_graph.models.http import async_client, sync_client
    from icrl_graph.models.openai import LeanChatOpenAI

    address, may_get_key = server_of(base_url)
    api_key = api_key or (os.environ.get("OPENAI_API_KEY") if may_get_key else None) or ("none" if address else None)
    if api_key is None:
        raise ValueError(
            f"the model 'openai:{model}' needs a key: set OPENAI_API_KEY, or give base_url (or OPENAI_BASE_URL) for a "
            "custom server"
        )
    url, credentials = (None, None) if address is None else split_credentials(address)
    if url and not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://, got {url!r}")
    server = server_at(url, model)
    defaults = {
        "use_responses_api": False,
        "http_client": sync_client(credentials, server),
        "http_async_client": async_client(credentials, server),
        "http_socket_options": (),  # else it warns that no proxy is asked; these clients do ask it
        "max_retries": 0,
        "stream_usage": True,
        "timeout": CALL_TIMEOUT,
    }
    kind = kind or LeanChatOpenAI
    return kind(model=model, base_url=url, api_key=SecretStr(api_key), **{**defaults, **options})
