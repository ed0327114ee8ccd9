"""The import graph of the package points one way; read from the source, so that a broken import can't hide it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "icrl_graph"
LAYERS = [  # a group may import only itself and what stands above it
    "errors",
    "state",
    "prompts",
    "execution",
    "tasks",
    "models",
    "testing",
    "evaluators",
    "environments",
    "topologies",
    "api",
    "preview",
    "benchmarks",
    "meta_rl",
    "integrations",
    "cli",
    "__main__",
]
EVERYWHERE_LAZY = {
    *("cloudpickle", "genai_prices", "openai", "langchain_openai", "psycopg", "sqlite3", "tenacity", "torch"),
    *(
        "deepagents",
        "dspy",
        "gepa",
        "inspect_ai",
        "jinja2",
        "langchain",
        "matplotlib",
        "plotly",
        "py4j",
        "scienceworld",
        "scipy",
    ),
    *("datasets", "jsonschema", "math_verify", "mcp", "pyarrow", "referencing", "regex", "sympy"),
}
HOME = {
    "execution/postgres.py": {"psycopg"},
    "integrations/inspect/__init__.py": {"inspect_ai"},
    "integrations/inspect/model.py": {"inspect_ai", "tenacity"},
    "integrations/inspect/sample.py": {"inspect_ai"},
    "integrations/inspect/scorers.py": {"inspect_ai"},
    "integrations/middleware.py": {"langchain"},
    "models/http.py": {"openai"},
    "models/lean_completions.py": {"openai"},
    "models/openai.py": {"openai", "langchain_openai"},
    "integrations/mcp_server.py": {"mcp"},
    "meta_rl/pytorch.py": {"torch"},
    "tasks/mathematics/equality.py": {"math_verify"},
}
STARTER = PACKAGE / "cli" / "starter"
"""What `icrl init` writes is code of its user's."""
FILES = sorted({*PACKAGE.rglob("*.py")} - {*STARTER.rglob("*.py")})


def _layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _names(nodes: list[ast.AST]) -> set[str]:
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {f"{node.module}.{a.name}" for node in nodes if isinstance(node, ast.ImportFrom) for a in node.names}
    return names | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def _imports(path: Path) -> set[str]:
    return _names(list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


@pytest.mark.parametrize(
    "path", [f for f in FILES if _layer(f) != "__init__"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_module_imports_only_its_group_and_those_above_it(path: Path) -> None:
    layer = _layer(path)
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    inner = {name.split(".")[1] for name in _imports(path) if name.startswith("icrl_graph.")}
    assert inner <= set(allowed), f"{layer} must not import {inner - set(allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_never_imports_the_checkout_around_it(path: Path) -> None:
    tops = {name.split(".")[0] for name in _imports(path)}
    assert not tops & {"graphs", "tools", "tests", "examples"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    top_level = _names(list(ast.iter_child_nodes(ast.parse(path.read_text(encoding="utf-8")))))
    heavy = {name.split(".")[0] for name in top_level} & EVERYWHERE_LAZY
    assert heavy <= HOME.get(path.relative_to(PACKAGE).as_posix(), set())


def test_a_run_is_set_up_without_numpy() -> None:
    """It would be a tenth of the time until its first round."""
    imports = "import sys, icrl_graph.benchmarks.registry, icrl_graph.topologies.methods, icrl_graph.cli.run_folder"
    subprocess.run([sys.executable, "-c", f"{imports}; assert 'numpy' not in sys.modules"], check=True)


def test_what_builds_prompts_never_reads_the_true_reward() -> None:
    """prompts/ may name the key `reward` once only: to take it away."""
    functions = [
        node
        for path in PACKAGE.glob("prompts/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    owners = [
        function.name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and node.value == "reward"
    ]
    assert owners == ["_hide_true_reward"]


def test_the_top_of_the_package_is_few_names() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert files == {"errors", "api", "preview"}
    assert len(folders) <= 13
    assert files | folders | {"__main__"} == set(LAYERS)


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if _layer(path) != "cli":
            calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            assert not any(isinstance(func, ast.Name) and func.id == "print" for func in calls), path
