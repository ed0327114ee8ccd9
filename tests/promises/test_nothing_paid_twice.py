"""Nothing is paid twice: what was answered before a run broke off is not asked for again when it is resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from icrl_graph import ModelError, chat_model
from icrl_graph.evaluators.judge import llm_judge, pairwise_judge
from icrl_graph.testing import OpenAIServer
from tests.promises.ways import METHODS, WAYS, size


class Word(BaseModel):
    word: str


def _in_the_form(messages: Any) -> str:
    asked = json.dumps(messages)
    if "Compare the two" in asked:
        return "Both are short.\nA"
    return json.dumps({"reasons": "so", "score": 5, "word": "w"})


def _in_words(messages: Any) -> str:
    """Never the form that is asked for."""
    return "It is a word.\nScore: 5\nA" if "Compare the two" in json.dumps(messages) else "It is a word.\nScore: 5"


JUDGES: dict[str, Any] = {
    "free": lambda model: lambda response: 1.0,
    "judge": lambda model: llm_judge(model, "Good?"),
    "jury": lambda model: llm_judge(model, "Good?", samples=3),
    "pairs": lambda model: pairwise_judge(model, "Good?"),
}


CASES = [
    ("free", _in_the_form, Word),
    ("judge", _in_the_form, None),
    ("judge", _in_words, Word),
    ("jury", _in_words, None),
    ("pairs", _in_words, None),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("judge", "said", "extract"), CASES)
def test_a_run_that_breaks_off_at_any_call_asks_for_no_answer_twice(
    judge: str, said: Any, extract: Any, method: str, way: str, tmp_path: Path
) -> None:
    """Broken off by a refused key, three times, and resumed with a graph that knows nothing of the run."""

    def play(path: str, faults: Any) -> tuple[Any, int, int]:
        with OpenAIServer(said, faults=faults) as server:
            breaks = 0
            while True:
                model = chat_model("openai:any", base_url=server.base_url)
                options: Any = {"topology": METHODS[method], "extract": extract, **size(method, 3)}
                if method == "wide":
                    options = {**options, "rounds": 2, "width": 2}
                try:
                    result = WAYS[way](
                        "Say a word.",
                        JUDGES[judge](model),
                        model=model,
                        path=tmp_path / path,
                        task_data={"reference": "w"},
                        **options,
                    )
                    return result, server.counts["answered"], breaks
                except ModelError:
                    breaks += 1

    whole, answered, _ = play("whole", {})
    again, paid, breaks = play("again", dict.fromkeys((2, 6, 14), "401"))
    assert breaks >= (answered > 1)
    beside = 2 if way == "async" and method in ("best_of_n", "wide") else 0  # in flight when the run breaks off
    assert answered <= paid <= answered + beside * breaks
    assert again.usage["calls"] == whole.usage["calls"]
    assert again.answer == whole.answer
