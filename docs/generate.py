"""Write the pages that come from the code: `python docs/generate.py`; `--check` only compares them.

`docs/methods.md` comes from the methods' cards, `docs/cli.md` from `--help`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from multipress.cli.list import CARD_SECTIONS, method_card
from multipress.cli.main import app
from multipress.methods import list_methods

DOCS = Path(__file__).parent
GENERATED = "<!-- Written by docs/generate.py; change the code, then run `make docs`. -->"


def methods_page() -> str:
    """The card of every method, in the order in which methods are prepared."""
    how = (
        "A method is given as `--method NAME` or `--method NAME:key=value,...`, or in a study's "
        "`[methods.NAME]`. `multipress list methods` prints the same cards."
    )
    parts = ["# Methods", GENERATED, how]
    for name in list_methods():
        parts += _card(method_card(name))
    return "\n\n".join(parts) + "\n"


def _card(card: dict[str, Any]) -> Iterator[str]:
    yield f"## {card['name']}"
    yield card["summary"]
    yield f"Stage: {card['stage']}. Version: {card['version']}."
    for title in CARD_SECTIONS:
        yield f"### {title}"
        if title == "Settings":
            yield _settings(card)
        else:
            yield card["sections"][title]


def _settings(card: dict[str, Any]) -> str:
    """A list: each setting, its default as the code has it, and what the card says of it."""
    told: dict[str, str] = {}
    for line in card["sections"]["Settings"].splitlines():
        name, colon, text = line.partition(": ")
        if colon and not line.startswith(" "):
            told[name] = text
        else:
            told[next(reversed(told))] += " " + line.strip()
    if set(told) != set(card["settings"]):
        raise SystemExit(
            f"The card of {card['name']} tells of the settings {sorted(told)}, "
            f"but the method has {sorted(card['settings'])}."
        )
    rows = [
        f"- `{name}` = `{json.dumps(default)}`: {told[name]}" for name, default in card["settings"].items()
    ]
    return "\n".join(rows)


def cli_page() -> str:
    """The help of the program and of each command."""
    parts = ["# Command line", GENERATED]
    for name, text in _help(get_command(app), "multipress"):
        parts += [f"## `{name}`", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def _help(command: Any, name: str) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=name, terminal_width=100, max_content_width=100)
    text = command.get_help(context)
    yield name, "\n".join(line.rstrip() for line in text.splitlines())
    for child in getattr(command, "commands", {}).values():
        yield from _help(child, f"{name} {child.name}")


def main() -> int:
    """Write the pages, or with `--check` compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check = parser.parse_args().check
    stale = []
    for name, text in (("methods.md", methods_page()), ("cli.md", cli_page())):
        path = DOCS / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"docs/: {', '.join(stale)} {'are stale; run `make docs`' if check else 'written'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
