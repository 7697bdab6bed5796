"""Tables whose cells are shaded by classes, and the notes above them, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from multipress.report.text import escaped

__all__ = ["note_html", "shaded", "shaded_table", "table_line"]

_SHADES = 10


def note_html(text: str) -> str:
    """A paragraph in small letters; the text comes as HTML."""
    return f'<p class="note">{text}</p>'


def shaded_table(head: Sequence[str], lines: Sequence[str]) -> str:
    """A table whose first column is text; cells come as HTML."""
    cells = "".join(f'<th scope="col"{_first(i)}>{escaped(name)}</th>' for i, name in enumerate(head))
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _first(column: int) -> str:
    return "" if column else ' class="text"'


def table_line(name: str, cells: Sequence[str]) -> str:
    """A line of a table; cells come as HTML."""
    return f'<tr><th scope="row" class="text">{escaped(name)}</th>{"".join(cells)}</tr>'


def shaded(value: float, light: float, dark: float, digits: int, title: str = "") -> str:
    """A cell whose shade says where its number lies on the way from one number to another."""
    shade = 0 if light == dark else round((value - light) / (dark - light) * (_SHADES - 1))
    tip = f' title="{escaped(title)}"' if title else ""
    return f'<td class="h{min(max(shade, 0), _SHADES - 1)}"{tip}>{value:.{digits}f}</td>'
