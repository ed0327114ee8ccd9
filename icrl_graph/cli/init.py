"""`icrl init`."""

from __future__ import annotations

import json
import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from icrl_graph.cli.shared import Json, app, errors_reported, write

FILES = ("score.py", "tasks.jsonl", "graph.py", "langgraph.json", "README.md")
"""In the folder `starter`, written as they are."""


@app.command(epilog="Example:\n\n  icrl init mine")
def init(
    folder: Annotated[Path, typer.Argument(help="Where they are written; default this folder.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write the files to begin with: a score, tasks, a graph, and a README with the next commands.

    They run at once, without a key. No file is overwritten.
    """
    with errors_reported():
        write_files(folder)
        if as_json:
            typer.echo(json.dumps({"folder": str(folder.resolve()), "files": FILES}))
            return
        write(f"Wrote {', '.join(FILES)}. Next, as README.md says:\n")
        if folder != Path():
            write(f"  cd {shlex.quote(str(folder))}")
        write("  icrl run tasks.jsonl:1 --model graph.py:model --evaluator score.py:score")


def write_files(folder: Path) -> None:
    """Write all of `FILES` or none.

    Raises:
        ValueError: one of them is there, or the folder is a file.
        OSError: one of them can't be written.
    """
    if there := [name for name in FILES if os.path.lexists(folder / name)]:
        raise ValueError(f"{folder} has {', '.join(there)}, and nothing is overwritten; name another folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with open(folder / name, "xb") as file:
                written.append(folder / name)
                file.write((files("icrl_graph.cli") / "starter" / name).read_bytes())
    except BaseException:
        for path in written:
            path.unlink()
        for path in filter(Path.exists, made):
            path.rmdir()
        raise
