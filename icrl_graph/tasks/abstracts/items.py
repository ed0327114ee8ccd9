"""Abstracts: write the abstract of a paper of which the title is given, rewarded by the words that it has in common.

The task is that of ICRL prompting (arXiv 2506.06303, appendix C), where the papers are newer than the model. Theirs are
not shipped: `load` reads custom ones. The items here are papers that don't exist (`texts`), so that no model has read
them; an answer can be like them by its rewards alone.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from icrl_graph.prompts.templates import ABSTRACT_TASK, fill
from icrl_graph.state.unicode import cleaned
from icrl_graph.tasks.abstracts.overlap import read_abstract
from icrl_graph.tasks.abstracts.texts import PAPERS, Paper


def read_item(text: str) -> Paper:
    """The paper whose number, from 0, is written like "7".

    Raises:
        ValueError: it is not written like that, or there is no such paper.
    """
    numbers = {str(number): paper for number, paper in enumerate(PAPERS)}
    if text.strip() not in numbers:
        raise ValueError(
            f"an item of the abstracts is a number from 0 to {len(PAPERS) - 1}, like '7', got {text!r:.80}"
        )
    return numbers[text.strip()]


def task(paper: Paper) -> dict[str, Any]:
    """The input of a graph for a paper.

    Raises:
        ValueError: there is no title, or the abstract has no word that counts.
        MissingExtra: rouge-score is not installed (extra `abstracts`).
    """
    if not (isinstance(paper.title, str) and paper.title.strip()):
        raise ValueError(f"a title is a text that is not empty, got {paper.title!r:.80}")
    data = {"abstract": paper.abstract}
    read_abstract(data)
    return {"task": fill(ABSTRACT_TASK, title=paper.title.strip()), "task_data": data}


def load(path: str | PathLike[str]) -> list[Paper]:
    """Papers from a file with a JSON object in each line, with a `title` and an `abstract`; other fields are ignored.

    Raises:
        ValueError: the file has no papers, or a line is none; names the line.
        OSError: the file can't be read.
    """
    data, papers = Path(path).read_bytes(), []
    for number, line in enumerate(data.decode(json.detect_encoding(data)).split("\n"), 1):
        if line.strip():
            try:
                entry = cleaned(json.loads(line))
                papers.append(Paper(entry["title"], entry["abstract"]))
                task(papers[-1])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                form = '{"title": "...", "abstract": "..."}'
                raise ValueError(f"{path}, line {number}: a line is {form}, got {line!r:.80} ({error})") from None
    if not papers:
        raise ValueError(f"{path} has no papers")
    return papers
