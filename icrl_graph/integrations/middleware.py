"""ICRL as middleware of a LangChain agent: it attempts, is rewarded, attempts again, and answers with its best attempt.

    agent = create_agent("openai:gpt-4.1-mini", tools, middleware=[ICRLMiddleware(score, rounds=4)])

Needs the extra `agents`. The outer form, `create_icrl(create_agent(...), score)`, comes first: there every attempt is a
fresh agent, and all is as with any other model. Here the method is inside the agent, whose thread, streams, interrupts
and checkpoints stay as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Any, NotRequired

from langchain_core.messages import AIMessage, AnyMessage, RemoveMessage, ToolMessage, convert_to_messages
from langgraph.channels import DeltaChannel
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, Overwrite
from pydantic import TypeAdapter

from icrl_graph.errors import BudgetExceeded, missing_extra
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.execution.langgraph_internals import overwriting, state_keys
from icrl_graph.prompts.layouts import flat
from icrl_graph.state.episode import Episode, Output, Usage, add_usage, keep_last, latest, upsert
from icrl_graph.state.selection import answering
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.nodes import check_task
from icrl_graph.topologies.stepwise import Play, Run, Stepwise, spending

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
    from langchain.agents.middleware.types import ExtendedModelResponse, OmitFromInput, OmitFromOutput, PrivateStateAttr
except ImportError as missing:
    raise missing_extra("langchain", "agents") from missing

Topology = str | Callable[..., Graph]
_OTHERS = ("structured_response", "_summarization_event")
"""Keys of other libraries that belong to an attempt: the second counts messages, which are taken away after it."""


def _added(old: Usage | None, new: Usage | None) -> Usage:
    return Usage() if new is None else add_usage(old or {}, new)


def _appended(old: list[Any] | None, writes: Sequence[list[Any]]) -> list[Any]:
    return [*(old or []), *chain(*writes)]


class ICRLState(AgentState[Any]):
    """What an agent's state has beside its own keys. The run is private; `get_state(config).values` has it."""

    task_data: NotRequired[Annotated[dict[str, Any], OmitFromOutput, latest]]
    """For the evaluator alone; stays until another is given."""
    icrl_result: NotRequired[Annotated[dict[str, Any] | None, OmitFromInput, latest]]
    """What the run has come to (`icrl_graph.state.episode.Output`)."""
    icrl_inputs: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, DeltaChannel(keep_last)]]
    icrl_settings: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, DeltaChannel(keep_last)]]
    icrl_episodes: NotRequired[Annotated[list[Episode], PrivateStateAttr, DeltaChannel(upsert)]]
    icrl_stopped: NotRequired[Annotated[str | None, PrivateStateAttr]]
    """Why the run has ended."""
    icrl_cap: NotRequired[Annotated[str | None, PrivateStateAttr]]
    """The cap that has broken off the attempt."""
    icrl_used: NotRequired[Annotated[Usage, PrivateStateAttr, _added]]
    """What the attempt has used so far, in tools, too; None begins anew."""
    icrl_said: NotRequired[Annotated[str | None, PrivateStateAttr]]
    """The id of the latest message that a model has given: what other middleware says is no answer."""
    icrl_before: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]
    """What each attempt finds: the conversation, and the keys to restore."""
    icrl_left: NotRequired[Annotated[list[dict[str, Any]], PrivateStateAttr, DeltaChannel(_appended)]]
    """What each attempt has left: its own messages, and the same keys."""


