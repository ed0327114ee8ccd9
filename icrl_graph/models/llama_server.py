"""What the process of a local model runs: llama.cpp's own server, as xllamacpp ships it, compiled.

Only `icrl_graph.models.local` starts it, by path. It imports nothing else of this package: the process is to hold a
model. Its settings are JSON in the environment, by their names in `xllamacpp.CommonParams`; no other user can read
them there.
"""

from __future__ import annotations

import json
import os
import sys

SETTINGS = "ICRL_LLAMA_SERVER"
"""The variable that has them."""


def serve() -> None:
    """Load a model, say so in a line on the standard output, and answer until the standard input is closed.

    The kernel closes it however the parent ends; while the model loads, this waits for the end of that.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where cores are busy, threads that spin are ten times slower
    import xllamacpp

    params = xllamacpp.CommonParams()
    settings = json.loads(os.environ[SETTINGS])
    params.model.path = settings.pop("model")
    if adapter := settings.pop("adapter"):
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    for name, value in settings.items():
        setattr(params, name, value)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:  # the reason is in the log
        sys.exit(1)
    os.write(1, f"{server.listening_address}\n".encode())
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    serve()
