"""Write the pages that come from the code: `python docs/generate.py`; `--check` only compares them.

`docs/methods.md` comes from the methods' cards, `docs/cli.md` from `--help`, and the tables between the
README's result marks from `results/<grid>/analysis.json`, which `multipress analyze DIR --json` printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from multipress.cli.list import CARD_SECTIONS, method_card
from multipress.cli.main import app
from multipress.methods import list_methods

ROOT = Path(__file__).parents[1]
MARKS = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)
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
    rows = [f"- `{name}` = `{json.dumps(default)}`: {told[name]}" for name, default in card["settings"].items()]
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


def readme_page() -> str:
    """The README with the tables of all published grids between its marks."""
    tables = []
    for path in sorted(ROOT.glob("results/*/analysis.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        tables += list(_results(path.parent.name, document["groups"]))
    text = "".join(f"\n{table}\n" for table in tables)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page, count = MARKS.subn(lambda marks: f"{marks[1]}{text}{chr(10) if text else ''}{marks[2]}", readme)
    if count != 1:
        raise SystemExit("README.md needs the marks results:begin and results:end once.")
    return page


def _results(grid: str, groups: list[dict[str, Any]]) -> Iterator[str]:
    """For each model of a grid a title and a table: one row a recipe, per task score, size and ratio."""
    tasks = list(dict.fromkeys(group["task"] for group in groups))
    for model in dict.fromkeys(group["model"] for group in groups):
        own = [group for group in groups if group["model"] == model]
        runs = {group["score"]["n"] for group in own}
        seeds = f"mean of {max(runs)} runs ± standard deviation" if max(runs) > 1 else "one run"
        yield f"**{model}** ([`results/{grid}`](results/{grid}); {seeds}; Δ against dense)"
        head = [
            "methods",
            *(f"{task} {name}" for task in tasks for name in ("score", "Δ", "ideal, weights MB", "×")),
        ]
        rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
        for label in dict.fromkeys(group["label"] for group in own):
            by_task = {group["task"]: group for group in own if group["label"] == label}
            rows.append([label, *(cell for task in tasks for cell in _result(by_task.get(task)))])
        yield "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _result(group: dict[str, Any] | None) -> list[str]:
    """Score, change against dense, both sizes in MB, and how many times smaller than dense fp32 on disk."""
    if group is None:
        return ["not run", "", "", ""]
    score, change, sizes = group["score"], group["change"], group["sizes"]
    if score["mean"] is None:
        return ["failed" if group["num_failed"] else "waiting", "", "", ""]
    spread = "" if score["sd"] is None else f" ± {score['sd']:.3f}"
    failed = f" ({group['num_failed']} failed)" if group["num_failed"] else ""
    return [
        f"{score['mean']:.3f}{spread}{failed}",
        "" if change["mean"] is None else f"{change['mean']:+.3f}",
        f"{sizes['ideal_bytes'] / 1e6:.2f}, {sizes['weights_bytes'] / 1e6:.2f}",
        f"{group['ratio']:.1f}",
    ]


def main() -> int:
    """Write the pages, or with `--check` compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check = parser.parse_args().check
    stale = []
    pages = {"docs/methods.md": methods_page, "docs/cli.md": cli_page, "README.md": readme_page}
    for name, page in pages.items():
        path, text = ROOT / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: {'stale; run `make docs`' if check else 'written'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
