"""The shipped verifiers: what is right, what an answer may try, and task data that nothing can be judged by."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icrl_graph import MissingExtra, compare, improve
from icrl_graph.evaluators import code_tests, evaluator, json_schema, regex_golf, sql, verifier
from icrl_graph.evaluators.evaluator import SHIPPED, BoundEvaluator, bind_evaluator
from icrl_graph.evaluators.verifier import Refused, Verifier, _InWorker, bound, read_block
from icrl_graph.testing import ScriptedModel

needs_regex = pytest.mark.skipif(find_spec("regex") is None, reason="needs the extra verifiers")
needs_jsonschema = pytest.mark.skipif(find_spec("jsonschema") is None, reason="needs the extra verifiers")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes these things away")

GOLF = {"match": ["a" * 200 + "b", "cab"], "avoid": ["xyz"]}
SHOP = {
    "database": "CREATE TABLE sales (id INTEGER PRIMARY KEY, shop TEXT, price REAL);"
    "INSERT INTO sales VALUES (1, 'x', 0.1), (2, 'y', 0.2), (3, 'x', 0.3), (4, 'x', 0.3);",
    "target": "SELECT shop, sum(price) FROM sales GROUP BY shop",
}
PERSON = {
    "schema": {
        "type": "object",
        "properties": {"age": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["age"],
    }
}
golf: Any = regex_golf.judge
answer_query: Any = sql.judge
SQUARES = {"tests": ["assert f(2) == 4\nassert f(3) == 9", "def test_zero():\n    assert f(0) == 0"]}


def _judged(judge: Any, answer: Any, task_data: Any) -> float:
    """The value without a worker; 0 where the answer is refused."""
    try:
        value: float = judge(answer, task_data)["value"]
    except Refused:
        return 0.0
    return value


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("x", "x"),
        ("So:\n```python\nx = 1\n```\nBetter:\n```\nx = 2\n```\nDone.", "x = 2"),
        ("```\nno\n```\n<answer>\n```sql\nSELECT 1\n```\n</answer>", "SELECT 1"),
        ("<answer>a</answer> or <answer> b </answer>", "b"),
        ("```\nx = 1\n```\n```\ncut", "x = 1"),
        ("```\nx = 1", "```\nx = 1"),
        ("~~~ `x` ~~~", "~~~ `x` ~~~"),
    ],
)
def test_an_answer_is_the_last_block_that_is_marked(text: str, block: str) -> None:
    assert read_block(text) == block


# ------------------------------------------------------------------------------------------------------- regex golf


@needs_regex
@pytest.mark.parametrize(
    ("pattern", "right"), [("ab", 3), ("b$", 3), (".", 2), ("^x", 0), ("(?i)CAB", 2), ("[^a-x]", 0)]
)
def test_a_pattern_earns_the_share_of_texts_that_it_treats_right(pattern: str, right: int) -> None:
    reward = golf(pattern, GOLF)
    assert reward["value"] == pytest.approx((right + 1 - len(pattern) / 1000) / 3)
    assert reward["metric"] == float(right == 3)


@needs_regex
@given(st.text("ab|.", min_size=1, max_size=6), st.text("ab|.", min_size=1, max_size=6))
def test_texts_count_first_and_the_length_only_among_equals(one: str, other: str) -> None:
    data = {"match": ["a", "ab"], "avoid": ["b", "bb"]}
    judged = [golf(pattern, data) for pattern in (one, other)]
    right = [round(reward["value"] * 4 - 1 + len(p) / 1000) for reward, p in zip(judged, (one, other), strict=True)]
    earlier = (right[0], -len(one)) > (right[1], -len(other))
    assert (judged[0]["value"] > judged[1]["value"]) == earlier
    assert all((reward["value"] >= 1) == (reward["metric"] == 1) for reward in judged)


@needs_regex
@pytest.mark.parametrize("pattern", ["(", "*", r"\L<names>", "a{99999999999}", "(" * 499 + ")" * 499, "(?P<x>a)(?P=y)"])
def test_what_is_no_pattern_earns_0_and_says_why(pattern: str) -> None:
    with pytest.raises(Refused, match="no regular expression"):
        golf(pattern, GOLF)


@needs_regex
@pytest.mark.parametrize("answer", ["`[ab]$`", "I suggest `[a-c]$`, better `b$`.", "<answer>b$</answer>", "b$"])
def test_a_pattern_may_stand_in_backticks(answer: str) -> None:
    assert regex_golf.read_pattern(answer) in ("b$", "[ab]$")


@needs_regex
def test_no_pattern_hangs_or_eats_the_machine() -> None:
    small = bound("golf", Verifier(regex_golf.judge, regex_golf.read_pattern, 1000, cpu=0.5, memory=128))
    patterns = [
        "(a|aa)+$",  # takes for ever to search
        "(?:" + "()" * 160 + "){500}",  # to compile
        "(?:(?:(?:a{99}){99}){99}){99}",  # takes all memory to compile
        "x" * 10**6,
    ]
    assert [small(answer=pattern, task_data=GOLF)["value"] for pattern in [*patterns, "("]] == [0] * 5
    assert small(answer="b$", task_data=GOLF)["metric"] == 1


# --------------------------------------------------------------------------------------------------------------- SQL


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("SELECT shop, sum(price) AS total FROM sales GROUP BY 1 ORDER BY 2 -- any order", 1),
        ("SELECT 'y', .2 UNION ALL SELECT 'x', .7", 1),
        ("SELECT shop, sum(price) FROM (SELECT * FROM sales ORDER BY price DESC) GROUP BY shop;", 1),
        ("SELECT shop, sum(price) FROM sales WHERE shop = 'x'", 1 / 2),
        ("SELECT 'x', .7 UNION ALL SELECT 'x', .7 UNION ALL SELECT 'y', .2", 2 / 3),
        ("SELECT sum(price), shop FROM sales GROUP BY shop", 0),
        ("SELECT shop, .71 FROM sales GROUP BY shop", 0),
    ],
)
def test_a_query_is_compared_by_its_rows_in_any_order_and_with_duplicates(query: str, value: float) -> None:
    reward = answer_query(query, SHOP)
    assert reward["value"] == pytest.approx(value)
    assert reward["metric"] == float(value == 1)


@pytest.mark.parametrize(
    ("target", "ordered"),
    [
        ("SELECT id FROM sales ORDER BY id DESC", True),
        ("WITH s AS (SELECT id FROM sales) SELECT id FROM s order\n by id desc LIMIT 4", True),
        ("SELECT id FROM (SELECT id FROM sales ORDER BY id)", False),
        ("SELECT id FROM sales -- ORDER BY id", False),
        ("SELECT id FROM sales WHERE shop <> ' ORDER BY '", False),
        ("SELECT id, row_number() OVER (ORDER BY id) - id + id FROM sales", False),
    ],
)
def test_rows_are_compared_in_order_where_the_reference_has_an_order_of_its_own(target: str, ordered: bool) -> None:
    data = {**SHOP, "target": target}
    columns = "id, id" if "OVER" in target else "id"
    up, down = (
        answer_query(f"SELECT {columns} FROM sales ORDER BY id {way}", data)["value"] for way in ("ASC", "DESC")
    )
    assert down == 1
    assert (up < 1) == ordered


@given(st.lists(st.integers(0, 3), max_size=5), st.lists(st.integers(0, 3), max_size=5))
def test_rows_agree_wholly_if_and_only_if_they_are_the_same(one: list[int], other: list[int]) -> None:
    rows, expected = [(each,) for each in one], [(each,) for each in other]
    assert (sql.agreement(rows, expected, ordered=True) == 1) == (one == other)
    assert (sql.agreement(rows, expected, ordered=False) == 1) == (sorted(one) == sorted(other))
    assert 0 <= sql.agreement(rows, expected, ordered=False) <= 1


def test_a_result_that_is_written_into_a_query_is_right_on_one_database_and_not_on_two() -> None:
    other = SHOP["database"] + "DELETE FROM sales WHERE id = 2"
    both = {**SHOP, "database": [SHOP["database"], other]}
    written = "SELECT 'y', .2 UNION ALL SELECT 'x', .7"
    assert answer_query(written, SHOP)["value"] == 1
    assert answer_query(written, both)["value"] == pytest.approx(3 / 4)
    assert answer_query(SHOP["target"], both)["value"] == 1


COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT nope FROM sales", "no such column: nope"),
        ("DELETE FROM sales", "not authorized"),
        ("UPDATE sales SET price = 0 RETURNING price", "not authorized"),
        ("ATTACH 'stolen.db' AS other", "not authorized"),
        ("VACUUM INTO 'stolen.db'", "authoriz"),
        ("PRAGMA query_only = OFF", "not authorized"),
        ("SELECT * FROM pragma_table_info('sales')", "not authorized"),
        ("CREATE TEMP TABLE t AS SELECT 1", "not authorized"),
        ("BEGIN", "not authorized"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT fts3_tokenizer('simple')", "not authorized"),
        ("SELECT sql FROM sqlite_stmt", "sqlite_stmt"),
        ("SELECT 1; DELETE FROM sales", "one statement at a time"),
        ("SELECT ?", "bindings"),
        ("", "no query"),
        ("-- nothing", "no query"),
        ("SELECT \0", "null character"),
        ("SELECT '\ud800'", "surrogates"),
        (f"{COUNT} SELECT count(*) FROM n", "more than 1000000 steps"),
        (f"{COUNT} SELECT i FROM n", "more than 1000 rows"),
        ("SELECT hex(zeroblob(900000))", "too big"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "overflow"),
    ],
)
def test_a_query_can_only_read_and_only_so_much(
    query: str, error: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "STEPS", 10**6)
    monkeypatch.setattr(sql, "ROWS", 10**3)
    with pytest.raises(Refused, match=error):
        answer_query(query, SHOP)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"target": "SELECT nope FROM sales"}, "the reference query .* fails: SQLite: no such column"),
        ({"target": "DELETE FROM sales"}, "fails: SQLite: not authorized"),
        ({"target": "SELECT id FROM sales ORDER BY shop"}, "no one result"),
        ({"target": "SELECT shop, count(*) FROM sales WHERE id > 2 OR id = 2 GROUP BY id ORDER BY 2"}, "no one result"),
        ({"target": "SELECT id FROM sales LIMIT 1"}, "no one result"),
        ({"target": "SELECT random()"}, "no one result"),
        ({"target": None}, "must be the reference query, got"),
        ({"database": "CREATE TABLE"}, "the script .* fails: incomplete input"),
        ({"database": "ATTACH 'x.db' AS x"}, "the script .* fails: not authorized"),
        ({"database": []}, "must be an SQL script, or a list of them"),
    ],
)
def test_a_reference_without_one_result_is_a_fault_of_the_task(data: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        answer_query(None, {**SHOP, **data})


@pytest.mark.parametrize(
    "target",
    [
        "SELECT id FROM sales ORDER BY shop, id LIMIT 2;",
        "SELECT DISTINCT shop FROM sales ORDER BY shop DESC -- done",
        "SELECT id FROM sales UNION SELECT 9 ORDER BY id",
        "SELECT shop FROM sales",
    ],
)
def test_a_reference_with_one_result_is_taken(target: str) -> None:
    answer_query(None, {**SHOP, "target": target})


# ------------------------------------------------------------------------------------------------------- JSON schema


@needs_jsonschema
@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"age": 3}', 1),
        ({"age": 3, "children": [{"age": 1}]}, 1),
        ('{"age": 3, "children": [{}]}', 0),
        ('{"age": "3"}', 0),
        ("null", 0),
        ('{"age": 3} and more', 0),
        ('{"age": 3, "age": 4}', 0),
        ('{"age": NaN}', 0),
        ('{"age": 1e999}', 0),
        ('{"age": ' + "9" * 5000 + "}", 0),
        ("[" * 100_000, 0),
        ('{"age": 1, "children": [' * 3000 + "]}" * 3000, 0),
        ("\ud800", 0),
    ],
)
def test_an_answer_is_right_if_it_is_json_and_valid(answer: Any, value: float) -> None:
    assert _judged(json_schema.judge, answer, PERSON) == value


@needs_jsonschema
def test_the_feedback_tells_the_first_errors_and_not_all_of_a_megabyte() -> None:
    many = json.dumps({"age": 1, "children": [{"age": "x" * 1000}] * 900})
    feedback = json_schema.judge(many, PERSON)["feedback"]
    assert feedback.startswith("$.children[0].age: 'xxx")
    assert len(feedback) < 2000


@needs_jsonschema
@pytest.mark.parametrize(
    ("schema", "error"),
    [
        (None, "must be a JSON schema, an object"),
        ({"type": "nonsense"}, r"no JSON schema: \$.type"),
        ({"pattern": "("}, "no JSON schema"),
        ({"$schema": "https://example.com/draft"}, "draft that is not known"),
        ({"$schema": 3}, "must be a JSON schema"),
        ({"$ref": "https://example.com/schema"}, "refers to 'https://example.com/schema', which is not in it"),
        ({"properties": {"deep": {"items": {"$ref": "file:///etc/passwd"}}}}, "refers to 'file:///etc/passwd'"),
        ({"properties": {"x": {"$ref": "#/$defs/none"}}}, "refers to '#/\\$defs/none'"),
        ({"$dynamicRef": "#none"}, "refers to '#none'"),
        ({"$ref": "#"}, "refers to itself without end"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "refers to itself without end",
        ),
    ],
)
def test_a_schema_that_nothing_can_be_judged_by_is_a_fault_of_the_task(schema: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        json_schema.judge(None, {"schema": schema})


@needs_jsonschema
@pytest.mark.parametrize(
    "schema",
    [
        PERSON["schema"],
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$id": "https://x.org/root", "$ref": "part", "$defs": {"p": {"$id": "part", "type": "null"}}},
        {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "https://example.com"}]},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    ],
)
def test_a_schema_may_refer_to_itself_to_its_parts_and_to_the_standard(schema: Any) -> None:
    json_schema.judge(None, {"schema": schema})


@needs_jsonschema
def test_no_schema_and_no_answer_hangs_the_run() -> None:
    small = bound("json", Verifier(json_schema.judge, read_block, 10**6, cpu=1))
    doubling = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n - 1}"}] * 2} for n in range(1, 40)}
    with pytest.raises(ValueError, match="can't be judged by: .* out of the processor's time"):
        small.check_task({"schema": {"$ref": "#/$defs/l39", "$defs": {**doubling, "l0": {"type": "string"}}}})
    slow = {"schema": {"pattern": "^(a+)+$"}}
    assert small(answer=json.dumps("a" * 100 + "!"), task_data=slow)["value"] == 0
    assert small(answer='"aa"', task_data=slow)["value"] == 1


# -------------------------------------------------------------------------------------------------------------- code


@pytest.mark.parametrize(
    ("code", "value"), [("def f(x): return x * x", 1), ("def f(x): return x + x", 2 / 3), ("f = abs", 1 / 3)]
)
def test_code_earns_the_share_of_tests_that_it_passes(code: str, value: float) -> None:
    reward = code_tests.judge(code, SQUARES)
    assert reward["value"] == pytest.approx(value)
    assert reward["metric"] == float(value == 1)


CHEATS = {
    "it ends Python": "import sys\nsys.exit(0)",
    "it ends the process": "import os\nos._exit(0)",
    "it ends the process when it is called": "import os\ndef f(x): os._exit(0)",
    "it gives what equals everything": "class E:\n  __eq__ = __ne__ = lambda *_: True\ndef f(x): return E()",
    "it gives a number that equals everything": "class E(int):\n  __eq__ = lambda *_: True\ndef f(x): return E(5)",
    "it replaces what asserts raise": "import builtins\nbuiltins.AssertionError = str\ndef f(x): return 1",
    "it prints that all is well": "print('3 of 3 tests pass.')\nprint({'value': 1.0})\ndef f(x): return 1",
    "it writes on its connection": "import os\nfor n in range(3, 9):\n  try: os.write(n, b'{\"value\": 1}\\n' * 9)\n"
    "  except OSError: pass\ndef f(x): return 1",
    "it looks for the tests": "import gc\ndef f(x):\n  found = [o for o in gc.get_objects() if 'assert f' in str(o)]\n"
    "  return x * x if len(found) > 2 else -1",
    "it defines nothing": "x = 1",
    "it is no code": "I can't do that.",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_code_passes_without_giving_the_right_values(cheat: str) -> None:
    assert _judged(code_tests.judge, CHEATS[cheat], SQUARES) == 0


GREEDY = {
    "for ever": "def f(x):\n  while True: pass",
    "all memory": "def f(x):\n  kept = []\n  while True: kept.append('x' * 10**7)",
    "no end of calls": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "a value without end": "def f(x): return 'x' * 10**8",
    "a crash": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "output": "import os\nfor _ in range(2000): os.write(1, b'x' * 2**16)",
}


@pytest.mark.parametrize("greed", GREEDY)
def test_code_has_limits(greed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tests, "CPU_SECONDS", 1)
    monkeypatch.setattr(code_tests, "MEMORY", 200)
    assert _judged(code_tests.judge, GREEDY[greed], SQUARES) == 0


@on_linux
def test_code_starts_no_processes_touches_no_files_and_reaches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    tries = {
        "fork": "os.fork()",
        "thread": "__import__('threading').Thread(target=print).start()",
        "program": "os.execv('/bin/sh', ['sh'])",
        "signal": "os.kill(os.getppid(), 0)",
        "connection": "__import__('socket').socket()",
        "read": f"open({str(mine)!r})",
        "write": f"open({str(mine)!r}, 'w')",
        "make": f"open({str(tmp_path / 'new')!r}, 'w')",
        "delete": f"os.remove({str(mine)!r})",
        "list": f"os.listdir({str(tmp_path)!r})",
        "others": "open(f'/proc/{os.getppid()}/environ')",
        "more time": "__import__('resource').setrlimit(0, (99, 99))",
    }
    code = (
        "import os\ndef f(name):\n  try: exec(TRIES[name])\n  except (OSError, RuntimeError, ValueError): return 'no'\n"
    )
    asked = [f"assert f({name!r}) == 'no'" for name in tries]
    environment = "assert 'secret' not in str(g())"
    reward = code_tests.judge(
        f"TRIES = {tries}\n{code}def g(): return dict(os.environ)", {"tests": [*asked, environment]}
    )
    assert reward["feedback"] == f"{len(tries) + 1} of {len(tries) + 1} tests pass."
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


STACK = """
class Stack:
    def __init__(self, items=()): self.items = list(items)
    def push(self, item): self.items.append(item); return self
    def __len__(self): return len(self.items)
    def __getitem__(self, at): return self.items[at]
    def __eq__(self, other): return self.items == other.items
    def __add__(self, other): return Stack(self.items + other.items)

