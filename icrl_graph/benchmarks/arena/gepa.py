"""GEPA's `optimize_anything` (arXiv 2507.19457; https://gepa-ai.github.io/gepa/)."""

from __future__ import annotations

import sys
from typing import Any

from icrl_graph.topologies.programs import Host, foreign


@foreign("gepa.optimize_anything", extra="arena")
def create_gepa(host: Host) -> str:
    """gepa.optimize_anything: the model proposes a new text from one of a Pareto front and the feedback on it."""
    from gepa.optimize_anything import (
        EngineConfig,
        GEPAConfig,
        ReflectionConfig,
        TrackingConfig,
        optimize_anything,
    )

    def evaluate(candidate: str) -> tuple[float, dict[str, Any]]:
        reward = host.judge(candidate)
        value = host.worst if reward["value"] is None else reward["value"]
        return value, {"feedback": reward.get("feedback") or ""}

    engine = EngineConfig(
        seed=host.seed,
        max_metric_calls=sys.maxsize,  # the host counts
        max_candidate_proposals=host.rounds - 1,  # beside the first text, which the model writes from the objective
        cache_evaluation=True,  # else each text is judged three times
        parallel=False,
        raise_on_exception=True,
        display_progress_bar=False,
    )
    reflection = ReflectionConfig(reflection_lm=lambda prompt: host.ask(prompt).text)
    config = GEPAConfig(engine=engine, reflection=reflection, tracking=TrackingConfig(logger=_Silent()))
    result = optimize_anything(seed_candidate=None, evaluator=evaluate, objective=host.task, config=config)
    best: str = result.best_candidate
    return best


class _Silent:
    """A logger for GEPA, which would print fifteen lines a proposal."""

    def log(self, message: str) -> None:
        """Log nothing."""