class ICRLMiddleware(AgentMiddleware[Any, Any, Any]):
    """Has an agent answer in rounds, each judged and shown to the next, and gives back its best attempt.

    For `create_agent`, `create_deep_agent` and sub-agents, under `invoke` and `ainvoke`. An attempt is all that the
    agent does until it would end, calls of tools included. In the end the messages of the best one follow the
    conversation, and `icrl_result` says its reward, what all have used, and why the run has ended. Settings come by
    `context={"icrl": {"rounds": 2}}`, data for the evaluator by the key `task_data`. Each turn is a run of its own.

    WHAT TOOLS HAVE DONE IS NOT UNDONE. Files on a disk, shells, databases, messages that were sent: they stay as all
    attempts have left them, the worst among them. Only keys of the agent's state are restored, those that `restore`
    names. Where that matters, have each attempt work in a sandbox of its own.

    The caps are checked before each call of the model; an attempt that one of them breaks off is not judged. Where
    other middleware ends the agent, such as `ModelCallLimitMiddleware`, the run ends with the best attempt so far
    (stopped: "agent"), and its notice is no attempt. What models answer in the agent's calls and in its tools is
    counted; what other middleware asks for itself, such as a summary, is not. A call of the model that fails is the
    agent's, as without this (see `ModelRetryMiddleware`). With a checkpointer and `durability="sync"`,
    `invoke(None, config)` resumes a killed run, and pays again for the call in flight alone. Put middleware that
    summarizes ahead of this one, else it summarizes the conversation in each round.

    Args:
        evaluator: gives the reward, as for `create_icrl`; its argument `answer` is the agent's structured response, if
            it gives one, in JSON's types.
        topology: "icrl", "reflexion" (with `reflector`), "self_refine" (with `critic`), or another one that makes one
            attempt after another, as `icrl_graph.topologies.methods.find_topology` takes it.
        restore: keys of the agent's state that belong to an attempt, such as "files" of a deep agent. Each attempt
            finds them as the first did, the evaluator finds them in its `task_data`, those of the best one stay.
        options: of the topology. Refused are those of the agent's own model (another one, sampling, a system prompt),
            and several attempts side by side.

    Raises:
        ValueError: an argument is wrong, or makes no sense for an agent; says which.
    """

    state_schema = ICRLState

    def __init__(
        self, evaluator: Evaluator, *, topology: Topology = "icrl", restore: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__()
        if isinstance(restore, str) or not all(isinstance(key, str) for key in restore):
            raise ValueError(f"restore has names of keys of the agent's state, such as ('files',); got {restore!r:.80}")
        fixed = {"retests": (0, "restore has put back what an attempt is judged by")} if restore else {}
        self._steps, self._restore = Stepwise(topology, evaluator, options, fixed), tuple(restore)
        self._keys = (*_OTHERS, *restore)

    def before_agent(self, state: ICRLState, runtime: Any) -> dict[str, Any]:
        """Begin a run."""
        return self._steps.play(self._begin(state))

    async def abefore_agent(self, state: ICRLState, runtime: Any) -> dict[str, Any]:
        """Begin a run."""
        return await self._steps.aplay(self._begin(state))

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: ICRLState, runtime: Any) -> dict[str, Any] | None:
        """Check the caps. Of a round's first call: note the conversation, which may have been summarized."""
        if not _is_on(state):
            return None
        if cap := self._steps.cap(_run_of(state)):
            return {"icrl_cap": cap, "jump_to": "end"}
        is_first = not state.get("icrl_used")
        return {"icrl_before": {**state["icrl_before"], "messages": state["messages"]}} if is_first else None

    async def abefore_model(self, state: ICRLState, runtime: Any) -> dict[str, Any] | None:
        """As `before_model`, which never waits."""
        return self.before_model(state, runtime)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Ask by the prompt of the round; count what is answered."""
        with self._steps.counting() as used:
            response = handler(self._asked(request))
        return _answered(response, used)

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask by the prompt of the round; count what is answered."""
        with self._steps.counting() as used:
            response = await handler(self._asked(request))
        return _answered(response, used)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Count what models answer within a tool, such as a sub-agent's."""
        with self._steps.counting() as used:
            answer = handler(request)
        return _with_usage(answer, used)

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Count what models answer within a tool, such as a sub-agent's."""
        with self._steps.counting() as used:
            answer = await handler(request)
        return _with_usage(answer, used)

    @hook_config(can_jump_to=["model"])
    def after_agent(self, state: ICRLState, runtime: Any) -> dict[str, Any]:
        """Judge the attempt, then begin the next one, or end with the best."""
        return self._steps.play(self._end(state))

    @hook_config(can_jump_to=["model"])
    async def aafter_agent(self, state: ICRLState, runtime: Any) -> dict[str, Any]:
        """Judge the attempt, then begin the next one, or end with the best."""
        return await self._steps.aplay(self._end(state))

    def _begin(self, state: ICRLState) -> Play:
        own = [key for key in state_keys() if key != "messages" and key not in ICRLState.__annotations__]
        if unknown := [key for key in self._restore if key not in own]:
            named, there = ", ".join(map(repr, unknown)), ", ".join(own) or "no keys of its own"
            raise ValueError(f"restore names {named}, but the state of the agent has {there}")
        given = {"task": list(state["messages"]), "task_data": state.get("task_data") or {}}
        run = yield from self._steps.begin(given)
        update = dict.fromkeys(("icrl_stopped", "icrl_cap", "icrl_used", "icrl_said", "icrl_result"))
        update |= {"icrl_inputs": run["inputs"], "icrl_settings": run["settings"], "icrl_left": Overwrite([])}
        update |= {"icrl_before": {key: state.get(key) for key in ("messages", *self._keys)}}
        return {**update, "icrl_episodes": Overwrite(run["episodes"])}

    def _asked(self, request: Any) -> Any:
        """The request, with the round's prompt in place of the conversation, ahead of the attempt's own messages."""
        if not _is_on(request.state):
            return request
        run, known, messages = _run_of(request.state), _ids(request.state), request.messages
        end = 1 + max((at for at, message in enumerate(messages) if message.id in known), default=0)
        if self._steps.graph.parts.complete is None:  # else the task is another one than the conversation
            run["inputs"] = {**run["inputs"], "task": check_task(messages[:end])}
        prompt = convert_to_messages(flat(self._steps.graph.prompt(run)))  # type: ignore[arg-type]
        return request.override(messages=[*prompt, *messages[end:]])

    def _end(self, state: ICRLState) -> Play:
        if not _is_on(state):
            return {"icrl_result": None}
        before, known, run = state["icrl_before"], _ids(state), _run_of(state)
        own = [message for message in state["messages"] if message.id not in known]
        left: dict[str, Any] = {**{key: state.get(key) for key in self._keys}, "messages": own}
        data = {**run["inputs"]["task_data"], **{key: state.get(key) for key in self._restore}}
        run["inputs"] = {**run["inputs"], "task_data": data}
        run = yield from self._steps.end(run, *_reply(state, own))
        update: dict[str, Any] = {"icrl_episodes": run["patches"], "icrl_stopped": run["stopped"]}
        update |= {"icrl_left": [left], "icrl_used": None}
        if run["stopped"]:
            top = answering(run["episodes"], self._steps.graph.choose)
            put = left if top is None else [*(state.get("icrl_left") or []), left][top["round"]]
            update["icrl_result"] = {key: run.get(key) for key in Output.__annotations__}
        else:
            put = {**before, "messages": []}
            update["jump_to"] = "model"
        messages = [*before["messages"], *put["messages"]]
        if messages != state["messages"]:
            update["messages"] = [RemoveMessage(id=REMOVE_ALL_MESSAGES), *messages]
        return update | overwriting({key: put[key] for key in self._keys if put[key] != state.get(key)})


