"""JSON Schema: an answer is right if it is JSON that is valid against the task's schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.verifier import Refused, Verifier, bound, read_block, require
from icrl_graph.state.reward import Reward

LONGEST = 1_000_000
"""Characters of an answer."""
TOLD = 5
"""Errors that the feedback tells."""
_PROBES: tuple[Any, ...] = (None, True, 0, 0.5, "", [], {})
"""What a schema is tried on before anything is paid."""


def json_schema() -> BoundEvaluator:
    """An evaluator of JSON.

    The task data has the `schema`, an object, of the draft that its `$schema` names, by default 2020-12. The reward is
    1 for an answer that is valid, else 0; the feedback tells the first errors, and quotes the schema. As the standard
    has it, `format` is a remark that is not checked.

    The JSON stands in `<answer>...</answer>`, in a block of code, or is the whole answer; or it is the object that
    `extract` has made. NaN, infinite numbers and keys that stand twice in an object are no JSON. A schema that is none,
    that refers to itself without end, or to anything outside of it is a fault of the task: nothing is fetched.

    Raises:
        MissingExtra: the package `jsonschema` is not installed.
    """
    require("jsonschema")
    return bound("json_schema", Verifier(judge, read_block, LONGEST))


def judge(answer: Any, task_data: Mapping[str, Any]) -> Reward:
    """What the worker does; see `verifier.Judge`."""
    validator = _validator(task_data.get("schema"))
    if answer is None:
        for probe in _PROBES:
            try:
                validator.is_valid(probe)
            except RecursionError:
                raise ValueError("the schema task_data['schema'] refers to itself without end") from None
        return Reward(value=None)
    try:
        instance = _read(answer) if isinstance(answer, str) else answer
        errors = list(islice(validator.iter_errors(instance), TOLD + 1))
    except RecursionError:
        raise Refused("The JSON is nested too deeply.") from None
    if not errors:
        return Reward(value=1.0)
    told = [f"{error.json_path}: {error.message[:200]}" for error in errors[:TOLD]]
    return Reward(value=0.0, feedback="\n".join([*told, *(["..."] if len(errors) > TOLD else [])]))


def _validator(schema: Any) -> Any:
    """The validator of a schema, which fetches nothing.

    Raises:
        ValueError: the schema is none, or refers to something outside of it.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, Mapping) or not isinstance(schema.get("$schema", ""), str):
        raise ValueError(f"task_data['schema'] must be a JSON schema, an object, got {schema!r:.200}")
    kind: Any = validator_for(schema, default=None if "$schema" in schema else Draft202012Validator)
    if kind is None:
        raise ValueError(f"the schema task_data['schema'] is of a draft that is not known: {schema['$schema']!r:.200}")
    try:
        kind.check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        _look_up(resource, REGISTRY.resolver_with_root(resource))
    except SchemaError as error:
        raise ValueError(f"task_data['schema'] is no JSON schema: {error.json_path}: {error.message:.200}") from None
    except RecursionError:
        raise ValueError("the schema task_data['schema'] is nested too deeply") from None
    return kind(schema, registry=REGISTRY)  # one without a way to fetch what it does not hold


def _look_up(resource: Any, resolver: Any) -> None:
    """Raise ValueError if one of the references in a schema leads out of it, wherever it stands."""
    from referencing.exceptions import Unresolvable

    if isinstance(resource.contents, Mapping):
        for keyword in ("$ref", "$dynamicRef"):
            if (reference := resource.contents.get(keyword)) is not None:
                try:
                    resolver.lookup(reference)
                except Unresolvable:
                    wrong = f"the schema task_data['schema'] refers to {reference!r:.200}, which is not in it"
                    raise ValueError(wrong) from None
        for inner in resource.subresources():
            _look_up(inner, resolver.in_subresource(inner))


def _read(text: str) -> Any:
    """The value that a text is as JSON.

    Raises:
        Refused: it is none.
    """
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite, object_pairs_hook=_object)
    except ValueError as error:
        raise Refused(f"The answer is no JSON: {error}") from None


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _no_json(text[:20])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return made
