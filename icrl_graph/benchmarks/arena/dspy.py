"""DSPy's Refine and BestOfN (https://dspy.ai/tutorials/output_refinement/best-of-n-and-refine/)."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from icrl_graph.topologies.programs import Host, foreign


@foreign("dspy", extra="arena", calls=lambda rounds: 2 * rounds - 1)
def create_dspy_refine(host: Host) -> str | None:
    """dspy.Refine: several attempts, each with advice that the model has written on the one before."""
    return _best("Refine", host)


@foreign("dspy", extra="arena")
def create_dspy_best_of_n(host: Host) -> str | None:
    """dspy.BestOfN: several attempts from the task alone, and the best of them."""
    return _best("BestOfN", host)


def _best(module: str, host: Host) -> str | None:
    """What a module of DSPy answers with. Its caches and retries are off, so that each answer is a call of its own."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else LiteLLM may ask the network for prices
    import dspy

    logging.getLogger("dspy.predict.predict").setLevel(logging.ERROR)  # Refine gives its own adviser texts for numbers

    def reward(arguments: Mapping[str, Any], prediction: Any) -> float:
        return host.score(prediction.answer)

    lm = dspy.LM("openai/hosted", engine=_Engine(host), cache=False, num_retries=0)
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)  # what can't be read costs one call, not two
    with dspy.context(lm=lm, adapter=adapter, disable_history=True):
        threshold = math.inf if host.highest is None else host.highest
        optimiser = getattr(dspy, module)(dspy.Predict("task -> answer"), host.rounds, reward, threshold)
        prediction = optimiser(task=host.task)
    answer: str | None = None if prediction is None else prediction.answer
    return answer


class _Engine:
    """The host's model as an engine of DSPy: `complete(Request) -> Response`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def complete(self, request: Any) -> Any:
        from dspy.lm15 import Message, Response, TextPart, Usage

        system = request.system if isinstance(request.system, str | None) else "".join(p.text for p in request.system)
        messages = [{"role": each.role, "content": each.text or ""} for each in request.messages]
        given = {name: getattr(request.config, name) for name in ("temperature", "max_tokens")}
        arguments = {name: value for name, value in given.items() if value is not None}
        answer = self._host.ask([*([{"role": "system", "content": system}] if system else []), *messages], **arguments)
        message = Message.assistant([TextPart(answer.text)])
        return Response(id=None, model="hosted", message=message, finish_reason="stop", usage=Usage())

    def close(self) -> None:
        """Nothing is open."""

    def __deepcopy__(self, memo: Any) -> _Engine:
        return self
