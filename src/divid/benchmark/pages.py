"""Pages made of headings, paragraphs, tables and pictures, as Markdown and as HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #202124; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #dadce0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { background: #f1f3f4; } img { max-width: 100%; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading.

    Args:
        text: One line.
        level: 1 is the page's title.
    """

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Args:
        text: Plain text.
    """

    text: str


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        columns: Headings.
        rows: Cells, as many as headings; the first one names the row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        path: A PNG file beside the page.
        text: What it shows.
    """

    path: Path
    text: str


@dataclass(frozen=True)
class Links:
    """A paragraph of links.

    Args:
        text: Plain text before them.
        paths: Files by what the link to each is called, seen from the page's folder, with `/` between their parts.
    """

    text: str
    paths: Mapping[str, str]


Block = Heading | Paragraph | Table | Picture | Links


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write a page as Markdown, with its pictures as links.

    Args:
        blocks: From top to bottom.
    """
    return "\n\n".join(_as_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Write a page as HTML in one file, its pictures in it.

    Args:
        blocks: From top to bottom.
    """
    title = html.escape(next((block.text for block in blocks if isinstance(block, Heading)), ""))
    body = "\n".join(_as_html(block) for block in blocks)
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}<title>{title}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _as_markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Picture):
        return f"![{block.text}]({block.path.name})"
    if isinstance(block, Links):
        links = (f"[{_escaped(name, '[]')}]({quote(path)})" for name, path in block.paths.items())
        return f"{block.text} {', '.join(links)}"
    lines = [block.columns, ["---", *["---:"] * (len(block.columns) - 1)], *block.rows]
    return "\n".join(f"| {' | '.join(_escaped(cell, '|') for cell in line)} |" for line in lines)


def _escaped(text: str, signs: str) -> str:
    return "".join(f"\\{sign}" if sign in signs else sign for sign in text)


def _as_html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.path.read_bytes()).decode()
        return f'<p><img src="data:image/png;base64,{data}" alt="{html.escape(block.text)}"></p>'
    if isinstance(block, Links):
        links = (f'<a href="{quote(path)}">{html.escape(name)}</a>' for name, path in block.paths.items())
        return f"<p>{html.escape(block.text)} {', '.join(links)}</p>"
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.columns)
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in block.rows]
    rows = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
