"""What README and docs say is true: commands parse, recipes, keys, files and names exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import divid
from divid.cli.main import COMMANDS, build_parser
from divid.config import Recipe
from divid.distillation.options import ConsistencyConfig
from divid.presets import PRESETS
from divid.recipes import flatten, load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "gpu/QUEUE.md", *sorted((ROOT / "docs").rglob("*.md"))]

RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def shell_commands(page: Path) -> list[list[str]]:
    text = "\n".join(code_blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def divid_commands() -> list[tuple[str, list[str]]]:
    in_pages = [(page.name, words) for page in PAGES for words in shell_commands(page) if words[0] == "divid"]
    notes = {path.name: re.findall(r"^#.*?(divid [^`\n]*)", path.read_text(), flags=re.MULTILINE) for path in RECIPES}
    in_recipes = [(name, shlex.split(line)) for name, lines in notes.items() for line in lines if "..." not in line]
    return in_pages + in_recipes


@pytest.mark.parametrize("words", [pytest.param(words, id=f"{page}: {' '.join(words)}") for page, words in divid_commands()])
def test_command_parses(words):
    command, *rest = words[1:]
    assert command in COMMANDS
    parser, _ = build_parser(command)
    parser.parse_args(rest)
    if "--config" in rest:
        load_recipe(rest[rest.index("--config") + 1])


def test_readme_shows_the_main_commands():
    shown = {words[1] for words in shell_commands(ROOT / "README.md") if words[0] == "divid"}
    assert {"prepare", "train", "swap", "reconstruct", "interpolate", "encode", "info"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith(("http://", "https://")) and not (page.parent / t).exists()]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = [
        re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    ]
    return {title if not titles[:i].count(title) else f"{title}-{titles[:i].count(title)}" for i, title in enumerate(titles)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_of_links_are_headings(page):
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [(page.parent / path if path else page, anchor) for path, anchor in links if "://" not in path]
    assert [f"{target.name}#{anchor}" for target, anchor in inside if anchor not in anchors(target)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_and_scripts_exist(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for words in shell_commands(page):
        if words[0] == "make":
            assert words[1] in targets
        elif "/" in words[0] and not words[0].startswith(("/", ".venv", "~")):
            assert (ROOT / words[0]).is_file(), words[0]


@pytest.mark.parametrize("code", code_blocks(ROOT / "README.md", "python"))
def test_python_in_the_readme_uses_public_names(code):
    tree = ast.parse(code)
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert imported
    assert set(imported) <= set(divid.__all__)


def test_every_recipe_key_is_explained():
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert [key for key in flatten(Recipe()) if f"| `{key}` |" not in page] == []


def test_no_unknown_recipe_key_is_named():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"`((?:model|data|training|sampling)(?:\.[a-z_]+)+)`", text))
    known = set(flatten(Recipe())) | set(flatten(Recipe(method="consistency", model=ConsistencyConfig())))
    assert sorted(key for key in named - known if not key.endswith((".py", ".yaml"))) == []


def test_presets_of_the_readme_are_the_presets():
    rows = re.findall(r"^\| `(\w+)` \| (\d+)x\d+ \| ([\d-]+), (\d+) \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    told = {name: (int(size), tuple(map(int, widths.split("-"))), int(blocks)) for name, size, widths, blocks in rows}
    real = {
        name: (preset["image_size"], preset["denoiser"]["channels"], preset["denoiser"]["blocks_per_level"])
        for name, preset in PRESETS.items()
    }
    assert told == real


def places_in_method() -> list[tuple[str, str]]:
    rows = re.findall(r"`([\w/]+\.py)`, (`[^|\n]*)", (ROOT / "docs/method.md").read_text(encoding="utf-8"))
    names = [(path, re.findall(r"^`([\w.]+)`|and `([\w.]+)`", text)) for path, text in rows]
    return [(path, name) for path, pairs in names for pair in pairs for name in pair if name]


@pytest.mark.parametrize(("path", "name"), places_in_method())
def test_method_page_names_real_places(path, name):
    tree = ast.parse((ROOT / "src/divid" / path).read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for part in name.split("."):
        found = [node for node in nodes if node.name == part]
        is_attribute = f"self.{part} = " in ast.unparse(tree)
        assert found or is_attribute, f"{path} has no {name}"
        nodes = [n for node in found if isinstance(node, ast.ClassDef) for n in node.body if isinstance(n, ast.FunctionDef)]


def test_projected_costs_are_what_the_script_prints():
    script = [sys.executable, str(ROOT / "scripts" / "project_cost.py")]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip()
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert all(table in page for table in printed.split("\n\n"))


def test_projected_cost_takes_what_the_bench_measured(tmp_path):
    row = {"part": "train", "seconds": 0.5, "precision": "bf16", "peak_share": 0.4, "peak_memory_mib": 900.0}
    found = {"rows": [{**row, "seconds": 9.0}, row], "recipe": {"model.preset": "tiny", "model.image_size": 64}}
    (tmp_path / "speed.json").write_text(json.dumps(found))
    script = [sys.executable, str(ROOT / "scripts" / "project_cost.py"), "--measured", str(tmp_path / "speed.json")]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    hours = 30_000 * 64 * 0.5 / 3600
    assert lines[2].startswith(f"| `tiny`, 64x64, bf16 | 2.00 | 40 % | 900 | {hours:.3g} |")
    (tmp_path / "speed.json").write_text(json.dumps({"rows": [], "recipe": {}}))
    failed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "run python -m bench --only train" in failed.stderr
