"""One call, and how it is made: of a Runnable or a function, sync or async, in a thread or in an event loop.

Under `invoke` a part without a sync side runs in the event loop of its run (`execution.event_loop`), all else in the
caller's thread; under `ainvoke` what may block gets a thread of its own. A call with a time limit is given up on when
the limit is reached. A thread cannot be stopped; it is left behind, as a daemon that holds neither a pool nor the
process. (Threads that a part starts itself, as LangChain's `ainvoke` of a sync part without a limit does, may still
hold the process until they end.)
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableSequence
from langgraph.errors import GraphDrained
from langgraph.runtime import get_runtime

from icrl_graph.execution.event_loop import event_loop, too_late


class contained:
    """What users' code raises within the block is an `Exception`, whatever it is.

    An evaluator may `exec` an answer that says `sys.exit(0)`: that must not end the caller's process, silently and with
    a status of 0. A Ctrl-C and a cancellation pass as they are, and so does the end of a coroutine that holds the
    block.

    Args:
        awaits: whether the block awaits anything, so that it may be ended there.
    """

    def __init__(self, awaits: bool = False) -> None:
        self._awaits = awaits

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turn what it raised into a RuntimeError.

        Raises:
            RuntimeError: it raised a SystemExit, or another error that is no `Exception`.
        """
        if error is not None and not isinstance(error, Exception) and not self._stops(error):
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def _stops(self, error: BaseException) -> bool:
        """Whether an error is there to stop what runs."""
        if isinstance(error, BaseExceptionGroup):
            return any(map(self._stops, error.exceptions))
        if isinstance(error, GeneratorExit):  # raised by users' code, if there is a task that goes on
            return self._awaits and not _in_task()
        return isinstance(error, KeyboardInterrupt | asyncio.CancelledError)


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no event loop runs
        return False


