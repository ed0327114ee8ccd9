"""Data sets: files of three kinds, and the hub, played by a server of this machine."""

import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from icrl_graph import compare
from icrl_graph.benchmarks import Benchmark, find_benchmark, from_data
from icrl_graph.benchmarks.benchmark import _tasks
from icrl_graph.benchmarks.datasets import kept_at, read_fields, read_rows
from icrl_graph.benchmarks.registry import canonical, find_item
from tests.command_line import icrl

FIELDS = "task=problem,target=answer"
SUMS = [{"problem": f"What is {n} + 1?", "answer": n + 1, "no": n} for n in range(3)]
Answer = tuple[int, dict[str, str], bytes]
Hub = Callable[[str, dict[str, str]], Answer]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("icrl_graph.benchmarks.datasets.find_spec", lambda name: None)
    monkeypatch.setattr("icrl_graph.benchmarks.datasets.ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    _tasks.cache_clear()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Hub], list[Any]]]:
    """Plays the hub's endpoint; gives the requests, each with its path, its parameters and its headers."""
    servers: list[ThreadingHTTPServer] = []

    def start(hub: Hub) -> list[Any]:
        requests: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                parameters = {name: values[0] for name, values in parse_qs(url.query).items()}
                requests.append((url.path, parameters, dict(self.headers)))
                status, headers, body = hub(url.path, parameters)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr("icrl_graph.benchmarks.datasets.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def told(value: Any, status: int = 200, **headers: str) -> Answer:
    return status, headers, json.dumps(value).encode()


def hub_of(rows: list[dict[str, Any]], splits: tuple[tuple[str, str], ...] = (("default", "train"),)) -> Hub:
    def answer(path: str, parameters: dict[str, str]) -> Answer:
        if path == "/splits":
            return told({"splits": [{"config": config, "split": split} for config, split in splits]})
        first = int(parameters["offset"])
        page = rows[first : first + int(parameters["length"])]
        return told({"rows": [{"row_idx": 0, "row": row} for row in page], "num_rows_total": len(rows)})

    return answer


def tasks_of(benchmark: Benchmark) -> list[Any]:
    return [benchmark.read(name) for name in benchmark.items()]


EXPECTED = [{"task": row["problem"], "task_data": {"target": row["answer"]}} for row in SUMS]
AS_TEXT = [{"task": row["problem"], "task_data": {"target": str(row["answer"])}} for row in SUMS]


def write_json_lines(path: Path) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in SUMS))


def write_csv(path: Path) -> None:
    lines = ["problem,answer,no", *(f'"{row["problem"]}",{row["answer"]},{row["no"]}' for row in SUMS)]
    path.write_text("\ufeff" + "\r\n".join(lines))


def write_parquet(path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(SUMS), path)


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("sums.jsonl", write_json_lines, EXPECTED),
        ("sums.csv", write_csv, AS_TEXT),
        ("sums.parquet", write_parquet, EXPECTED),
    ],
)
def test_a_file_of_any_kind_is_read_by_its_columns(
    name: str, write: Callable[[Path], None], expected: list[Any], here: Path
) -> None:
    write(here / name)
    assert tasks_of(find_benchmark(f"{name}?{FIELDS}")) == expected
    assert find_benchmark(f"{name}?{FIELDS},id=no").items() == ["0", "1", "2"]


def test_a_reference_answer_may_be_a_list_and_stand_within_an_object(here: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "2 + 3?"}], "reward_model": {"ground_truth": ["5", "five"]}}
    (here / "a.jsonl").write_text(json.dumps(row))
    [task] = tasks_of(find_benchmark("a.jsonl?task=prompt,target=reward_model.ground_truth"))
    assert task == {"task": row["prompt"], "task_data": {"target": ["5", "five"]}}


def test_a_data_set_keeps_its_columns_in_any_folder(here: Path) -> None:
    assert canonical(f"sums.csv?{FIELDS}") == f"{here / 'sums.csv'}?{FIELDS}"
    assert canonical(f"hf:a/b?{FIELDS}") == f"hf:a/b?{FIELDS}"


