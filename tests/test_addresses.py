"""Which server is asked, and with what: a key goes where a person sends it, a password is saved nowhere."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from icrl_graph.benchmarks.plan import Plan, open_folder, read_plan
from icrl_graph.models import chat_model
from icrl_graph.models.addresses import FolderAddress, server_of, split_credentials, without_credentials
from icrl_graph.testing import OpenAIServer
from tests.command_line import Done, icrl

KEY = "sk-of-the-user"


class Server(OpenAIServer):
    """Notes what requests are authorized by; may demand a password."""

    def __init__(self, password: str | None = None) -> None:
        super().__init__(lambda: "Fine.\nScore: 7")
        self.password, self.authorized_by = password, list[str]()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "")
        self.authorized_by.append(sent)
        if self.password and not sent.startswith("Basic "):
            return web.json_response({"error": {"message": "who are you?"}}, status=401)
        return await super()._complete(request)


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The user's own server, which the environment names, and a key for it."""
    with Server() as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def theirs() -> Iterator[Server]:
    """A server that only a folder names."""
    with Server() as server:
        yield server


SMALL = ("--rounds", "1", "--limit", "1", "--topologies", "icrl", "--concurrency", "1")
RUBRIC = ("--rubric", "Is it a color?")


def _bench(out: str, *more: str, model: str = "openai:policy") -> Done:
    return icrl("bench", "hidden-color", "--model", model, *SMALL, "--out", out, *more)


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


_FIELDS = {"judge": "judge_base_url", "switch": "switch_base_url"}


def _unfinished(here: Path, kind: str, server: Server) -> Done:
    """Make a folder, as somebody else might send it: a run or a comparison without a result, which names a server."""
    (here / "x").mkdir()
    if kind in ("run", "switch"):
        switch = ("--rounds", "3", "--set", "switch_after=1", "--set", "switch_model=openai:b")
        more = switch if kind == "switch" else ("--rounds", "1")
        assert icrl("run", "hidden-color:#3b9", "--model", "openai:a", *more, "--out", "y").returncode == 0
        (here / "x" / "run.json").write_text((here / "y" / "run.json").read_text())
        _edit(here / "x" / "run.json", **{_FIELDS.get(kind, "base_url"): server.base_url})
        return icrl("resume", "x")
    judged = ("--judge", "openai:judge", *RUBRIC) if kind == "judge" else ()
    assert _bench("y", *judged).returncode == 0
    (here / "x" / "bench.json").write_text((here / "y" / "bench.json").read_text())
    _edit(here / "x" / "bench.json", **{_FIELDS.get(kind, "base_url"): server.base_url})
    return icrl("resume", "x")


# ----------------------------------------------------------------------------------------------------------- the judge


def test_a_folder_does_not_say_where_a_judge_is_asked(here: Path, mine: Server, theirs: Server) -> None:
    assert _bench("x").returncode == 0
    _edit(here / "x" / "bench.json", base_url=theirs.base_url, judge_base_url=theirs.base_url)
    before = mine.counts["calls"]
    done = icrl("rejudge", "x", "--judge", "openai:gpt-4.1", *RUBRIC, "--out", "again")
    assert done.returncode == 0, done.stderr
    assert theirs.counts["calls"] == 0
    assert mine.counts["calls"] > before
    assert theirs.base_url not in (here / "again" / "bench.json").read_text()


def test_the_judge_of_a_rejudge_is_asked_where_the_user_says(here: Path, mine: Server, theirs: Server) -> None:
    assert _bench("x").returncode == 0
    before = mine.counts["calls"]
    where = ("--judge-base-url", theirs.base_url)
    done = icrl("rejudge", "x", "--judge", "openai:gpt-4.1", *RUBRIC, *where, "--out", "again")
    assert done.returncode == 0, done.stderr
    assert (mine.counts["calls"], set(theirs.authorized_by)) == (before, {f"Bearer {KEY}"})
    assert icrl("resume", "again").returncode == 0