@dataclass(frozen=True)
class Call:
    """One call: the only thing that a flow can have done.

    Attributes:
        part: a Runnable (its `invoke` or `ainvoke` is used) or a function, sync or async.
        input: the Runnable's input, or the function's keyword arguments.
        read: makes a JSON-able value of what came back; what it raises counts as the call's failure.
        kwargs: further keyword arguments of the Runnable.
        timeout: seconds after which the call is given up on. A thread can't be stopped and is left behind.
        paid: whether the call counts against the budget and its reply is saved in the journal.
        shares_prompt: the same for calls that are made side by side with one long prompt, at a provider that caches
            prompts; None for a call that need not wait for another one.
        tracks_own_cost: whether its cost is counted within it, call by call, and not as that of this call.
        unkeyed_kwargs: keyword arguments that do not change the reply, and are not part of the call's key.
    """

    part: Any
    input: Any
    read: Callable[[Any], Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    paid: bool = True
    shares_prompt: Hashable = None
    tracks_own_cost: bool = False
    unkeyed_kwargs: Mapping[str, Any] = field(default_factory=dict)


def execute(call: Call) -> Any:
    """Make a call; returns what came back.

    Raises:
        TimeoutError: nothing came back in time.
        GraphDrained: it is a paid call, and the run is being drained.
    """
    _unless_drained(call)
    with contained():
        if call.timeout is None or async_only(call.part):
            return _whole(_invoke(call))
        return _whole(_result(_in_thread(partial(_invoke, call)), call.timeout))


async def aexecute(call: Call) -> Any:
    """`execute` under `ainvoke`."""
    _unless_drained(call)
    with contained(awaits=True):
        return _whole(await _aresult(_ainvoke(call), call.timeout))


_BROKEN_OFF = ("error", "abort", "insufficient_system_resource", "network_error")
"""Why a message ended, where its provider broke it off: OpenRouter and Mistral, vLLM and SGLang, DeepSeek, Zhipu
(BerriAI/litellm/pull/24373)."""


def is_broken_off(ending: Any) -> bool:
    """Whether a message ended because its provider broke it off, by the reason that it gives."""
    return str(ending).lower() in _BROKEN_OFF


def _whole(response: Any) -> Any:
    """A reply, if its model could end it: some providers call what they broke off an answer.

    Raises:
        ConnectionError: it could not.
    """
    message = response.get("raw") if isinstance(response, Mapping) else response
    metadata = getattr(message, "response_metadata", None)
    if isinstance(metadata, Mapping) and is_broken_off(metadata.get("finish_reason")):
        raise ConnectionError(f"the provider broke its answer off: {str(getattr(message, 'content', ''))[-80:]!r}")
    return response


def run_blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, for it blocks where it would wait; needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a coroutine that should block has suspended")


def _unless_drained(call: Call) -> None:
    """Begin no paid call in a run that is being drained, even if other calls of its step still wait for their turn."""
    if not call.paid:
        return
    try:
        runtime = get_runtime()
    except RuntimeError:  # outside of a graph
        return
    if runtime is not None and runtime.drain_requested:
        raise GraphDrained(runtime.drain_reason or "shutdown")


def async_only(part: Any) -> bool:
    """Whether a part has no sync side: a coroutine function, or an object, a tool or a Runnable made of one."""
    if not hasattr(part, "invoke"):
        return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004
    if (bound := getattr(part, "bound", None)) is not None:
        return async_only(bound)
    if isinstance(part, RunnableSequence):
        return any(map(async_only, part.steps))
    return _made_of(part, "coroutine", "afunc") and not _made_of(part, "func")


def _needs_thread(call: Call) -> bool:
    """Whether a Runnable without an async side is not to be left to LangChain.

    It would run in a thread that the event loop waits for, also past a time limit, and in a task: a `SystemExit` of one
    ends the loop.
    """
    if isinstance(call.part, BaseChatModel):
        kind = type(call.part)
        is_sync = (kind._agenerate, kind._astream) == (BaseChatModel._agenerate, BaseChatModel._astream)
        return is_sync and call.timeout is not None
    return _made_of(call.part, "func") and not _made_of(call.part, "coroutine", "afunc")


def _made_of(part: Any, *names: str) -> bool:
    return any(getattr(part, name, None) is not None for name in names)


def begin(call: Call) -> Any:
    """Make a call; of a part without a sync side, returns something to await."""
    try:
        if not hasattr(call.part, "invoke"):
            return call.part(**call.input)
        begin = call.part.ainvoke if async_only(call.part) else call.part.invoke
        return begin(call.input, **call.kwargs, **call.unkeyed_kwargs)
    except (StopIteration, GeneratorExit) as error:  # neither a coroutine nor a future can carry them
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _invoke(call: Call) -> Any:
    """Make a call and wait for it; what is to be awaited, in the event loop of the run."""
    response = begin(call)
    if not inspect.isawaitable(response):
        return response
    with event_loop() as loop:
        return loop.run(_aresult(response, None), call.timeout)


async def _ainvoke(call: Call) -> Any:
    """Make a call in the running loop; whatever may block, in a thread."""
    if hasattr(call.part, "ainvoke") and not _needs_thread(call):
        response = await call.part.ainvoke(call.input, **call.kwargs, **call.unkeyed_kwargs)
    elif async_only(call.part):
        response = await call.part(**call.input)
    else:
        response = await asyncio.wrap_future(_in_thread(partial(begin, call)))
    return await response if inspect.isawaitable(response) else response


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Start work in a thread of its own: what hangs must neither hold a pool nor keep the process alive."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # from here on it can't be cancelled, only left alone
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="icrl-call").start()
    return future


def _result(future: Future[Any], timeout: float | None) -> Any:
    if not wait([future], timeout).done and timeout is not None:
        raise too_late(timeout)
    return future.result()


async def _aresult(response: Awaitable[Any], timeout: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await response
    except TimeoutError:
        if timeout is not None and limit.expired():
            raise too_late(timeout) from None
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("something that the call waited for was cancelled") from error  # it must not end the run
