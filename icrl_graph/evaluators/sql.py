"""SQL: a query is right if it gives what the reference query gives, on databases in memory that it can only read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from itertools import count
from typing import Any

from icrl_graph.evaluators.evaluator import BoundEvaluator
from icrl_graph.evaluators.verifier import Refused, Verifier, bound, read_block, texts
from icrl_graph.state.reward import Reward

LONGEST = 20_000
"""Characters of a query."""
STEPS = 50_000_000
"""Instructions of SQLite's virtual machine that a query may take. They are counted, so that the same query is always
judged alike."""
ROWS = 100_000
"""That a query may give."""
BYTES = 1_000_000
"""Of one text or blob."""
DIGITS = 10
"""Significant ones in which real numbers must agree: sums differ in the last ones by the order of their terms."""

Rows = list[tuple[Any, ...]]


def sql() -> BoundEvaluator:
    """An evaluator of SQL queries, in SQLite's dialect.

    The task data has a `database`, the SQL script that makes it, and as `target` the reference query. The result of an
    answer is compared with that of the reference, row by row where the reference has an ORDER BY of its own (not only
    in a subquery), else in any order; duplicates count, the names of columns do not, and real numbers agree to 10
    digits. The reward is the share of rows that agree, of all that either result has: 1 if and only if the results are
    the same. The metric is then 1, else 0.

    `database` may be a list of scripts with the same tables: the reward is the mean over them. A query that has its
    result written into it (`SELECT 42`) is right on one database, and seldom on two (Zhong et al., arXiv 2010.02840).

    The query stands in `<answer>...</answer>`, in a block of code, or is the whole answer. It may read the tables of
    the database, and nothing else. One that fails, that is more than one statement, or that passes a limit earns 0; its
    error is its feedback. A reference that fails, that gives another result each time, or whose result depends on an
    order that it leaves open, such as a LIMIT among equals, is a fault of the task.
    """
    return bound("sql", Verifier(judge, read_block, LONGEST))


def judge(query: Any, task_data: Mapping[str, Any]) -> Reward:
    """What the worker does; see `verifier.Judge`."""
    scripts = texts(task_data, "database", "an SQL script, or a list of them")
    (target,) = texts({"target": [task_data.get("target")]}, "target", "the reference query")
    end, shares = _end_of_order(target), []
    for script in scripts:
        expected = _expected(script, target)
        if query is None:
            _check(script, target, expected, end)
            continue
        if not isinstance(query, str):
            raise Refused("The answer is no text.")
        shares.append(agreement(_result(script, query), expected, end is not None))
    if query is None:
        return Reward(value=None)
    value = sum(shares) / len(shares)
    return Reward(value=value, metric=float(value == 1))


def agreement(rows: Rows, expected: Rows, ordered: bool) -> float:
    """The share of rows that agree, from 0 to 1; 1 if and only if all do, also where there is none."""
    if ordered:
        same, most = sum(map(tuple.__eq__, rows, expected)), max(len(rows), len(expected))
    else:
        found, wanted = Counter(rows), Counter(expected)
        same, most = (found & wanted).total(), (found | wanted).total()
    return same / most if most else 1.0


_LEXEME = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^]]*\]|[()]|\border\s+by\b|\blimit\b""",
    re.S | re.I,
)


def _end_of_order(query: str) -> int | None:
    """Where the terms of a query's own ORDER BY end; None if it has none but in subqueries, windows and texts."""
    depth, end = 0, None
    for lexeme in _LEXEME.finditer(query):
        depth += (lexeme[0] == "(") - (lexeme[0] == ")")
        if depth == 0 and lexeme[0][0] in "oO":
            end = len(query.rstrip("; \n"))
        elif depth == 0 and lexeme[0][0] in "lL" and end is not None:
            return lexeme.start()
    return end


def _expected(script: str, target: str) -> Rows:
    try:
        return _result(script, target)
    except Refused as wrong:
        raise ValueError(f"the reference query task_data['target'] fails: {wrong}") from None


def _check(script: str, target: str, expected: Rows, end: int | None) -> None:
    """Raise ValueError if a reference gives another result where rows come in another order that it leaves open."""
    others = [_result(script, target, backwards=True)]
    if end is not None:
        with suppress(Refused):  # such as a UNION, whose ORDER BY takes columns alone
            others += [_result(script, f"{target[:end]}\n, {_LATER}() {way} {target[end:]}") for way in ("ASC", "DESC")]
    if any(agreement(other, expected, ordered=end is not None) < 1 for other in others):
        raise ValueError(
            "the reference query task_data['target'] has no one result: rows that it leaves in any order may give "
            "another one. Let its ORDER BY leave no ties, and use nothing random"
        )


def _result(script: str, query: str, backwards: bool = False) -> Rows:
    """The rows that a query gives.

    Args:
        script: makes the database.
        query: reads it.
        backwards: whether SQLite gives rows in the other order where there is no ORDER BY.

    Raises:
        Refused: the query fails, or passes a limit.
        ValueError: the script fails.
    """
    import sqlite3

    with closing(sqlite3.connect(":memory:")) as database:
        database.set_authorizer(_making)
        try:
            database.executescript(script)
            database.commit()
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ValueError(f"the script task_data['database'] fails: {error}") from None
        later = count()
        database.create_function(_LATER, 0, lambda: next(later))
        if backwards:
            database.execute("PRAGMA reverse_unordered_selects = ON")
        database.execute("PRAGMA query_only = ON")
        database.execute("PRAGMA trusted_schema = OFF")
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, BYTES)
        database.set_progress_handler(lambda: 1, STEPS)
        database.set_authorizer(_reading)
        try:
            found = database.execute(query)
            if found.description is None:
                raise Refused("The answer is no query that gives rows.")
            rows = found.fetchmany(ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            told = f"The query takes more than {STEPS} steps." if str(error) == "interrupted" else f"SQLite: {error}"
            raise Refused(told) from None
        if len(rows) > ROWS:
            raise Refused(f"The query gives more than {ROWS} rows.")
        return [tuple(map(_comparable, row)) for row in rows]


_LATER = "icrl_later"
"""A function that is larger for each row than for the one before: it orders equal rows as they come, or backwards."""


def _comparable(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _making(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    """Whether a script may do something: it touches no files, and runs no native code."""
    import sqlite3

    unsafe = str(function).lower() in _UNSAFE_FUNCTIONS if action == sqlite3.SQLITE_FUNCTION else False
    return sqlite3.SQLITE_DENY if unsafe or action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


_UNSAFE_FUNCTIONS = ("load_extension", "fts3_tokenizer")
"""The one runs native code from a file, the other from an address in memory."""


def _reading(action: int, *about: str | None) -> int:
    """Whether a query may do something: read tables, and call functions."""
    import sqlite3

    reads = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION)
    return _making(action, *about) if action in reads else sqlite3.SQLITE_DENY