def _reply(state: ICRLState, own: Sequence[AnyMessage]) -> tuple[Any, str | None, str | None]:
    """What the agent has answered; if it has not, why, and what that ends the run with."""
    form, said = state.get("structured_response"), next((m for m in reversed(own) if isinstance(m, AIMessage)), None)
    if cap := state.get("icrl_cap"):
        return None, str(BudgetExceeded(cap)), cap
    if said is None or said.id != state.get("icrl_said"):
        return None, f"other middleware has ended the agent: {said and said.text}", "agent"
    if form is not None:
        return TypeAdapter(type(form)).dump_python(form, mode="json"), None, None
    return (own[-1] if isinstance(own[-1], ToolMessage) else said), None, None  # a tool may answer in its place


def _is_on(state: Mapping[str, Any]) -> bool:
    """Whether a run has begun in this turn, and not ended: other middleware may end an agent before it begins one."""
    return bool(state.get("icrl_settings")) and state.get("icrl_stopped") is None


def _run_of(state: Mapping[str, Any]) -> Run:
    """The run as its nodes know it, with what the attempt that is under way has used so far."""
    run = {key: state.get(f"icrl_{key}") for key in ("inputs", "settings", "episodes", "stopped")}
    return spending(run, state.get("icrl_used") or Usage())


def _ids(state: Mapping[str, Any]) -> set[str | None]:
    """The ids of the messages that are the conversation, not an attempt's. A summary may take their places."""
    return {message.id for message in state["icrl_before"]["messages"]}


def _answered(response: Any, used: Mapping[str, Any]) -> ExtendedModelResponse[Any]:
    said = [message.id for message in response.result if isinstance(message, AIMessage) and used["calls"]]
    return ExtendedModelResponse(response, Command(update={"icrl_used": used, "icrl_said": [None, *said][-1]}))


def _with_usage(answer: Any, used: Mapping[str, Any]) -> Any:
    """What a tool has answered, with what it has used. What goes to a graph around the agent is left as it is."""
    if not used["calls"] or getattr(answer, "graph", None) is not None:
        return answer
    command = answer if isinstance(answer, Command) else Command(update={"messages": [answer]})
    return replace(command, update={**(command.update or {}), "icrl_used": used})