def test_the_judge_of_a_comparison_has_a_server_of_its_own(here: Path, mine: Server, theirs: Server) -> None:
    judge = ("--judge", "openai:judge", *RUBRIC)
    assert _bench("x", *judge, "--base-url", mine.base_url, "--judge-base-url", theirs.base_url).returncode == 0
    assert (len(mine.prompts), bool(theirs.prompts)) == (1, True)
    assert all("Judge the answer" in str(prompt) for prompt in theirs.prompts)


def test_a_judge_of_another_provider_is_not_asked_at_the_models_server(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = Plan("x", ["icrl"], "openai:a", base_url="http://127.0.0.1:1/v1"), dict[str, Any]()
    monkeypatch.setattr(
        "icrl_graph.benchmarks.plan.load_model", lambda name, base_url, **_: asked.update({name: base_url})
    )
    plan.load_judge("anthropic:judge")
    assert asked == {"anthropic:judge": None}


def test_a_model_to_switch_to_is_asked_by_the_rules_of_a_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = Plan("x", ["icrl"], "openai:a", base_url="http://127.0.0.1:1/v1"), dict[str, Any]()
    loads = "icrl_graph.benchmarks.plan.load_model"
    monkeypatch.setattr(loads, lambda name, base_url, **_: asked.update({name: base_url}))
    for name in ("anthropic:b", "openai:b"):
        plan.load_switch(name)
    assert asked == {"anthropic:b": None, "openai:b": "http://127.0.0.1:1/v1"}


# ------------------------------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize("kind", ["run", "comparison", "judge", "switch"])
def test_no_key_goes_to_a_server_that_only_the_folder_names(
    kind: str, here: Path, mine: Server, theirs: Server
) -> None:
    resumed = _unfinished(here, kind, theirs)
    assert resumed.returncode == 0, resumed.stderr
    assert theirs.authorized_by
    assert not any(KEY in sent for sent in theirs.authorized_by)
    option = f"--{_FIELDS.get(kind, 'base_url').replace('_', '-')}"
    assert f"Asks {theirs.base_url}, which x names, without a key" in resumed.stderr
    assert f"give it: icrl resume x {option} {theirs.base_url}\n" in resumed.stderr


@pytest.mark.parametrize("kind", ["run", "comparison", "judge", "switch"])
def test_the_key_goes_where_the_command_line_says(kind: str, here: Path, mine: Server, theirs: Server) -> None:
    with Server(password="needed") as closed:
        assert _unfinished(here, kind, closed).returncode == 1
    option = f"--{_FIELDS.get(kind, 'base_url').replace('_', '-')}"
    resumed = icrl("resume", "x", option, theirs.base_url)
    assert resumed.returncode == 0, resumed.stderr
    assert set(theirs.authorized_by) == {f"Bearer {KEY}"}
    assert "Asks" not in resumed.stderr


@pytest.mark.parametrize("kind", ["run", "comparison", "judge"])
def test_the_key_goes_to_the_environments_own_server_though_the_folder_names_it(
    kind: str, here: Path, mine: Server
) -> None:
    resumed = _unfinished(here, kind, mine)
    assert resumed.returncode == 0, resumed.stderr
    assert set(mine.authorized_by) == {f"Bearer {KEY}"}
    assert "Asks" not in resumed.stderr


def test_another_provider_is_not_asked_at_an_address_that_only_a_folder_names() -> None:
    with pytest.raises(ValueError, match=r"with your key at http://127.0.0.1:1/v1, which only the saved folder names"):
        chat_model("anthropic:any", base_url=FolderAddress("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    ("address", "own", "may"),
    [
        ("http://a/v1", "http://a/v1/", True),
        ("http://A/v1", "http://me:secret@a/v1", True),
        ("http://a/v1", "http://a/v2", False),
        ("http://a/v1", "https://a/v1", False),
        ("http://a.evil/v1", "http://a/v1", False),
        ("https://api.openai.com/v1", None, True),
        ("https://api.openai.com.evil/v1", None, False),
    ],
)
def test_a_folders_address_is_the_environments_own_only_if_it_is_the_same(
    address: str, own: str | None, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", own)
    assert server_of(FolderAddress(address)) == ((own, True) if may else (address, False))


def test_a_folder_of_an_earlier_version_has_no_server_of_a_judge(tmp_path: Path) -> None:
    plan = open_folder(tmp_path, Plan("hidden-color", ["icrl"], "openai:a", base_url="http://a/v1"))
    stored = json.loads((tmp_path / "bench.json").read_text())
    del stored["judge_base_url"]
    (tmp_path / "bench.json").write_text(json.dumps(stored))
    assert read_plan(tmp_path) == plan


# -------------------------------------------------------------------------------------------------------- the password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:secret@host:1/v1", "http://host:1/v1"),
        ("HTTPS://user:se%40cret@host/v1?a=b", "HTTPS://host/v1?a=b"),
        ("http://user:sec@ret@host/v1", "http://host/v1"),
        ("http://secret@host", "http://host"),
        ("http://:secret@host", "http://host"),
        ("user:secret@host/v1", "host/v1"),
        ("http://host/v1/secret@x", "http://host/v1/secret@x"),
        ("http://host?x=a@b", "http://host?x=a@b"),
        ("postgresql://user:sec?ret@host/runs", "postgresql://host/runs"),
        ("postgres://user:sec#ret@host/runs", "postgres://host/runs"),
        ("postgresql://host/runs?password=sec#ret&port=1", "postgresql://host/runs?port=1"),
        ("postgresql://host/runs?oauth_client_secret=secret", "postgresql://host/runs"),
        (None, None),
    ],
)
def test_an_address_is_shown_without_a_password(address: str | None, shown: str | None) -> None:
    assert without_credentials(address) == shown


def test_a_password_that_can_not_be_told_from_a_path_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="write / . # @ as %2F") as refused:
        split_credentials("http://user:se/cret@host/v1")
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_password_is_sent_and_no_log_holds_it(
    by: str, is_async: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Server(password="pa@zzw0rd") as server:
        address = server.base_url.replace("//", "//me:pa%40zzw0rd@")
        if by == "environment":
            monkeypatch.setenv("OPENAI_BASE_URL", address)
        model = chat_model("openai:any", base_url=address if by == "argument" else None)
        answer = asyncio.run(model.ainvoke("Hello")) if is_async else model.invoke("Hello")
        assert answer.content
        assert server.authorized_by == ["Basic bWU6cGFAenp3MHJk"]
    assert "zzw0rd" not in caplog.text + repr(model)


@pytest.mark.parametrize("kind", ["run", "bench"])
def test_a_password_is_used_and_not_saved_and_a_resume_says_what_to_give(kind: str, here: Path) -> None:
    with Server(password="pa@zzw0rd") as server:
        address = server.base_url.replace("//", "//me:pa%40zzw0rd@")
        judge = ("--judge", "openai:judge", *RUBRIC, "--judge-base-url", address)
        run = ("run", "hidden-color:#3b9", "--model", "openai:a", "--rounds", "1", "--out", "x", "--base-url", address)
        done = icrl(*run) if kind == "run" else _bench("x", "--base-url", address, *judge)
        assert done.returncode == 0, done.stderr
        if kind == "run":
            resumed = icrl("resume", "x", "--more", "1")
        else:
            again = ("rejudge", "x", "--judge", "openai:judge", *RUBRIC, "--judge-base-url", address, "--out", "again")
            assert icrl(*again).returncode == 0
            assert icrl("report", "x").returncode == 0
            (here / "x" / "results.jsonl").unlink()
            resumed = icrl("resume", "x")
        assert resumed.returncode == 1
        assert (
            f"without a key or user:password@. To send them, give it: icrl resume x --base-url {server.base_url}\n"
            in (resumed.stderr)
        )
        more = ("--judge-base-url", address) if kind == "bench" else ("--more", "1")
        mended = icrl("resume", "x", "--base-url", address, *more)
        assert mended.returncode == 0, mended.stderr
    for path in here.rglob("*"):
        assert path.is_dir() or (b"zzw0rd" not in path.read_bytes() and b"bWU6cGFAenp3MHJk" not in path.read_bytes()), (
            path
        )
    for each in (done, resumed, mended):
        assert "zzw0rd" not in each.stdout + each.stderr