def test_a_comparison_on_mapped_columns_is_resumed_by_its_folder_alone(here: Path) -> None:
    write_csv(here / "sums.csv")
    Path("score.py").write_text("def right(response, task_data):\n    return float(response == task_data['target'])\n")
    Path("player.py").write_text("def play(messages):\n    return '2'\n")
    command = ["bench", "sums.csv", "--map", FIELDS, "--model", "player.py:play", "--evaluator", "score.py:right"]
    assert icrl(*command, "--rounds", "1", "--topologies", "icrl", "--out", "out", "--json").returncode == 0
    Path("out/results.jsonl").unlink()
    again = icrl("resume", "out", "--json")
    assert again.returncode == 0, again.stderr
    rows = map(json.loads, Path("out/results.jsonl").read_text().splitlines())
    assert {row["item"]: row["reward"] for row in rows} == {"2": 0, "3": 1, "4": 0}  # by their lines


def test_a_task_of_a_data_set_is_a_task_of_icrl_run(here: Path) -> None:
    write_csv(here / "sums.csv")
    Path("score.py").write_text("def right(response, task_data):\n    return float(response == task_data['target'])\n")
    Path("player.py").write_text("def play(messages):\n    return '2'\n")
    command = ("--model", "player.py:play", "--evaluator", "score.py:right", "--rounds", "1", "--json")
    for name, target in (("3", "2"), ("4", "3")):  # by their lines
        done = icrl("run", f"sums.csv?{FIELDS}:{name}", *command, "--out", name)
        assert json.loads(done.stdout)["reward"] == float(target == "2"), done.stderr
        assert json.loads(Path(name, "run.json").read_text())["task"] == f"{here / 'sums.csv'}?{FIELDS}:{name}"
    unknown = icrl("run", f"sums.csv?{FIELDS}:5", *command)
    assert (unknown.returncode, "has no task '5'" in unknown.stderr) == (2, True)
    missing = icrl("run", "other.jsonl:1", *command)
    assert (missing.returncode, "the tasks of" in missing.stderr) == (2, True)


@pytest.mark.parametrize("text", ["Read sums.csv:1", "sums.csv: what is in it?", "hf:a is a name", "sums.csv"])
def test_a_prompt_that_speaks_of_a_file_is_a_prompt(text: str) -> None:
    assert find_item(text) is None


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("question,answer\n1,2\n", "a.csv", "line 2: no column 'problem'; there are question, answer"),
        ("problem,answer\n1,2,3\n", "a.csv", r"line 2: as many cells as columns are needed: \['problem', 'answer'\]"),
        ("problem,answer\n1\n", "a.csv", "line 2: as many cells as columns"),
        ('problem,answer\n"1,2\n', "a.csv", "not CSV: unexpected end of data"),
        ("problem,answer\n1,\n", "a.csv", "line 2: the column 'answer' has no value"),
        ('{"problem": "1", "answer": null}', "a.jsonl", "line 1: the column 'answer' has no value"),
        ('{"problem": "1"}', "a.jsonl", "line 1: no column 'answer'; there are problem"),
        ("PAR1", "a.parquet", "not Parquet"),
        ("problem,answer", "a.csv", "has no tasks"),
        (b"problem,answer\n\xff,1", "a.csv", "can't be read"),
        ("problem,answer,answer\n1,2,3\n", "a.csv", "'answer' stands twice among problem, answer, answer"),
        ('{"problem": "1", "problem": "2", "answer": 1}', "a.jsonl", "line 1: .*'problem' stands twice"),
        ("3", "a.jsonl", "line 1: a row is an object, with a value for each column, got 3"),
        ('["problem", "answer"]', "a.jsonl", "line 1: a row is an object"),
        ("[" * 100_000 + "]" * 100_000, "a.jsonl", "line 1: not JSON: maximum recursion depth"),
    ],
)
def test_what_can_not_be_read_is_told_with_its_place(content: str | bytes, name: str, message: str, here: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"a\.\w+,? .*{message}|the tasks of a\.csv {message}"):
        find_benchmark(f"{name}?{FIELDS}")


