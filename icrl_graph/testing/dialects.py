"""The dialects of OpenAI's protocol, as data: what servers refuse and in which words, what they leave out and add.

Only llama.cpp's was tried on the real server (`tests/test_local.py`). The rest was read in their sources, their
documentation and in public reports, which age: of two behaviours of one project the one that asks more of a client is
here. Where each fact is from:

* llama.cpp: its server as xllamacpp 2026.10 ships it. Two facts differ by version: a template's complaint was a 500
  (ggml-org/llama.cpp issue 19851), and `max_completion_tokens` is read since pull request 19831, in February 2026, and
  goes before `max_tokens`; what is older, or llama-cpp-python (abetlen/llama-cpp-python issue 1907), reads the latter
  alone, and so does this. `n_predict` goes before both. It serves any name, and tells its own.
* vLLM: `vllm/entrypoints/openai/models/serving.py` (404), pull request 22099 (errors within "error" since 0.10.1; the
  flat form of before is SGLang's here), pull request 33402 (`reasoning`, no longer `reasoning_content`, with
  `--reasoning-parser`; else `<think>` stays in the content); overflow as in `tests/overflow_wordings.py`.
* SGLang: `python/sglang/srt/managers/tokenizer_manager.py` (overflow), `entrypoints/openai/serving_base.py` (errors),
  `protocol.py` (`reasoning_content`, `finish_reason: "abort"`).
* TGI: `router/src/infer/mod.rs`, `server.rs` (words and statuses; a wrong key has no body, a failed generation is a
  424), `lib.rs` (fields, `max_tokens` alone); a template's complaint: issue 3198. It answers with its own model's name.
* Ollama: `openai/openai.go` (errors, `reasoning`, `max_tokens` alone: issue 7125), `server/sched.go` (503), `server/
  prompt.go` and issue 17427 (a prompt that is too long loses its oldest messages, then all but half of the context; the
  tokens of what is left are reported). It asks for no key; the 401 is a proxy's in front of it.
* OpenRouter: openrouter.ai/docs/api/reference/errors-and-debugging (an error within a 200), .../streaming (comments),
  .../use-cases/usage-accounting (usage always, in the last message), .../reasoning-tokens (`reasoning`).
* Mistral: "extra_forbidden" for `seed`, `max_completion_tokens` and `stream_options.include_usage`: reports such as
  editor-code-assistant/eca issue 231 and openai/openai-agents-python issue 442; the order of roles: mistral-common,
  `protocol/instruct/validator.py`; thoughts as parts of the content: vercel/ai pull request 8072; usage with the last
  chunk of a stream: TabbyML/tabby pull request 4082; 429: raycast/extensions issue 31107.
* DeepSeek: api-docs.deepseek.com/api/create-chat-completion (`reasoning_content`, `insufficient_system_resource`,
  `max_tokens`), .../quick_start/error_codes; no `json_schema`: UKGovernmentBEIS/inspect_ai issue 4916; roles of the
  reasoner: deepseek-ai/DeepSeek-R1 issue 21; overflow: evalstate/fast-agent issue 621.
* Azure: learn.microsoft.com/azure/ai-services/openai/concepts/content-filter (a filtered prompt is a 400), SciSharp/
  BotSharp issue 386 (401), chatboxai/chatbox issue 646 (404); a stream begins with a chunk without choices: microsoft/
  semantic-kernel issue 3650; reasoning models refuse `max_tokens`: teilomillet/gollm issue 33.

Where a project limits no rate, or no report of its words was found, those of a 429 or a 500 are plain, in its form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Order = Mapping[str, frozenset[str]]
"""The roles that may follow each role; "" for the first ones and, as a follower, for the last ones."""


@dataclass(frozen=True)
class Refusal:
    """How a server refuses.

    Attributes:
        status: the HTTP status.
        body: JSON; None for none. Facts are filled in for `{model}`, `{read}` and `{limit}` (tokens of the prompt and
            of the context), `{asked}` (the answer's limit), `{total}`, `{room}`, `{field}`, `{details}`, `{before}`,
            `{role}`, `{at}` and `{next}` (places of messages). A text that is nothing else becomes the fact itself.
    """

    status: int
    body: Any = None

    def told(self, **facts: Any) -> Any:
        """The body, with these facts."""
        return _filled(self.body, facts)


def _filled(body: Any, facts: Mapping[str, Any]) -> Any:
    if isinstance(body, str):
        alone = re.fullmatch(r"\{(\w+)\}", body)
        return facts[alone[1]] if alone else body.format_map(facts)
    if isinstance(body, Mapping):
        return {name: _filled(value, facts) for name, value in body.items()}
    return body


@dataclass(frozen=True)
class Dialect:
    """How a server speaks OpenAI's protocol.

    Attributes:
        refusals: how it refuses, by the reason: "401" (the key), "404" (the model's name), "429" (the rate), "500" (it
            failed), "filtered" (the content), "overflow" (the prompt is too long), "room" (it is with the limit of the
            answer), "roles" (their order), "field" (a field), "form" (structured output). What is not here it does not
            refuse: without "404" it serves any name, without "filtered" such an answer is empty, and without "overflow"
            it cuts the front of the prompt off and tells nobody.
        known: the fields that it takes; it refuses others. None: it ignores them.
        refused: fields that it refuses, though they are OpenAI's.
        order: which roles may follow which; None for any.
        limits: the fields that limit an answer; the first that is given counts.
        full: the reason to finish where the context is full; None if an answer goes on.
        aborted: the reason to finish where it breaks off an answer; None if the connection ends instead.
        reasoning: where the thoughts go that a model writes within `<think>` tags: the message's field of that name,
            "content" as they are, "parts" of the content, or "hidden".
        usage: when a stream reports its tokens: "asked" (by `stream_options`), "always", "last" (always, in the chunk
            with the reason to finish), "each" (so far, in each chunk, and at the end) or "never".
        adds: further fields of an answer; None takes one away, as `{"model": None}`.
        opening: what a stream begins with.
    """

    refusals: Mapping[str, Refusal]
    known: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    order: Order | None = None
    limits: tuple[str, ...] = ("max_completion_tokens", "max_tokens")
    full: str | None = "length"
    aborted: str | None = None
    reasoning: Literal["reasoning", "reasoning_content", "content", "parts", "hidden"] = "content"
    usage: Literal["asked", "always", "last", "each", "never"] = "asked"
    adds: Mapping[str, Any] = field(default_factory=dict)
    opening: str = ""


_STRICT: Order = {
    "": frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"assistant", ""}),
    "assistant": frozenset({"user"}),
}
"""Of many chat templates: an optional system message, then user and assistant in turn; the last is the user's."""
_ANY = frozenset({"system", "user", "assistant", ""})
_ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
_OPENAI_FILTER = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
    "your prompt and retry."
)
_MAXIMUM = "This model's maximum context length is {limit} tokens. However, "
_REQUESTED = (
    "you requested {total} tokens ({read} in the messages, {asked} in the completion). Please reduce the length of the "
    "messages or completion."
)
_VLLM_OVERFLOW = (
    "You passed {read} input tokens and requested {asked} output tokens. However, the model's context length is only "
    "{limit} tokens, resulting in a maximum input length of {room} tokens. Please reduce the length of the input "
    "prompt. (parameter=input_tokens, value={read})"
)
_SGLANG_ROOM = (
    "Requested token count exceeds the model's maximum context length of {limit} tokens. You requested a total of "
    "{total} tokens: {read} tokens from the input messages and {asked} tokens for the completion."
)
_ROUTER_OVERFLOW = (
    "This endpoint's maximum context length is {limit} tokens. However, you requested about {total} tokens ({read} of "
    "text input, {asked} in the output). Please reduce the length of either one."
)


