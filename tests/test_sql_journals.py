"""Where the replies of a run are kept, with every checkpointer and store, on real databases."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import PostgresStore
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.sqlite import SqliteStore
from langgraph.store.sqlite.aio import AsyncSqliteStore
from typing_extensions import TypedDict

from icrl_graph.errors import JournalError
from icrl_graph.execution.calls import Call, execute
from icrl_graph.execution.journal import Journal, MemoryJournal, Reply, StoreJournal
from icrl_graph.execution.sql_journals import SqliteJournal, beside, journal_of, journal_of_run
from icrl_graph.testing import ScriptedModel
from icrl_graph.topologies.methods import create_best_of_n, create_icrl, create_reflexion
from tests.databases import ALL, Database, opened
from tests.helpers import thread

REPLY = Reply({"response": "a \x00 \ud800 \u2028 'quoted' %s ? €"}, {"calls": 1, "input": 3, "usd": 0.5})


@pytest.fixture(params=ALL)
def database(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Iterator[Database]:
    with opened(request.param, tmp_path / "db.sqlite", postgres) as found:
        yield found


def _beside(database: Database) -> Journal:
    journal = beside(database.saver)
    assert journal is not None
    return journal


def test_a_reply_comes_back_as_it_was_put_whatever_it_holds(database: Database) -> None:
    journal = _beside(database)
    assert journal.get("id", "thread") is None
    journal.put("id", "thread", REPLY)
    assert journal.get("id", "thread") == REPLY
    journal.put("id", "thread", Reply("other", {}))
    assert journal.get("id", "thread") == Reply("other", {})


def test_deleting_a_thread_forgets_its_replies_and_no_others(database: Database) -> None:
    journal = _beside(database)
    for id, name in (("1", "a"), ("2", "a"), ("3", "b")):
        journal.put(id, name, REPLY)
    journal.delete("a")
    assert [journal.get(id, name) for id, name in (("1", "a"), ("2", "a"), ("3", "b"))] == [None, None, REPLY]


def test_a_statement_that_fails_leaves_nothing_behind_and_the_next_one_works(database: Database) -> None:
    journal: Any = beside(database.saver)
    journal.put("1", "a", REPLY)
    with pytest.raises(Exception, match="nothing_here"):
        journal.run(("DELETE FROM icrl_replies WHERE id = ?", "1"), ("SELECT * FROM nothing_here",))
    assert journal.get("1", "a") == REPLY


def test_a_checkpointer_has_one_journal_and_is_not_kept_alive_by_it(tmp_path: Path) -> None:
    import weakref

    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        assert beside(database.saver) is beside(database.saver)
        seen = weakref.ref(database.saver)
        del database.saver
    assert seen() is None


def test_tables_are_made_by_two_at_once(tmp_path: Path, postgres: str) -> None:
    with opened("async postgres pool", tmp_path, postgres) as database:
        kind: Any = type(beside(database.saver))
        journals: list[Any] = [kind(database.saver) for _ in range(8)]

        async def all_at_once() -> None:
            await asyncio.gather(*(each.aput(str(i), "t", REPLY) for i, each in enumerate(journals)))

        database.wait(all_at_once())
        assert all(journals[0].get(str(i), "t") == REPLY for i in range(8))


def _models() -> ScriptedModel:
    return ScriptedModel(lambda messages: str(len(messages)))


@pytest.mark.parametrize("create", [create_icrl, create_reflexion, create_best_of_n])
def test_a_graph_saves_its_replies_beside_its_checkpoints_by_default(create: Any, database: Database) -> None:
    model = _models()
    size: Any = {"n": 3} if create is create_best_of_n else {"rounds": 3}
    graph = create(model, lambda: 0.5, **size).compile(checkpointer=database.saver)
    database.invoke(graph, {"task": "t"}, thread())
    rows = _beside(database).run(("SELECT thread FROM icrl_replies",))  # type: ignore[attr-defined]
    assert rows == [("1",)] * len(model.prompts)


class _Outer(TypedDict, total=False):
    task: str
    answer: Any


def test_an_embedded_graph_saves_its_replies_with_the_parents_thread(database: Database) -> None:
    parent = StateGraph(_Outer)
    parent.add_node("icrl", create_icrl(_models(), lambda: 0.5, rounds=2).compile())
    parent.add_edge(START, "icrl")
    parent.add_edge("icrl", END)
    database.invoke(parent.compile(checkpointer=database.saver), {"task": "t"}, thread("outer"))
    assert _beside(database).run(("SELECT thread FROM icrl_replies",)) == [("outer",)] * 2  # type: ignore[attr-defined]


def test_judgements_are_saved_beside_the_checkpoints_too(database: Database) -> None:
    from icrl_graph.evaluators.judge import llm_judge

    judge = ScriptedModel(lambda: "Score: 7")
    graph = create_icrl(_models(), llm_judge(judge, "Is it good?"), rounds=2).compile(checkpointer=database.saver)
    database.invoke(graph, {"task": "t"}, thread())
    asked = len(judge.prompts) + 2
    assert len(_beside(database).run(("SELECT id FROM icrl_replies",))) == asked  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------- the store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Iterator[Any]:
    if request.param == "memory":
        yield InMemoryStore()
        return
    make: Any = SqliteStore if request.param == "sqlite" else PostgresStore
    with make.from_conn_string(str(tmp_path / "store.sqlite") if make is SqliteStore else postgres) as opened_store:
        opened_store.setup()
        yield opened_store


def test_a_store_gives_back_what_was_put_into_it_sync_and_async(store: Any) -> None:
    journal = StoreJournal(store)
    assert journal.get("id", "a.b/c") is None
    journal.put("id", "a.b/c", REPLY)
    assert journal.get("id", "a.b/c") == REPLY
    assert asyncio.run(journal.aget("id", "a.b/c")) == REPLY
    asyncio.run(journal.aput("other", "a.b/c", REPLY))
    journal.put("id", "b", REPLY)
    journal.delete("a.b/c")
    assert [journal.get("id", "a.b/c"), journal.get("other", "a.b/c"), journal.get("id", "b")] == [None, None, REPLY]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_asynchronous_store_carries_the_replies(kind: str, tmp_path: Path, postgres: str) -> None:
    async def use() -> Any:
        make: Any = AsyncSqliteStore if kind == "sqlite" else AsyncPostgresStore
        async with make.from_conn_string(str(tmp_path / "s.sqlite") if kind == "sqlite" else postgres) as opened_store:
            await opened_store.setup()
            graph = create_icrl(_models(), lambda: 0.5, rounds=3).compile(
                checkpointer=InMemorySaver(), store=opened_store
            )
            await graph.ainvoke({"task": "t"}, thread())
            return await opened_store.asearch(("icrl_replies",))

    assert len(asyncio.run(use())) == 3


def test_a_graph_compiled_with_a_store_saves_its_replies_there(store: Any) -> None:
    graph = create_icrl(_models(), lambda: 0.5, rounds=3).compile(checkpointer=InMemorySaver(), store=store)
    graph.invoke({"task": "t"}, thread())
    assert len(store.search(("icrl_replies",))) == 3


def test_a_store_in_memory_is_ignored_where_the_checkpoints_outlive_it(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        assert journal_of(database.saver, InMemoryStore()) is beside(database.saver)


def test_without_either_the_replies_are_in_memory() -> None:
    assert journal_of(InMemorySaver(), None) is None
    assert journal_of(None, None) is None


def test_a_journal_that_is_passed_is_used(tmp_path: Path) -> None:
    own = MemoryJournal()
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        graph = create_icrl(_models(), lambda: 0.5, rounds=3, journal=own).compile(checkpointer=database.saver)
        database.invoke(graph, {"task": "t"}, thread())
    assert len(own._replies) == 3


def test_a_file_that_is_locked_ends_the_run_before_anything_is_paid(tmp_path: Path) -> None:
    model = _models()
    with opened("sqlite", tmp_path / "db.sqlite", "") as database:
        graph: Any = create_icrl(model, lambda: 0.5, rounds=3).compile(checkpointer=InMemorySaver())
        database.saver.setup()
        other = SqliteJournal(tmp_path / "db.sqlite")
        other.run(("SELECT 1",))
        other._connection.execute("BEGIN EXCLUSIVE")
        database.saver.conn.execute("PRAGMA busy_timeout = 10")
        graph = create_icrl(model, lambda: 0.5, rounds=3, journal=beside(database.saver)).compile()
        with pytest.raises(JournalError, match="locked"):
            graph.invoke({"task": "t"})
        other._connection.rollback()
        other.close()
        assert model.prompts == []
        assert graph.invoke({"task": "t"})["stopped"] == "rounds"


def test_a_connection_that_never_commits_is_refused_before_anything_is_paid(tmp_path: Path, postgres: str) -> None:
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row

    model = _models()
    with opened("postgres", tmp_path, postgres), psycopg.connect(postgres, row_factory=dict_row) as connection:
        graph: Any = create_icrl(model, lambda: 0.5, rounds=3).compile(checkpointer=PostgresSaver(connection))
        with pytest.raises(JournalError, match="autocommit=True"):
            graph.invoke({"task": "t"}, thread())
    assert model.prompts == []


def test_a_reply_is_saved_although_the_run_is_cancelled(tmp_path: Path) -> None:
    with opened("async sqlite", tmp_path / "db.sqlite", "") as database:

        async def main() -> None:
            await database.saver.setup()
            answered = asyncio.Event()

            def reply() -> str:
                loop.call_soon_threadsafe(answered.set)
                return "7"

            loop = asyncio.get_running_loop()
            graph: Any = create_icrl(reply, lambda: 0.5, rounds=1, journal=_beside(database)).compile()
            running = asyncio.ensure_future(graph.ainvoke({"task": "t"}))
            while not answered.is_set():
                await asyncio.sleep(0)
            async with database.saver.lock:  # somebody else is writing
                while not database.saver.lock._waiters:  # until the run would write, too
                    await asyncio.sleep(0)
                running.cancel()
                for _ in range(100):
                    await asyncio.sleep(0)
            await asyncio.wait([running])
            assert running.cancelled()

        database.wait(main())
        assert len(_beside(database).run(("SELECT id FROM icrl_replies",))) == 1  # type: ignore[attr-defined]


def test_within_a_chain_there_is_no_journal_and_a_paid_call_is_made() -> None:
    asks: Any = RunnableLambda(lambda _: journal_of_run())
    calls: Any = RunnableLambda(lambda _: execute(Call(RunnableLambda(str), 1, lambda raw: raw)))
    assert (asks.invoke(0), calls.invoke(0)) == ((None, ""), "1")