def test_columns_of_one_name_in_a_parquet_file_are_refused(here: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_arrays([arrow.array(["1"]), arrow.array(["2"])], names=["problem", "problem"])
    pytest.importorskip("pyarrow.parquet").write_table(table, "a.parquet")
    with pytest.raises(ValueError, match="a.parquet, not Parquet: .*problem"):
        find_benchmark("a.parquet?task=problem")


def test_a_cell_of_a_csv_file_may_be_long(here: Path) -> None:
    long = "x" * 200_000
    Path("a.csv").write_text(f"problem,answer\n{long},1\n")
    [task] = tasks_of(find_benchmark(f"a.csv?{FIELDS}"))
    assert task == {"task": long, "task_data": {"target": "1"}}


def test_ids_of_a_column_must_differ(here: Path) -> None:
    Path("a.csv").write_text("problem,no\nx,1\ny,1\n")
    with pytest.raises(ValueError, match="line 3: duplicate id '1'"):
        find_benchmark("a.csv?task=problem,id=no")


@pytest.mark.parametrize("told", ["target=answer", "task", "task=", "=x", "task=a,task=b", ""])
def test_fields_of_another_form_are_refused(told: str) -> None:
    with pytest.raises(ValueError, match="fields are named like task=problem"):
        read_fields(told)


def test_columns_of_what_is_no_data_set_are_refused() -> None:
    done = icrl("bench", "game24", "--map", FIELDS, "--preview")
    assert done.returncode == 2
    assert "'game24' is none" in done.stderr


def test_rows_without_fields_say_how_to_name_columns(here: Path) -> None:
    write_csv(here / "sums.csv")
    with pytest.raises(ValueError, match=r"no task; .* --map task=question,target=answer"):
        find_benchmark("sums.csv")


# ------------------------------------------------------------------------------------------------------------- the hub


def test_a_data_set_of_the_hub_is_read_in_pages(serve: Callable[[Hub], list[Any]]) -> None:
    rows = [{"problem": str(n), "answer": n} for n in range(250)]
    requests = serve(hub_of(rows))
    assert [task["task"] for task in tasks_of(find_benchmark(f"hf:me/sums?{FIELDS}"))] == [str(n) for n in range(250)]
    assert [(path, told.get("offset")) for path, told, _ in requests] == [
        ("/splits", None),
        ("/rows", "0"),
        ("/rows", "100"),
        ("/rows", "200"),
    ]


def test_a_data_set_of_the_hub_is_read_once(serve: Callable[[Hub], list[Any]]) -> None:
    requests = serve(hub_of(SUMS))
    first = list(read_rows("hf:me/sums"))
    made = len(requests)
    assert list(read_rows("hf:me/sums")) == first
    assert len(requests) == made


def test_a_kept_data_set_that_was_changed_is_refused(serve: Callable[[Hub], list[Any]]) -> None:
    serve(hub_of(SUMS))
    list(read_rows("hf:me/sums"))
    kept = kept_at("hf:me/sums")
    kept.write_text(kept.read_text().replace("What is 2", "What is 3"))
    with pytest.raises(ValueError, match=r"me--sums\.json is not what was read from the hub: delete it"):
        list(read_rows("hf:me/sums"))


def test_of_several_splits_one_is_named(serve: Callable[[Hub], list[Any]]) -> None:
    requests = serve(hub_of(SUMS, (("main", "train"), ("main", "test"))))
    with pytest.raises(ValueError, match="2 splits; name one of hf:me/sums/main/train, hf:me/sums/main/test"):
        list(read_rows("hf:me/sums"))
    assert len(list(read_rows("hf:me/sums/main/test"))) == 3
    asked = requests[-1][1]
    assert (asked["dataset"], asked["config"], asked["split"]) == ("me/sums", "main", "test")


def test_the_token_of_the_hub_is_sent_where_there_is_one(
    serve: Callable[[Hub], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = serve(hub_of(SUMS))
    list(read_rows("hf:me/one"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    list(read_rows("hf:me/two"))
    assert [headers.get("Authorization") for *_, headers in requests] == [None, None, "Bearer secret", "Bearer secret"]


GONE = "The dataset does not exist"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (told({"error": GONE}, 404), f"me/sums: the hub answers 404, {GONE}; if it is private, set HF_TOKEN"),
        (told({"error": "gated"}, 401), "401, gated; if it is private or gated, set HF_TOKEN"),
        (told({"error": "slow"}, 429, **{"Retry-After": "17"}), "429, slow; wait 17 seconds and repeat"),
        (told({"error": "busy"}, 429), "429, busy; wait a few seconds and repeat"),
        ((500, {}, b"<html>broken</html>"), "500, no JSON but '<html>broken</html>'"),
        ((200, {}, b"<html>Log in</html>"), "200, no JSON but '<html>Log in</html>'"),
        (told(["rows"]), "the hub answers 200, no JSON"),
        ((200, {}, b"[" * 100_000), "200, no JSON but"),
        ((200, {"Content-Encoding": "gzip"}, b"broken"), "me/sums can't be read from"),
        (told({"cells": []}), "the hub gives no rows but"),
        (told({"rows": [], "num_rows_total": float("inf")}), "the hub gives no rows but"),
        (told({"rows": [], "num_rows_total": "many"}), "the hub gives no rows but"),
        (told({"rows": [], "num_rows_total": 3}), "the hub has given 0 of its 3 rows"),
        (told({"rows": [{"row": {}}], "num_rows_total": 10_001}), "10001 rows, and the hub's endpoint is asked for"),
        (
            told({"rows": [{"row_idx": 7, "row": {}, "truncated_cells": ["problem"]}], "num_rows_total": 1}),
            "cut off problem of row 7",
        ),
    ],
)
def test_an_error_of_the_hub_is_told_and_nothing_is_kept(
    answer: Answer, message: str, serve: Callable[[Hub], list[Any]]
) -> None:
    serve(lambda path, parameters: answer)
    with pytest.raises(ValueError, match=rf"{message}.*give the file; or pip install 'icrl-graph\[datasets\]'"):
        list(read_rows("hf:me/sums/default/train"))
    assert not kept_at("hf:me/sums/default/train").exists()


def test_offline_is_told() -> None:
    with pytest.raises(ValueError, match=r"me/sums can't be read from http://127\.0\.0\.1:9: .*It is kept once it was"):
        from_data("hf:me/sums")


@pytest.mark.parametrize("name", ["hf:", "hf:sums", "hf:a/b/c", "hf:../../etc/passwd", "hf:a/b/c/d/e"])
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is named hf:owner/name"):
        list(read_rows(name))


@contextmanager
def installed(module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("icrl_graph.benchmarks.datasets.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "datasets", module)
    yield


def test_where_the_endpoint_fails_the_package_datasets_reads(
    serve: Callable[[Hub], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(lambda *_: told({"error": GONE}, 404))
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, split: str | None) -> Any:
        asked.append((name, config, split))
        return SUMS if split else {"train": SUMS}

    with installed(types.SimpleNamespace(load_dataset=load_dataset), monkeypatch):
        assert [row for _, row in read_rows("hf:me/sums")] == SUMS
        assert [row for _, row in read_rows("hf:me/sums/main/test")] == SUMS
    assert asked == [("me/sums", None, None), ("me/sums", "main", "test")]


def test_where_both_fail_both_say_why(serve: Callable[[Hub], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    serve(lambda *_: told({"error": GONE}, 404))

    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network")

    with installed(types.SimpleNamespace(load_dataset=load_dataset), monkeypatch), pytest.raises(ValueError) as told_:
        list(read_rows("hf:me/sums"))
    assert GONE in str(told_.value)
    assert "the package datasets: no network" in str(told_.value)


def test_the_real_package_reads_a_data_set(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "hf")
    folder = here / "me" / "sums"
    folder.mkdir(parents=True)
    write_json_lines(folder / "train.jsonl")
    with installed(datasets, monkeypatch):
        assert tasks_of(find_benchmark(f"hf:me/sums?{FIELDS}")) == EXPECTED


def test_compare_takes_a_data_set_of_the_hub(serve: Callable[[Hub], list[Any]], tmp_path: Path) -> None:
    requests = serve(hub_of(SUMS))

    def right(response: str, task_data: dict[str, Any]) -> float:
        return float(response == str(task_data["target"]))

    comparison = compare(
        f"hf:me/sums?{FIELDS}", "icrl", model=lambda: "2", evaluator=right, rounds=1, folder=tmp_path / "out"
    )
    assert {cell.item: row["reward"] for cell, row in comparison.rows.items()} == {"1": 0, "2": 1, "3": 0}
    made = len(requests)
    kept_at("hf:me/sums").unlink()
    _tasks.cache_clear()
    comparison.report()
    assert len(requests) == made  # who looks at a folder, perhaps a stranger's, asks no server
