"""Programs of other libraries as topologies: optimisers that ask a model, and try answers, in a way of their own.

    @foreign("my_library", extra="my_extra")
    def create_mine(host):
        '''One line that says what it does.'''
        answer = host.ask(host.task).text
        if host.score(answer) < 1:
            answer = host.ask(f"{host.task} Not like this: {answer}").text
        return answer

A program runs in a thread of its own. What it asks a model for and what it has judged, from whichever thread, is done
by the node `generate`, one after another: so it is counted, capped, priced, paced and saved in the journal where the
calls of every other method are. Its `ask` raises what the call has raised, and `Ended` once a cap, the target or the
number of attempts is reached.

A run that was killed begins the program anew, which finds its replies in the journal as long as it asks the same again.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar, Literal, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field
from typing_extensions import override

from icrl_graph.errors import BudgetExceeded, IcrlError, missing_extra
from icrl_graph.evaluators.evaluator import Evaluator
from icrl_graph.execution.budget import Budget
from icrl_graph.execution.calls import Call
from icrl_graph.execution.driver import Flow, Meter, single
from icrl_graph.execution.retry import describe, is_transient
from icrl_graph.models.function import FunctionModel
from icrl_graph.models.responses import failure, read_response
from icrl_graph.models.structured import is_of_openai
from icrl_graph.prompts.text import text_of
from icrl_graph.state.choices import unbound
from icrl_graph.state.episode import Episode, LoopState, Message, Plan, Usage, add_usage, plain
from icrl_graph.state.reward import Reward
from icrl_graph.state.selection import Choose, best, selected_or
from icrl_graph.state.unicode import cleaned
from icrl_graph.topologies.base import Graph
from icrl_graph.topologies.nodes.evaluate import emit, score
from icrl_graph.topologies.nodes.generate import extracted, sampling_of
from icrl_graph.topologies.nodes.parts import Parts, costs, node
from icrl_graph.topologies.settings import RunSettings, SavedSettings

logger = logging.getLogger(__name__)


class Ended(BaseException):
    """Raised into a program whose run is over. No `Exception`, so that it is not taken for a failure of the model."""


class ForeignSettings(RunSettings):
    """The settings of a program: its prompts are its own."""

    namespace: ClassVar[str] = "foreign"
    fixed: ClassVar[Mapping[str, Any]] = {"memory": "none", "schedule": "plain"}
    can_be_extended: ClassVar[bool] = False

    rounds: int = Field(default=8, ge=1, description="Attempts at most.")
    target: float | None = Field(
        default=None, allow_inf_nan=False, description="Stop when a reward reaches this: success."
    )
    retests: Literal[0] = Field(default=0, description="What it answers with is its own choice.")


class _Request(NamedTuple):
    kind: Literal["ask", "judge", "returned", "raised"]
    value: Any
    reply: Future[Any]


class _Line:
    """Requests of a program, from whichever thread, on their way to the node that serves them."""

    def __init__(self) -> None:
        self._waiting, self._lock, self._closed = SimpleQueue[_Request | None](), threading.Lock(), False
        self._open = list[Future[Any]]()

    def send(self, kind: Any, value: Any) -> Any:
        """Wait for the reply to a request; raises what it is answered with, or `Ended`."""
        request = _Request(kind, value, Future())
        with self._lock:
            if self._closed:
                raise Ended
            self._open.append(request.reply)
        self._waiting.put(request)
        return request.reply.result()

    def receive(self) -> _Request | None:
        """The next request; None once the line is closed."""
        return self._waiting.get()

    def close(self) -> None:
        """End all requests that are not answered, and all that are yet to come."""
        with self._lock:
            self._closed = True
        for reply in self._open:
            if not reply.done():
                reply.set_exception(Ended())
        self._waiting.put(None)  # whoever still waits for one waits no longer


@dataclass(frozen=True)
class Host:
    """What a program gets: its task, and what it may do.

    Attributes:
        task: the task, with the system prompt and examples before it, as text.
        rounds: attempts at most.
        seed: a number for its own chance, the same again for a run that is resumed.
        highest: the highest reward that counts: the target, else the upper bound; None if neither is known.
        worst: what `score` gives where the evaluator gives nothing: the lower of the bounds, else 0.
        takes_form: whether the model takes a JSON schema as `response_format`; else a form is asked for by a tool.
    """

    task: str
    rounds: int
    seed: int
    highest: float | None
    worst: float
    takes_form: bool
    _line: _Line = field(repr=False)

    def ask(self, messages: str | Sequence[Message], **arguments: Any) -> AIMessage:
        """The model's answer to a prompt.

        Args:
            messages: a text, or chat messages in OpenAI's format.
            arguments: JSON values that go with the call, such as temperature; what the run sets itself goes first.
                `tools` are in OpenAI's format.

        Returns:
            The answer without its reasoning; empty where the model has given none, or has refused.

        Raises:
            Ended: the run is over.
            Exception: what the call has raised, after its retries.
        """
        prompt = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        reply: Mapping[str, Any] = self._line.send("ask", (prompt, arguments))
        return AIMessage(reply.get("response", ""), tool_calls=reply["tool_calls"])

    def judge(self, answer: str) -> Reward:
        """The reward of an answer, which counts as an attempt.

        Raises:
            Ended: the run is over.
            TypeError: it is no text.
        """
        if not isinstance(answer, str):
            raise TypeError(f"an answer is a text, got {answer!r:.80}")
        reward: Reward = self._line.send("judge", answer)
        return reward

    def score(self, answer: str) -> float:
        """The value of its reward; `worst` where it is unscored, for programs that know nothing but numbers."""
        value = self.judge(answer)["value"]
        return self.worst if value is None else value

    def chat_model(self, rewrite: Callable[[str], str] = str) -> BaseChatModel:
        """The model as one of LangChain's, for programs that take such a one.

        Args:
            rewrite: what is asked in place of a text, so that a run that is resumed asks the same again: such as
                without the random marks in it.
        """
        return _HostedModel(host=self, rewrite=rewrite, profile={"structured_output": self.takes_form})


class _HostedModel(BaseChatModel):
    """`Host.ask` as a chat model."""

    host: Any
    rewrite: Callable[[str], str]

    @property
    def _llm_type(self) -> str:
        return "hosted"

    @override
    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        form = {name: kwargs[name] for name in ("response_format",) if name in kwargs}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **chosen, **form)

    @override
    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        arguments = {name: kwargs[name] for name in ("tools", "tool_choice", "response_format") if kwargs.get(name)}
        prompt = convert_to_openai_messages(messages)
        for message in prompt:
            if isinstance(message["content"], str):
                message["content"] = self.rewrite(message["content"])
        answer = self.host.ask(prompt, **arguments, **({"stop": stop} if stop else {}))
        return ChatResult(generations=[ChatGeneration(message=answer)])


Program = Callable[[Host], str | None]
"""Returns its answer; None if it has none."""


class ForeignGraph(Graph):
    """A program as a graph: START -> prepare -> build_context -> generate -> evaluate -> select -> END.

    Args:
        program: what `generate` runs.
        package: the package that it is of, or a module of that.
        extra: the extra of icrl-graph that brings it, or None.
        calls: calls of the model that it makes at most, of the number of attempts.
        otherwise: which attempt gives the answer where the program has returned none, because a cap has ended it.
        args: model and evaluator.
        options: as for `Graph`; settings are those of `ForeignSettings`.
    """

    def __init__(
        self,
        program: Program,
        package: str,
        extra: str | None,
        calls: Callable[[int], int],
        otherwise: Choose,
        *args: Any,
        **options: Any,
    ) -> None:
        name = program.__name__.removeprefix("create_")
        super().__init__(*args, base=ForeignSettings, choose=selected_or(otherwise), name=name, **options)
        if self.parts.policy.kind == "rollout" or self.parts.policy.response_schema is not None:
            raise ValueError(f"{package} asks a model for text: it plays no episodes of many turns, and takes no form")
        self._package, self._extra, self._calls = package, extra, calls
        self.any_names = True
        del self.nodes["generate"]
        self._add("generate", _program_node(self.parts, program))
        for source, target in (
            ("prepare", "build_context"),
            ("build_context", "generate"),
            ("generate", "evaluate"),
            ("evaluate", "select"),
        ):
            self.add_edge(source, target)

    def most_calls(self) -> int:
        """Calls of models that a run makes at most, as far as nothing fails."""
        settings = SavedSettings.of(self.settings().model_dump())
        calls = self._calls(settings.rounds) + settings.rounds * (self.parts.calls_each - 1)
        return min(calls, settings.max_calls or calls)

    @override
    def check_names(self) -> None:
        """Import its package, before anything is paid, and in one thread; without it a saved run can be looked at.

        Raises:
            MissingExtra: it can't be imported.
        """
        try:
            importlib.import_module(self._package)
        except ImportError as error:
            package = self._package.partition(".")[0]
            raise missing_extra(package, self._extra or package) from error


def foreign(
    package: str,
    *,
    extra: str | None = None,
    calls: Callable[[int], int] = lambda rounds: rounds,
    otherwise: Choose = best,
) -> Callable[[Program], Callable[..., ForeignGraph]]:
    """Make a topology of a program.

    Args:
        package: the package that it needs, or a module of that, such as "json"; the program imports it itself.
        extra: what brings it: an extra of icrl-graph.
        calls: calls of the model that it makes at most, of the number of attempts; for previews.
        otherwise: which attempt gives the answer where it returns none: default the one with the highest reward; for
            programs that answer with their last attempt, `last_answered`.

    Returns:
        A decorator that gives a create function, as of the shipped topologies; it takes rounds, target, the budgets and
        the seed, and `Options`.
    """

    def made_of(program: Program) -> Callable[..., ForeignGraph]:
        def create(
            model: Any, evaluator: Evaluator, *, metric: Evaluator | None = None, rounds: int = 8, **options: Any
        ) -> ForeignGraph:
            settings: Any = {"metric": metric, "rounds": rounds, **options}
            return ForeignGraph(program, package, extra, calls, otherwise, model, evaluator, **settings)

        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(create, name, getattr(program, name))
        vars(create)["settings"] = ForeignSettings
        return create

    return made_of


def _program_node(parts: Parts, program: Program) -> Runnable[Any, Any]:
    """Run a program to its end, and serve what it asks for; whatever goes wrong in it is data."""
    lines = dict[str, _Line]()

    def discard(place: tuple[str, int, int]) -> None:
        if (line := lines.pop(place[0], None)) is not None:
            line.close()

    def generate(state: LoopState, settings: SavedSettings, budget: Budget) -> Flow:
        line = lines[settings.run] = _Line()
        served = _Served(parts, state, settings, Plan(shown=[], left_out=0, instruction=parts.name, program=parts.name))
        task = text_of([*parts.preamble, {"role": "user", "content": text_of(state["inputs"]["task"])}])
        worst = 0.0 if parts.bounds is None else parts.bounds[0]
        policy = parts.policy_of(settings)
        takes_form = policy.kind == "chat" and _takes_form(unbound(policy.part))
        host = Host(task, settings.rounds, settings.seed or 0, parts.highest(settings), worst, takes_form, line)
        threading.Thread(target=partial(Context().run, _run, program, host), daemon=True, name="icrl-foreign").start()
        try:
            while served.stopped is None:
                wait = Call(line.receive, {}, lambda request: request, timeout=budget.seconds_left(), paid=False)
                try:
                    request = yield from single(wait)
                except TimeoutError:
                    served.end("time", error=str(BudgetExceeded("time")), error_kind="cap")
                else:
                    yield from served.serve(request)
        finally:
            discard((settings.run, 0, 0))
        return {"episodes": served.episodes, "stopped": served.stopped}

    return node("generate", generate, parts.policy.part, parts, discard)


def _run(program: Program, host: Host) -> None:
    """Run a program in this thread, and tell how it has ended."""
    ended: tuple[str, Any]
    try:
        ended = ("returned", program(host))
    except Ended:
        return  # nobody waits for it
    except BaseException as error:
        ended = ("raised", error)
    with suppress(Ended):
        host._line.send(*ended)


class _Served:
    """What was done for a program: its attempts, and what it has asked since the last of them.

    Attributes:
        episodes: the attempts, as patches.
        stopped: why it has ended; None while it runs.
    """

    def __init__(self, parts: Parts, state: LoopState, settings: SavedSettings, plan: Plan) -> None:
        self._parts, self._state, self._settings, self._plan = parts, state, settings, plan
        self._asked, self._cost, self._failed = 0, Usage(), list[Exception]()
        self.episodes: list[Episode] = []
        self.stopped: str | None = None

    def serve(self, request: _Request) -> Flow:
        """Do what is asked for, and answer it."""
        if request.kind == "returned":
            return self._return(request.value)
        if request.kind == "raised":
            return self._fail(request.value)
        try:
            reply = yield from (self._answer(*request.value) if request.kind == "ask" else self._judge(request.value))
        except BudgetExceeded as over:
            self.end(over.cap, error=str(over), error_kind="cap")
        except IcrlError:
            raise
        except Exception as error:
            failure(error, len(self.episodes), 0)
            self._failed.append(error)
            request.reply.set_exception(error)
        else:
            if self.stopped is None:
                request.reply.set_result(reply)

    def _answer(self, messages: list[Message], arguments: Mapping[str, Any]) -> Flow:
        """The model's answer to a prompt, as fields."""
        policy = self._parts.policy_of(self._settings)
        given = plain(dict(arguments), "the arguments of a call")
        part, tools = policy.part, given.pop("tools", None)
        if tools:
            choice = {"tool_choice": given.pop("tool_choice")} if given.get("tool_choice") else {}
            part = part.bind_tools(tools, **choice)  # type: ignore[attr-defined]
        self._asked += 1
        opened = Episode(round=0, candidate=0, plan=self._plan)
        own = sampling_of(policy, self._parts, self._settings, opened, self._plan["instruction"], self._asked)
        kwargs = {**given, **own} if policy.kind == "chat" else {}
        read = partial(_read, tags=self._settings.reasoning_tags)
        meter = Meter()
        try:
            return (yield from meter.read(single(Call(part, policy.input(messages), read, kwargs))))
        finally:
            self._cost = add_usage(self._cost, meter.usage)

    def _judge(self, answer: Any) -> Flow:
        """The reward of an answer."""
        if len(self.episodes) >= self._settings.rounds:
            self.end("rounds")
            return None
        episode = self._attempt(response=cleaned(answer))
        state: LoopState = {**self._state, "episodes": self.episodes}
        found, usage = yield from score(self._parts, self._settings, state, episode)
        reward = found["reward"]
        episode.update(found)
        episode["shown"], episode["costs"] = reward, costs(episode, "evaluate", usage)
        emit(self._parts, self._settings, {**self._state, "episodes": self.episodes}, 1)
        target, value = self._settings.target, reward["value"]
        if target is not None and value is not None and value >= target:
            self.end("success")
        return reward

    def _attempt(self, **fields: Any) -> Episode:
        """One more attempt, which has cost what was asked since the last one."""
        cost, self._cost = self._cost, Usage()
        number = len(self.episodes)
        episode: Any = {"round": number, "candidate": 0, "plan": self._plan, **fields, "costs": {"generate": cost}}
        episode |= extracted(episode, self._parts.extract)
        self.episodes.append(episode)
        return self.episodes[-1]

    def _return(self, answer: Any) -> None:
        """End with the program's own answer, which `evaluate` judges where the program has not."""
        if not isinstance(answer, str | None):
            return self._fail(TypeError(f"the answer of a program is a text, got {answer!r:.80}"))
        if answer is not None:
            text = cleaned(answer)
            judged = [episode for episode in self.episodes if episode.get("response") == text]
            chosen = best(judged) or (judged[-1] if judged else self._attempt(response=text))
            chosen["selection"] = Reward(value=1.0)
        self.end("rounds", error="the program gave no answer", error_kind="reply")

    def _fail(self, error: BaseException) -> None:
        """End with the program's own failure; one of the provider is none of it: the run is to be made again.

        Raises:
            Exception: what the provider's failure was.
        """
        for cause in _chain(error):
            if isinstance(cause, Exception) and cause in self._failed and is_transient(cause):
                raise cause
        logger.warning("%s: %s", self._plan["instruction"], describe(error))
        self._attempt(error=describe(error), error_kind="reply")
        self.end("error")

    def end(self, stopped: str, **failure: Any) -> None:
        """End; what was asked since the last attempt is counted with that.

        Args:
            stopped: why.
            failure: the fields of an attempt, where there was none before.
        """
        self.stopped = stopped
        if not self.episodes:
            self._attempt(**failure)
        elif self._cost:
            last, self._cost, cost = self.episodes[-1], Usage(), self._cost
            last["costs"] = costs(last, "generate", cost)


def _takes_form(model: Any) -> bool:
    return isinstance(model, FunctionModel) or is_of_openai(model)


def _read(raw: Any, tags: str | None) -> dict[str, Any]:
    calls = getattr(raw, "tool_calls", None) or []
    return {**read_response(raw, tags), "tool_calls": plain([dict(call) for call in calls], "the tool calls")}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
