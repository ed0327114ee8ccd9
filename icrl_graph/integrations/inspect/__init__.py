"""Inspect (https://inspect.aisi.org.uk): methods as solvers of its tasks, and its scorers as evaluators.

    inspect eval task.py --model openai/gpt-4.1-mini --solver icrl_graph/icrl -S rounds=4

The reward is the task's own scorer, unless another evaluator is named. Inspect asks the model, counts, repeats and
logs; its limits end a run, with the best answer so far. Every start of `inspect` imports this module, so it imports
what is heavy within its functions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from inspect_ai.log import transcript
from inspect_ai.model import GenerateConfig
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import LimitExceededError

from icrl_graph.integrations.inspect.sample import Run, answer, broken, inputs_of, running, watch
from icrl_graph.integrations.inspect.scorers import NoScorer, evaluator_of, from_scorer

__all__ = ["best_of_n", "from_scorer", "icrl", "reflexion", "self_refine"]

logger = logging.getLogger(__name__)


def _solver_of(topology: str) -> Callable[..., Solver]:
    """The solver that plays a topology."""

    def create(evaluator: Any = None, feedback: bool = False, paid: bool = False, **options: Any) -> Solver:
        """Improve the answer to each sample by its rewards.

        Args:
            evaluator: gives the reward: a scorer of Inspect or its name, or an evaluator of icrl_graph, whose task data
                is the sample's metadata and its `target`; default the task's scorer, of several the first.
            feedback: whether the model reads the scorer's explanation, which may tell the target.
            paid: whether the scorer asks a model: then a judgement counts as a call.
            options: of the topology, such as `rounds`.

        Raises:
            ValueError: an argument is wrong.
        """
        from icrl_graph.errors import IcrlError
        from icrl_graph.execution.rate_limit import RateLimit
        from icrl_graph.integrations.inspect.model import InspectModel, asked, metered
        from icrl_graph.state.episode import answer_text
        from icrl_graph.state.reward import UNSCORED
        from icrl_graph.topologies.methods import build

        if given := [name for name in ("model", "topology") if name in options]:
            raise ValueError(f"{given[0]!r} is no option of the solver: --model names the model, --solver the method")
        names = {name for each in (options.get("sampling") or {}).values() for name in each}
        if unknown := names - {"stop", *GenerateConfig.model_fields}:
            raise ValueError(f"unknown sampling parameter {', '.join(sorted(unknown))}; see Inspect's GenerateConfig")
        if evaluator is None:
            logger.warning(
                "icrl_graph/%s: the reward is the task's own scorer, so the score of this eval is the one that was "
                "optimised. To have it tell more, name another scorer as evaluator",
                topology,
            )
        more, judge = options.pop("watch", ()), evaluator_of(evaluator, paid, feedback)
        options["watch"] = [watch, *([more] if callable(more) else more)]
        options["end_on"] = [LimitExceededError, NoScorer, *options.pop("end_on", ())]
        options.setdefault("rate_limit", RateLimit(max_attempts=1))  # Inspect repeats calls that fail
        graph = build(topology, InspectModel(), judge, **options)
        compiled, settings = graph.compile(), graph.settings().model_dump(exclude_none=True)
        unscored_is_meant = UNSCORED in (judge.on_error, settings.get("on_error"))

        async def solve(state: TaskState, generate: Generate) -> TaskState:
            run = Run(state)
            running.set(run)
            asked.set(set())
            if state.tools:
                logger.warning("icrl_graph/%s offers the model none of the tools of the task", topology)
            transcript().info({"settings": settings, "evaluator": judge.name}, source="icrl")
            # in a task of its own: Inspect takes the state that one of its solvers returns for the sample's
            inputs: Any = await asyncio.create_task(inputs_of(state))
            told: dict[str, Any] = {"stopped": "cancelled"}  # as by Inspect's limits of time
            try:
                with metered() as usage:
                    result = await compiled.ainvoke(inputs, {"recursion_limit": 1_000_000_000})
                told = {name: result[name] for name in ("reward", "stopped", "regret", "rounds_done", "usage")}
                run.answer = "" if result["answer"] is None else answer_text(result)
                if (problem := broken(run, result["stopped"])) and not (run.replied and unscored_is_meant):
                    raise IcrlError(problem) from run.failure
            except LimitExceededError as limit:
                told["stopped"] = f"{limit.type} limit"
                raise
            finally:
                await answer(state, run.answer)
                spent = {"input": usage["input_tokens"], "output": usage["output_tokens"]}
                state.metadata["icrl"] = {"evaluator": judge.name, "reward": run.reward, "usage": spent, **told}
            return state

        return solve

    create.__name__ = topology
    made: Callable[..., Solver] = solver(topology)(create)
    return made


icrl = _solver_of("icrl")
reflexion = _solver_of("reflexion")
self_refine = _solver_of("self_refine")
best_of_n = _solver_of("best_of_n")