class Full(ValueError): pass

def tidy(items): items.sort()
def fails(): raise Full("full")
def numbers(n): yield from range(n)
def same(value): return value
"""
FEATURES = """
s = Stack()
s.push(3).push(4)
assert len(s) == 2 and s[0] == 3 and list(s) == [3, 4] and s.items == [3, 4]
assert s + Stack([5]) == Stack([3, 4, 5])
assert not s == Stack()
xs = [3, 1, 2]
tidy(xs)
assert xs == [1, 2, 3]
assert list(numbers(3)) == [0, 1, 2] and sum(numbers(4)) == 6

def test_error():
    try:
        fails()
    except ValueError as error:
        assert str(error) == "full"
    else:
        raise AssertionError

from fractions import Fraction
VALUES = [None, True, 10**3000, -1, 1.5, float("inf"), 1j, "\\ud800é", b"x", (1, (2,)), {1, 2}, {(1, 2): [3]}, range(3)]
assert all(same(value) == value and type(same(value)) is type(value) for value in [*VALUES, Fraction(1, 3)])
"""


def test_tests_use_classes_errors_generators_and_plain_values_of_an_answer() -> None:
    assert code_tests.judge(STACK, {"tests": FEATURES})["feedback"] == "7 of 7 tests pass."


def test_data_sets_with_a_function_check_and_an_entry_point_are_judged() -> None:
    data = {"tests": "def check(candidate):\n    assert candidate(2) == 4\n", "entry_point": "square", "setup": "x = 1"}
    assert code_tests.judge("def square(x): return x * x", data)["value"] == 1
    assert code_tests.judge("def square(x): return x", data)["value"] == 0


def test_feedback_tells_nothing_of_the_tests() -> None:
    leak = "def f(x):\n  raise type(f'It_is_{x}', (KeyError,), {})(x)"
    assert code_tests.judge(leak, SQUARES)["feedback"] == "0 of 3 tests pass. Test 1: KeyError."


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"tests": "assert f("}, "is no Python"),
        ({"tests": "f(1)"}, "has no test"),
        ({"tests": "assert abs(-1) == 1"}, "asks nothing of an answer"),
        ({"tests": []}, "must be a Python program"),
        ({**SQUARES, "target": "def f(x): return 2 * x"}, "the right answer .* fails test 2"),
        ({"tests": "import no_such_module\nassert f(1)", "target": "f = abs"}, "can't be run: ModuleNotFoundError"),
        ({"tests": "import no_such_module\nassert f(1)"}, "can't be run: ModuleNotFoundError"),
        ({"tests": "assert f(lambda: 1)", "target": "f = abs"}, "hands an object of type function over"),
        ({**SQUARES, "target": "def f(x) return x * x"}, "The code does not run: SyntaxError"),
        ({**SQUARES, "target": "def square(x): return x * x"}, "The code defines no f"),
        ({**SQUARES, "target": ""}, "The code defines no f"),
    ],
)
def test_tests_that_nothing_can_be_judged_by_are_a_fault_of_the_task(data: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        _InWorker(code_tests.judge)(None, data)


def test_code_is_run_only_where_that_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(code_tests.ALLOWED_BY, raising=False)
    with pytest.raises(ValueError, match="allow it by ICRL_RUN_CODE=1"):
        improve("Square.", "code_tests", model=lambda: "f = abs", task_data=SQUARES)
    assert code_tests.code_tests(run=True).name == "code_tests"


# ------------------------------------------------------------------------------------------------------- by their names


def test_verifiers_have_names_that_work_wherever_an_evaluator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code_tests.ALLOWED_BY, "1")
    monkeypatch.setattr(verifier, "find_spec", lambda name: name)
    assert all(isinstance(bind_evaluator(name), BoundEvaluator) for name in SHIPPED)
    with pytest.raises(ValueError, match="unknown evaluator 'sqll'; choose one of mathematics, majority, regex_golf"):
        bind_evaluator("sqll")


@pytest.mark.parametrize("name", ["regex_golf", "json_schema"])
def test_a_missing_package_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'icrl-graph\[verifiers\]'"):
        evaluator.find_evaluator(name)


def test_a_run_learns_from_what_is_wrong_with_its_answers() -> None:
    model = ScriptedModel(["SELECT x", "```sql\nSELECT shop, sum(price) FROM sales GROUP BY shop\n```"])
    result = improve("Total by shop.", "sql", model=model, task_data=SHOP, rounds=2, target=1)
    assert result.rewards == [0, 1]
    assert "no such column: x" in str(model.prompts[1])
    assert result.rewarded_by == "oracle"


def test_task_data_that_nothing_can_be_judged_by_ends_a_run_before_anything_is_paid() -> None:
    model = ScriptedModel(["SELECT 1"])
    with pytest.raises(ValueError, match="the evaluator 'sql' can't judge answers to this task: the reference query"):
        improve("Total by shop.", "sql", model=model, task_data={**SHOP, "target": "SELECT x"})
    assert model.prompts == []


def test_a_comparison_names_the_task_that_nothing_can_be_judged_by(here: Path) -> None:
    model = ScriptedModel(["SELECT shop, sum(price) FROM sales GROUP BY shop"] * 4)
    tasks = [
        {"id": "good", "task": "Total by shop.", "task_data": SHOP},
        {"id": "bad", "task": "Total by shop.", "task_data": {**SHOP, "target": "SELECT x"}},
    ]
    Path("tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    given: Any = {"arms": "icrl,best_of_n", "model": model, "evaluator": "sql", "rounds": 2}
    with pytest.raises(ValueError, match="the task 'bad' of .*tasks.jsonl: the evaluator 'sql' can't judge"):
        compare("tasks.jsonl", folder="runs", **given)
    assert model.prompts == []
    comparison = compare("tasks.jsonl", folder="runs", items=["good"], **given)
    assert {row["reward"] for row in comparison.rows.values()} == {1.0}


def test_a_fault_of_the_task_that_turns_up_late_leaves_the_attempt_unscored() -> None:
    broken = replace(bind_evaluator("sql"), check=None)
    result = improve("x", broken, model=lambda: "SELECT 1", task_data={**SHOP, "target": "SELECT x"}, rounds=1)
    assert result.rewards == [None]
    assert "the reference query" in str(result.episodes[0]["reward"]["error"])
