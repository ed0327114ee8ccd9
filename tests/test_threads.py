"""A thread's data as a whole: cut down, and forgotten, in real databases."""

import asyncio
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Overwrite
from typing_extensions import TypedDict

from icrl_graph.execution import threads
from icrl_graph.execution.journal import MemoryJournal
from icrl_graph.execution.sql_journals import beside
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion
from tests.databases import Database, opened
from tests.helpers import GAME, climber, nearness, thread, without_cost

KINDS = ("sqlite", "async sqlite", "postgres", "async postgres pool")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Iterator[Database]:
    with opened(request.param, tmp_path / "db.sqlite", postgres) as found:
        yield found


def _rows(database: Database) -> dict[str, int]:
    """How many rows each table holds."""
    journal: Any = beside(database.saver)
    journal.get("", "")  # makes its table
    tables = ["checkpoints", journal.writes, "icrl_replies", *([journal.blobs] if journal.blobs else [])]
    return {table: journal.run((f"SELECT count(*) FROM {table}",))[0][0] for table in tables}


def _graph(database: Database, rounds: int = 6, **options: Any) -> Any:
    return create_icrl(climber, nearness, rounds=rounds, **options).compile(checkpointer=database.saver)


def test_a_compact_thread_holds_the_same_state_in_one_checkpoint(database: Database) -> None:
    graph = _graph(database, 30)
    database.invoke(graph, GAME, thread())
    before = graph.get_state(thread())
    threads.compact(graph, "1")
    after = graph.get_state(thread())
    assert (after.values, after.next, after.config) == (before.values, before.next, before.config)
    rows = _rows(database)
    assert (rows["checkpoints"], rows["icrl_replies"]) == (1, 0)
    assert [snapshot.config for snapshot in graph.get_state_history(thread())] == [after.config]


def test_a_compact_thread_of_postgres_keeps_no_value_that_no_checkpoint_uses(tmp_path: Path, postgres: str) -> None:
    with opened("postgres", tmp_path, postgres) as database:
        graph = _graph(database, 30)
        database.invoke(graph, GAME, thread())
        used = graph.checkpointer.get_tuple(thread()).checkpoint["channel_versions"]
        threads.compact(graph, "1")
        assert _rows(database)["checkpoint_blobs"] <= len(used)


def test_other_threads_are_left_as_they_are(database: Database) -> None:
    graph = _graph(database)
    for name in ("1", "2"):
        database.invoke(graph, GAME, thread(name))
    other = [s.config for s in graph.get_state_history(thread("2"))]
    threads.compact(graph, "1")
    threads.delete(graph, "1")
    assert [s.config for s in graph.get_state_history(thread("2"))] == other
    assert len(graph.get_state(thread("2")).values["episodes"]) == 6
    assert _rows(database)["icrl_replies"] == 6


@pytest.mark.parametrize("stop_before", ["build_context", "generate", "evaluate", "reflect", "select"])
def test_a_thread_that_is_compacted_half_way_goes_on_as_if_nothing_had_happened(
    stop_before: str, database: Database
) -> None:
    model = ScriptedModel(climber)
    graph = create_reflexion(model, nearness, rounds=3).compile(checkpointer=database.saver)
    for step in range(5):
        for name in ("whole", "compact"):
            database.invoke(graph, None if step else GAME, thread(name), interrupt_before=[stop_before])
        whole, at = graph.get_state(thread("whole")), graph.get_state(thread("compact"))
        assert (at.next, without_cost(at.values["episodes"])) == (whole.next, without_cost(whole.values["episodes"]))
        threads.compact(graph, "compact")
        after = graph.get_state(thread("compact"))
        assert (after.next, after.values) == (at.next, at.values)
        if not at.next:
            break
    ends = [database.invoke(graph, None, thread(name)) for name in ("whole", "compact")]
    assert all(ends[0][name] == ends[1][name] for name in ("answer", "reward", "rounds_done"))
    assert len(model.prompts) == 2 * ends[0]["usage"]["calls"]


def test_a_fan_out_that_is_compacted_half_way_pays_for_nothing_twice(database: Database) -> None:
    model = ScriptedModel(lambda: "7")
    graph = create_best_of_n(model, lambda: 0.5, n=4).compile(checkpointer=database.saver)
    database.invoke(graph, {"task": "t"}, thread(), interrupt_before=["evaluate"])
    threads.compact(graph, "1")
    assert database.invoke(graph, None, thread())["usage"]["calls"] == 4
    assert len(model.prompts) == 4