def _openai(message: str, kind: str | None, code: Any = None, param: str | None = None, **more: Any) -> Any:
    """The form of OpenAI, vLLM, Ollama, DeepSeek and Azure."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


def _llama(status: int, message: str, kind: str, **more: Any) -> Refusal:
    return Refusal(status, {"error": {"code": status, "message": message, "type": kind, **more}})


def _vllm(status: int, message: str, kind: str) -> Refusal:
    return Refusal(status, _openai(message, kind, status))


def _flat(status: int, message: Any, kind: str, code: Any) -> Refusal:
    """The form of SGLang and Mistral, and of vLLM before 0.10.1."""
    return Refusal(status, {"object": "error", "message": message, "type": kind, "param": None, "code": code})


def _sglang(status: int, message: str, kind: str) -> Refusal:
    return _flat(status, message, kind, status)


def _tgi(status: int, message: str, kind: str) -> Refusal:
    return Refusal(status, {"error": message, "error_type": kind})


def _router(code: int, message: str, status: int | None = None, **metadata: Any) -> Refusal:
    error = {"message": message, "code": code, **({"metadata": metadata} if metadata else {})}
    return Refusal(code if status is None else status, {"error": error, "user_id": "user_1"})


def _azure(code: str, message: str, status: int) -> Refusal:
    return Refusal(status, {"error": {"code": code, "message": message}})


_UNAUTHORIZED = Refusal(401, {"error": "Unauthorized"})
"""Of vLLM and SGLang."""

DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(
        refusals={
            **{
                code: Refusal(
                    int(code), {"error": {"message": f"injected fault {code}", "type": "fault", "code": code}}
                )
                for code in ("401", "429", "500")
            },
            "404": Refusal(404, _openai("The model `{model}` does not exist.", "not_found", "model_not_found")),
            "overflow": Refusal(
                400,
                _openai(
                    "This model's maximum context length is {limit} tokens, the messages have {read}.",
                    "invalid_request_error",
                    "context_length_exceeded",
                ),
            ),
        },
        limits=(),
        full=None,
        usage="always",
    ),
    "llama.cpp": Dialect(
        refusals={
            "401": _llama(401, "Invalid API Key", "authentication_error"),
            "429": _llama(429, "Too many requests", "unavailable_error"),
            "500": _llama(503, "Loading model", "unavailable_error"),
            "overflow": _llama(
                400,
                "request ({read} tokens) exceeds the available context size ({limit} tokens), try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens="{read}",
                n_ctx="{limit}",
            ),
            "roles": _llama(
                400,
                "Unable to generate parser for this template. Automatic parser generation failed: \n------------\n"
                "While executing CallExpression at line 19, column 27 in source:\n...\n"
                f"Error: Jinja Exception: {_ALTERNATE}",
                "invalid_request_error",
            ),
        },
        order=_STRICT,
        limits=("n_predict", "max_tokens"),
        reasoning="reasoning_content",
        adds={"model": "some.gguf", "timings": {"cache_n": 0}},
    ),
    "vllm": Dialect(
        refusals={
            "401": _UNAUTHORIZED,
            "404": Refusal(404, _openai("The model `{model}` does not exist.", "NotFoundError", 404, "model")),
            "429": _vllm(429, "Too many requests", "RateLimitError"),
            "500": _vllm(500, "EngineCore encountered an issue.", "InternalServerError"),
            "overflow": _vllm(400, _VLLM_OVERFLOW, "BadRequestError"),
            "room": _vllm(400, _VLLM_OVERFLOW, "BadRequestError"),
            "roles": _vllm(400, _ALTERNATE, "BadRequestError"),
        },
        order=_STRICT,
        aborted="abort",
        reasoning="reasoning",
    ),
    "sglang": Dialect(
        refusals={
            "401": _UNAUTHORIZED,
            "429": _sglang(429, "Too many requests", "RateLimitError"),
            "500": _sglang(500, "Internal server error: scheduler", "InternalServerError"),
            "overflow": _sglang(
                400,
                "The input ({read} tokens) is longer than the model's context length ({limit} tokens).",
                "BadRequestError",
            ),
            "room": _sglang(400, _SGLANG_ROOM, "BadRequestError"),
        },
        aborted="abort",
        reasoning="reasoning_content",
    ),
    "tgi": Dialect(
        refusals={
            "401": Refusal(401),
            "429": _tgi(429, "Model is overloaded", "overloaded"),
            "500": _tgi(424, "Request failed during generation: Server error: CUDA out of memory", "generation"),
            "overflow": _tgi(
                422, "Input validation error: `inputs` must have less than {limit} tokens. Given: {read}", "validation"
            ),
            "room": _tgi(
                422,
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= {limit}. Given: {read} `inputs` "
                "tokens and {asked} `max_new_tokens`",
                "validation",
            ),
            "roles": _tgi(422, f"Template error: syntax error: {_ALTERNATE} (in <string>:1)", "template_error"),
        },
        order=_STRICT,
        limits=("max_tokens",),
        adds={"model": "some/model"},
    ),
    "ollama": Dialect(
        refusals={
            "401": Refusal(401, {"error": "unauthorized"}),
            "404": Refusal(404, _openai("model '{model}' not found", "not_found_error")),
            "429": Refusal(
                503,
                _openai("server busy, please try again.  maximum pending requests exceeded", "api_error"),
            ),
            "500": Refusal(500, _openai("model runner has unexpectedly stopped", "api_error")),
        },
        limits=("max_tokens",),
        full=None,
        reasoning="reasoning",
        adds={"system_fingerprint": "fp_ollama"},
    ),
    "openrouter": Dialect(
        refusals={
            "401": _router(401, "No auth credentials found"),
            "404": _router(400, "{model} is not a valid model ID"),
            "429": _router(
                429,
                "Provider returned error",
                200,
                raw="{model} is temporarily rate-limited upstream. Please retry shortly.",
                provider_name="Some",
            ),
            "500": _router(502, "Provider returned error", 200, raw="upstream error", provider_name="Some"),
            "overflow": _router(400, _ROUTER_OVERFLOW),
            "room": _router(400, _ROUTER_OVERFLOW),
            "filtered": _router(403, "Input was flagged", reasons=["violence"], provider_name="Some"),
        },
        aborted="error",
        reasoning="reasoning",
        usage="last",
        adds={"provider": "Some"},
        opening=": OPENROUTER PROCESSING\n\n",
    ),
    "mistral": Dialect(
        refusals={
            "401": Refusal(401, {"message": "Unauthorized", "request_id": "1"}),
            "404": _flat(400, "Invalid model: {model}", "invalid_model", "1500"),
            "429": _flat(429, "Rate limit exceeded", "rate_limited", "1300"),
            "500": _flat(500, "Service unavailable.", "internal_server_error", "1000"),
            "overflow": _flat(
                400,
                "Prompt contains {read} tokens and 0 draft tokens, too large for model with {limit} maximum context "
                "length",
                "invalid_request_error",
                None,
            ),
            "roles": _flat(
                400, "Unexpected role '{role}' after role '{before}'", "invalid_request_message_order", "3230"
            ),
            "field": _flat(422, {"detail": "{details}"}, "invalid_request_error", None),
        },
        known=frozenset(
            {
                *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "n"),
                *("response_format", "tools", "tool_choice", "parallel_tool_calls", "presence_penalty"),
                *("frequency_penalty", "prediction", "prompt_mode", "safe_prompt", "metadata"),
            }
        ),
        order={
            "": frozenset({"system", "user"}),
            "system": frozenset({"system", "user"}),
            "user": _ANY,
            "assistant": frozenset({"user", "assistant"}),
        },
        limits=("max_tokens",),
        full="model_length",
        aborted="error",
        reasoning="parts",
        usage="last",
    ),
    "deepseek": Dialect(
        refusals={
            "401": Refusal(
                401,
                _openai(
                    "Authentication Fails, Your api key: ****1234 is invalid",
                    "authentication_error",
                    "invalid_request_error",
                ),
            ),
            "404": Refusal(400, _openai("Model Not Exist", "invalid_request_error", "invalid_request_error")),
            "429": Refusal(429, _openai("Rate limit reached", "rate_limit_error", "rate_limit_reached")),
            "500": Refusal(503, _openai("Service is too busy", "service_unavailable_error")),
            "overflow": Refusal(400, _openai(_MAXIMUM + _REQUESTED, "invalid_request_error", "invalid_request_error")),
            "room": Refusal(400, _openai(_MAXIMUM + _REQUESTED, "invalid_request_error", "invalid_request_error")),
            "roles": Refusal(
                400,
                _openai(
                    "deepseek-reasoner does not support successive user or assistant messages (messages[{at}] and "
                    "messages[{next}] in your input). You should interleave the user/assistant messages in the message "
                    "sequence.",
                    "invalid_request_error",
                    "invalid_request_error",
                ),
            ),
            "form": Refusal(
                400,
                _openai(
                    "This response_format type is unavailable now", "invalid_request_error", "invalid_request_error"
                ),
            ),
        },
        order={
            "": _ANY,
            "system": _ANY,
            "user": frozenset({"system", "assistant", ""}),
            "assistant": frozenset({"system", "user"}),
        },
        limits=("max_tokens",),
        aborted="insufficient_system_resource",
        reasoning="reasoning_content",
    ),
    "azure": Dialect(
        refusals={
            "401": _azure(
                "401",
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
                "for an active subscription and use a correct regional API endpoint for your resource.",
                401,
            ),
            "404": _azure(
                "DeploymentNotFound",
                "The API deployment for this resource does not exist. If you created the deployment within the last 5 "
                "minutes, please wait a moment and try again.",
                404,
            ),
            "429": _azure("429", "Rate limit is exceeded. Try again in 2 seconds.", 429),
            "500": _azure("500", "The server had an error while processing your request.", 500),
            "overflow": Refusal(
                400,
                _openai(
                    _MAXIMUM + "your messages resulted in {read} tokens. Please reduce the length of the messages.",
                    "invalid_request_error",
                    "context_length_exceeded",
                    "messages",
                ),
            ),
            "field": Refusal(
                400,
                _openai(
                    "Unsupported parameter: '{field}' is not supported with this model. Use 'max_completion_tokens' "
                    "instead.",
                    "invalid_request_error",
                    "unsupported_parameter",
                    "{field}",
                ),
            ),
            "filtered": Refusal(
                400,
                _openai(
                    _OPENAI_FILTER,
                    None,
                    "content_filter",
                    "prompt",
                    status=400,
                    innererror={
                        "code": "ResponsibleAIPolicyViolation",
                        "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
                    },
                ),
            ),
        },
        refused=frozenset({"max_tokens"}),
        reasoning="hidden",
        adds={"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
        opening="data: "
        + json.dumps({"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []})
        + "\n\n",
    ),
}
"""By name. "openai" is the plain one, which reports its usage unasked and takes everything."""
