"""The Agent Skill: its form by the specification (agentskills.io), and all that it tells an agent to run.

Every command and every block of Python runs as it stands, in order, in a folder that `icrl init` has written; what is
named `openai:...` is a local server.
"""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from langchain_core.messages import AIMessage

from icrl_graph.testing import OpenAIServer, ScriptedModel
from tests.command_line import ROOT, icrl

SKILL = ROOT / "skills" / "icrl-graph"
TEXT = (SKILL / "SKILL.md").read_text(encoding="utf-8")
REFERENCES = sorted((SKILL / "references").iterdir())
PAGES = [SKILL / "SKILL.md", *REFERENCES]
_, FRONT, BODY = TEXT.split("---\n", 2)


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh"):
        yield from (shlex.split(line) for line in block.replace("\\\n", "").splitlines())


# ------------------------------------------------------------------------------------------------------------- the form


def test_the_frontmatter_is_that_of_the_specification() -> None:
    front: dict[str, Any] = yaml.safe_load(FRONT)
    assert {"name", "description"} <= front.keys() <= {"name", "description", "license", "compatibility"}
    assert front["name"] == SKILL.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"])
    assert len(front["name"]) <= 64
    assert 1 <= len(front["description"]) <= 1024
    assert "Use it when" in front["description"]  # all that an agent sees before it opens the file
    assert len(front["compatibility"]) <= 500
    assert all(isinstance(value, str) for value in front.values())


def test_the_body_is_as_short_as_the_specification_advises() -> None:
    assert len(TEXT.splitlines()) < 500
    assert len(BODY) / 4 < 5000  # tokens, of four characters each


def test_all_references_are_linked_and_one_level_deep() -> None:
    linked = set(re.findall(r"\]\((?!https?:)([^)]+)\)", BODY))
    assert linked == {str(path.relative_to(SKILL)) for path in REFERENCES}
    assert all(path.is_file() and path.suffix == ".md" for path in REFERENCES)
    assert not any(re.search(r"\]\((?!https?:)", path.read_text(encoding="utf-8")) for path in REFERENCES)


# ------------------------------------------------------------------------------------------------------ what it has run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs_as_it_stands(page: Path, starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(lambda: "It is.\nScore: 8") as judge, chdir(starter):
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        for program, *arguments in commands(page):
            if program == "cd":
                os.chdir(*arguments)
            elif program != "pip":
                assert program == "icrl"
                done = icrl(*arguments)
                assert done.returncode == 0, (arguments, done.stderr)


def test_there_is_a_command_for_every_case_and_a_cap_in_those_that_pay() -> None:
    run = [words[1:] for page in PAGES for words in commands(page) if words[0] == "icrl"]
    assert {"init", "run", "show", "bench", "report", "rejudge", "topologies"} <= {name for name, *_ in run}
    for name, *options in run:
        if (name in ("run", "bench") or "--judge" in options) and "--preview" not in options:
            assert {"--max-calls", "--total-calls"} & {*options}, "a cap stands in every command that may pay"


def test_what_is_previewed_is_what_is_run() -> None:
    paying = [words for words in commands(SKILL / "SKILL.md") if words[1] in ("run", "bench")]
    for preview, command in zip(paying[::2], paying[1::2], strict=True):
        assert preview[-1] == "--preview"
        assert command[: len(preview) - 1] == preview[:-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_python_runs(page: Path, here: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec", dont_inherit=True), {"__name__": "__main__"})


# --------------------------------------------------------------------------------------------------- as agents load it


@pytest.mark.skipif(
    find_spec("deepagents") is None and "CI" not in os.environ, reason="needs deepagents: the extra arena"
)
def test_an_agent_is_told_of_it_and_opens_it() -> None:
    from deepagents import create_deep_agent
    from deepagents.backends import FilesystemBackend

    class Agent(ScriptedModel):
        def __init__(self, *replies: str | AIMessage) -> None:
            super().__init__(replies)

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    path = "/skills/icrl-graph/SKILL.md"
    opens = {"name": "read_file", "args": {"file_path": path, "limit": 500}, "id": "1", "type": "tool_call"}
    model = Agent(AIMessage("", tool_calls=[opens]), "I know now.")
    backend = FilesystemBackend(root_dir=ROOT, virtual_mode=True)
    create_deep_agent(model, [], skills=["/skills/"], backend=backend).invoke({"messages": [("user", "Compare.")]})
    told, read = str(model.prompts[0][0]["content"]), str(model.prompts[1][-1]["content"])
    front = yaml.safe_load(FRONT)
    assert all(text in told for text in (front["name"], front["description"], path))
    assert all(line in read for line in BODY.splitlines() if line)