def test_a_compact_thread_can_be_given_more_rounds_forked_and_compacted_again(database: Database) -> None:
    graph = _graph(database, 3)
    database.invoke(graph, GAME, thread())
    threads.compact(graph, "1")
    start = graph.get_state(thread())
    graph.update_state(start.config, {"stopped": None}, as_node="evaluate")
    longer = create_icrl(climber, nearness, rounds=6).compile(checkpointer=database.saver)
    settings = {**start.values["settings"], "rounds": 6}
    longer.update_state(thread(), {"settings": settings, "stopped": None}, as_node="evaluate")
    database.invoke(longer, None, thread())
    assert len(longer.get_state(thread()).values["episodes"]) == 6
    assert len(longer.get_state(start.config).values["episodes"]) == 3
    threads.compact(longer, "1")
    assert len(longer.get_state(thread()).values["episodes"]) == 6
    assert _rows(database)["checkpoints"] == 1


def test_a_thread_is_as_whole_after_a_kill_between_the_two_steps_of_compacting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = _graph(database)
    database.invoke(graph, GAME, thread())
    before = graph.get_state(thread())

    def killed(*statements: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(beside(graph.checkpointer), "run", killed)
        with pytest.raises(KeyboardInterrupt):
            threads.compact(graph, "1")
    assert graph.get_state(thread()).values == before.values
    assert len(list(graph.get_state_history(thread()))) > 6
    threads.compact(graph, "1")
    assert graph.get_state(thread()).values == before.values


class _Outer(TypedDict, total=False):
    task: str
    answer: Any


def _embedded(database: Database, model: Any) -> Any:
    parent = StateGraph(_Outer)
    parent.add_node("icrl", create_icrl(model, lambda: 0.5, rounds=2).compile())
    parent.add_edge(START, "icrl")
    parent.add_edge("icrl", END)
    return parent.compile(checkpointer=database.saver)


def test_a_parents_thread_is_compacted_and_deleted_with_what_is_embedded_in_it(database: Database) -> None:
    parent = _embedded(database, lambda: "7")
    database.invoke(parent, {"task": "t"}, thread())
    threads.compact(parent, "1")
    assert parent.get_state(thread()).values["answer"] == "7"
    assert (_rows(database)["checkpoints"], _rows(database)["icrl_replies"]) == (1, 0)
    threads.delete(parent, "1")
    assert set(_rows(database).values()) == {0}


def test_a_parent_that_is_compacted_while_an_embedded_graph_waits_goes_on_within_it(database: Database) -> None:
    from langgraph.types import Command, interrupt

    model = ScriptedModel(lambda: "7")
    parent = StateGraph(_Outer)
    parent.add_node("icrl", create_icrl(model, lambda response: interrupt("reward?"), rounds=2).compile())
    parent.add_edge(START, "icrl")
    parent.add_edge("icrl", END)
    compiled = parent.compile(checkpointer=database.saver)
    database.invoke(compiled, {"task": "t"}, thread())
    threads.compact(compiled, "1")
    database.invoke(compiled, Command(resume=0.5), thread())
    threads.compact(compiled, "1")
    assert database.invoke(compiled, Command(resume=0.9), thread())["answer"] == "7"
    assert len(model.prompts) == 2


def test_a_deleted_thread_leaves_no_row_and_can_be_begun_anew(database: Database) -> None:
    graph = _graph(database)
    database.invoke(graph, GAME, thread())
    threads.delete(graph, "1")
    assert set(_rows(database).values()) == {0}
    threads.delete(graph, "1")  # nothing there is no error
    assert database.invoke(graph, GAME, thread())["rounds_done"] == 6


def test_deleting_forgets_the_replies_in_a_store_and_in_a_journal_of_ones_own() -> None:
    store, own = InMemoryStore(), MemoryJournal()
    for journal in (None, own):
        graph: Any = create_icrl(climber, nearness, rounds=3, journal=journal)
        compiled = graph.compile(checkpointer=InMemorySaver(), store=store)
        compiled.invoke(GAME, thread())
        assert store.search(("icrl_replies",)) or own._replies
        threads.delete(compiled, "1")
        assert not store.search(("icrl_replies",))
        assert not own._replies
        assert not compiled.get_state(thread()).values


def test_async_code_compacts_and_deletes_in_its_own_loop(tmp_path: Path) -> None:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async def use() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "db.sqlite")) as saver:
            graph: Any = create_icrl(climber, nearness, rounds=3).compile(checkpointer=saver)
            await graph.ainvoke(GAME, thread())
            await threads.acompact(graph, "1")
            assert len((await graph.aget_state(thread())).values["episodes"]) == 3
            await threads.adelete(graph, "1")
            assert not (await graph.aget_state(thread())).values

    asyncio.run(use())


