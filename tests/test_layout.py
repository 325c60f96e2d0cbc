from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = ("torch", "diffusers", "pytorch_lightning", "datasets", "av", "cv2", "scipy", "matplotlib")
"""Packages that take seconds together: no command line, `--help` least of all, waits for them."""


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def test_version_stands_in_one_place(repository):
    from divid._version import __version__

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert f"[{__version__}]" in (repository / "CHANGELOG.md").read_text(), "the changelog lacks a heading for this version"
    assert f"version: {__version__}" in (repository / "CITATION.cff").read_text()


def test_command_line_loads_nothing_heavy():
    code = "import json, sys, divid.cli.main; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert [name for name in HEAVY if name in loaded] == []


def test_config_loads_no_torch():
    code = "import sys, divid.config; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_tests_mirror_the_source(repository):
    """tests/models/test_x.py speaks of src/divid/models: a folder of tests has a folder of source."""
    folders = {path.parent.relative_to(repository / "tests") for path in python_files(repository / "tests")}
    missing = [str(folder) for folder in folders if not (repository / "src/divid" / folder).is_dir()]
    assert missing == []


def test_all_tracked_files_together_stay_small(repository):
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, check=True, capture_output=True, text=True).stdout
    paths = [repository / name for name in listed.split("\0") if name]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    assert 2**20 < size < 32 * 2**20, "shrink pictures: .venv/bin/python scripts/shrink_pictures.py docs/results/images/*.png"


def test_every_constraint_is_a_pin(repository):
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if "==" not in line or "+" in line] == []


@pytest.mark.parametrize("folder", ["src", "examples", "bench", "gpu"])
def test_documented_arguments_exist(repository, folder):
    """What a docstring lists under `Args:` is an argument or field of what it describes."""
    wrong = []
    for path in python_files(repository / folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                known = names_of(node)
                wrong += [f"{path.name}: {node.name}: {name}" for name in documented(node) if known and name not in known]
    assert wrong == []


def names_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    if isinstance(node, ast.ClassDef):
        fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        return fields.union(*(names_of(init) for init in inits))
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [a for a in (arguments.vararg, arguments.kwarg) if a]
    return {argument.arg for argument in [*named, *starred]}


def documented(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[str]:
    names, inside, indent = [], False, None
    for line in (ast.get_docstring(node) or "").splitlines():
        if line.strip() == "Args:":
            inside, indent = True, None
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            indent = depth if indent is None else indent
            if depth < indent:
                inside = False
            elif depth == indent and ":" in line:
                names += [name.strip().lstrip("*") for name in line.split(":")[0].split(",")]
    return names