def test_a_compact_thread_is_a_small_part_of_what_it_was(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        graph = create_icrl(lambda: "r" * 2000, lambda: 0.5, rounds=60).compile(checkpointer=database.saver)
        database.invoke(graph, {"task": "t"}, thread())

        def used() -> int:
            pages, free = (
                database.saver.conn.execute(f"PRAGMA {n}").fetchone()[0] for n in ("page_count", "freelist_count")
            )
            return int(pages - free)

        before = used()
        threads.compact(graph, "1")
        assert used() < before / 3


def test_what_cannot_be_compacted_is_told() -> None:
    graph: Any = create_icrl(climber, nearness, rounds=1)
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke(GAME, thread())
    with pytest.raises(ValueError, match="InMemorySaver"):
        threads.compact(compiled, "1")
    with pytest.raises(ValueError, match="no checkpointer"):
        threads.compact(graph.compile(), "1")
    with pytest.raises(ValueError, match="no checkpointer"):
        threads.delete(graph.compile(), "1")


def test_a_thread_that_is_not_there_cannot_be_compacted(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path / "db.sqlite", "") as database, pytest.raises(ValueError, match="no thread 'x'"):
        threads.compact(_graph(database), "x")


def test_a_fork_keeps_both_branches_on_every_database(database: Database) -> None:
    graph = _graph(database, 4)
    database.invoke(graph, GAME, thread())
    first = graph.get_state(thread())
    history = graph.get_state_history(thread())
    old = next(s for s in history if s.next == ("build_context",) and len(s.values["episodes"]) == 2)
    episodes = [{**e, "reward": {"value": 0.0}, "shown": {"value": 0.0}} for e in old.values["episodes"]]
    forked = graph.update_state(old.config, {"episodes": Overwrite(episodes)}, as_node="evaluate")
    database.invoke(graph, None, forked)
    second = graph.get_state(thread())
    assert [e["reward"]["value"] for e in second.values["episodes"][:2]] == [0.0, 0.0]
    assert graph.get_state(first.config).values == first.values
    assert len(second.values["episodes"]) == 4


class _Chat(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def _with_a_memory(saver: Any) -> Any:
    """A parent with an agent that remembers what it said in earlier turns, beside an ICRL graph."""
    chat = StateGraph(_Chat)
    chat.add_node("say", lambda state: {"said": [f"turn {len(state.get('said', []))}"]})
    chat.add_edge(START, "say")
    chat.add_edge("say", END)
    parent = StateGraph(_Outer)
    remembering = chat.compile(checkpointer=True)
    parent.add_node("chat", lambda state: {"answer": remembering.invoke({"said": []})["said"]})
    parent.add_node("icrl", create_icrl(lambda: "7", lambda: 0.5, rounds=2).compile())
    parent.add_edge(START, "icrl")
    parent.add_edge("icrl", "chat")
    parent.add_edge("chat", END)
    return parent.compile(checkpointer=saver)


def test_a_nested_graph_with_a_memory_of_its_own_keeps_it(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        parent = _with_a_memory(database.saver)
        for turn in (1, 2):
            assert len(database.invoke(parent, {"task": "t"}, thread())["answer"]) == turn
            threads.compact(parent, "1")
        assert len(database.invoke(parent, {"task": "t"}, thread())["answer"]) == 3


def test_a_thread_is_not_compacted_by_another_graph_than_its_own(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        parent = _embedded(database, lambda: "7")
        database.invoke(parent, {"task": "t"}, thread())
        with pytest.raises(ValueError, match="of another graph"):
            threads.compact(_graph(database), "1")


@pytest.mark.parametrize("name", [7, UUID(int=7)])
def test_a_thread_may_be_called_by_a_number_or_a_uuid(name: Any, database: Database) -> None:
    graph = _graph(database, 2)
    database.invoke(graph, GAME, thread(str(name)))
    threads.compact(graph, name)
    threads.delete(graph, name)
    assert set(_rows(database).values()) == {0}


def test_deleting_a_parents_thread_forgets_what_an_embedded_graphs_own_journal_holds() -> None:
    own = MemoryJournal()
    parent = StateGraph(_Outer)
    parent.add_node("icrl", create_icrl(lambda: "7", lambda: 0.5, rounds=2, journal=own).compile())
    parent.add_edge(START, "icrl")
    compiled = parent.compile(checkpointer=InMemorySaver())
    compiled.invoke({"task": "t"}, thread())
    assert own._replies
    threads.delete(compiled, "1")
    assert not own._replies
