"""Write the pages that come from the code: `python docs/generate.py`; `--check` only compares them.

`docs/methods.md` comes from the methods' cards, `docs/cli.md` from `--help`, and `results/<grid>/tables.md` from
`results/<grid>/analysis.json`, which `multipress analyze DIR --json` printed; the tables between the README's result
marks are those of the grid with the most cells.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from typer.main import get_command

from multipress.analysis.verdict import told_ends, told_ratio
from multipress.cli.list import CARD_SECTIONS, method_card
from multipress.cli.main import app
from multipress.methods import list_methods
from multipress.report.text import points_text

ROOT = Path(__file__).parents[1]
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
    """The README with the overview of the largest published grid between its marks, and links to all."""
    grids = {path: json.loads(path.read_text(encoding="utf-8")) for path in _grids()}
    if not grids:
        return _between_marks("README.md", "results", [])
    largest = max(grids, key=lambda path: len(grids[path]["groups"]))
    links = {path: f"[`results/{path.parent.name}`](results/{path.parent.name}/tables.md)" for path in grids}
    others = ", ".join(links[path] for path in grids if path != largest)
    found = f"Grid: {links[largest]}{f'; others: {others}' if others else ''}."
    return _between_marks("README.md", "results", [found, *_overview(grids[largest], "")])


def _overview(document: dict[str, Any], root: str) -> Iterator[str]:
    """Scores and sizes by model, effects, and whether sizes multiply; `root` leads to the repository's root."""
    yield from _summary(document["groups"])
    yield from _effects(document["intervals"])
    yield from _products(document["multiplicativity"], f"{root}docs/multiplicativity.md")


def _between_marks(name: str, mark: str, parts: list[str]) -> str:
    """A page with these parts between its marks."""
    text = "".join(f"\n{part}\n" for part in parts)
    marks = re.compile(rf"(<!-- {mark}:begin -->\n).*?(<!-- {mark}:end -->)", re.DOTALL)
    old = (ROOT / name).read_text(encoding="utf-8")
    page, count = marks.subn(lambda found: f"{found[1]}{text}{chr(10) if text else ''}{found[2]}", old)
    if count != 1:
        raise SystemExit(f"{name} needs the marks {mark}:begin and {mark}:end once.")
    return page


def coverage_page() -> str:
    """The page on multiplicativity with how often the intervals held in the simulations, between its marks."""
    head = ["planted", "seeds", "rows", "", "effects", "for other tasks", "mixed model", "net ratio", "for other tasks"]
    rows = [[*head, "grids with a false verdict", "a false sign"], ["---"] * 4 + ["---:"] * 7]
    kinds = ("rows and seeds", "tasks", "mixed model", "net ratio", "net ratio, tasks")
    for path in sorted(ROOT.glob("results/coverage*.json"), key=lambda path: len(path.name)):
        document = json.loads(path.read_text(encoding="utf-8"))
        how = document["settings"]
        more = [f"teachers' luck {how['teacher']:g}"] if how["teacher"] else []
        more += [f"tasks differ by {how['between_tasks']:g}"] if how["between_tasks"] else []
        more += [f"{how['fewer']} seed in half the models"] if how["fewer"] else []
        for truth in ("multiplicative", "super", "sub"):
            one = document[truth]
            shares = [*(one["coverage"][kind] for kind in kinds), one["grids_with_a_false_verdict"]]
            told = [f"{100 * share:.1f} %" for share in [*shares, one["grids_with_a_false_sign"]]]
            rows.append([truth, str(how["seeds"]), f"{how['rows']:,}", ", ".join(more), *told])
    return _between_marks("docs/multiplicativity.md", "coverage", [_markdown(rows)])


def _grids() -> list[Path]:
    return sorted(ROOT.glob("results/*/analysis.json"))


def tables_page(path: Path) -> str:
    """The overview of a published grid, then all its cells."""
    document = json.loads(path.read_text(encoding="utf-8"))
    parts = [f"# {path.parent.name}", *_overview(document, "../../"), *_results(document["groups"])]
    return "\n\n".join(parts) + "\n"


def _summary(groups: list[dict[str, Any]]) -> Iterator[str]:
    """One row a recipe, for each model the mean over tasks: score, change against dense, and both sizes."""
    tasks = list(dict.fromkeys(group["task"] for group in groups))
    largest = {group["model"]: group["sizes"]["dense_bytes"] or 0 for group in groups}
    models = sorted(largest, key=lambda model: -largest[model])
    yield f"Mean score over {', '.join(tasks)}; change against dense in points; MB of weights, ideal/on disk:"
    rows = [["methods", *models], ["---"] + ["---:"] * len(models)]
    for label in dict.fromkeys(group["label"] for group in groups):
        row = [label]
        for model in models:
            own = [group for group in groups if (group["model"], group["label"]) == (model, label)]
            own = [group for group in own if group["score"]["mean"] is not None and group["change"]["mean"] is not None]
            if len(own) < len(tasks):
                row.append("not all done")
                continue
            score, change = (fmean(group[key]["mean"] for group in own) for key in ("score", "change"))
            sizes = [fmean(group["sizes"][f"{size}_bytes"] for group in own) / 1e6 for size in ("ideal", "weights")]
            shown = "" if label == "dense" else f" ({100 * change:+.1f})"
            row.append(f"{score:.3f}{shown}, {sizes[0]:.1f}/{sizes[1]:.1f}")
        rows.append(row)
    yield _markdown(rows)


def _effects(intervals: dict[str, Any]) -> Iterator[str]:
    """The mean effect of each method, and of several beyond the sum, with its interval."""
    rows = [row for row in intervals["rows"] if row["by"] == "all"]
    if not rows:
        return
    level = f"{100 * intervals['level']:g}"
    covers = min((row["covers"] for row in rows), key=len)
    yield (
        f"Effect on the score in points, with {level} % intervals over {covers} and "
        "chances corrected for their number (A x B: what both do beyond the sum; a block is one model, task and seed):"
    )
    lines = [["effect", "mean", f"{level} % interval", "p", "blocks"], ["---", "---:", "---:", "---:", "---:"]]
    for row in rows:
        mean, low, high = (points_text(row[key]) for key in ("mean", "low", "high"))
        lines.append(
            [
                " x ".join(row["levels"]),
                mean,
                f"{low} to {high}",
                "< .01" if row["p_holm"] < 0.01 else f"{row['p_holm']:.2f}",
                str(row["num_blocks"]),
            ]
        )
    yield _markdown(lines)


def _products(factors: dict[str, Any], page: str) -> Iterator[str]:
    """Observed over product by both estimators on both sizes, with intervals."""
    rows = {(one["size"], one["estimator"], tuple(one["methods"])): one for one in factors["products"]}
    if not rows:
        return
    yield (
        f"Size reduction together over the product of each alone, at a drop of {factors['tolerance']:g}: geometric "
        "means over pairs of model and task that have all factors, with intervals over rows and seeds on these tasks; "
        f"interpolated ones net of what the drop alone gives ([what this means]({page})):"
    )
    places = [
        (size, estimator) for size in ("ideal_bytes", "weights_bytes") for estimator in ("discrete", "interpolated")
    ]
    names = [f"{estimator}, {'ideal' if size == 'ideal_bytes' else 'on disk'}" for size, estimator in places]
    lines = [["methods", *names], ["---"] + ["---:"] * len(names)]
    lines += [
        [" + ".join(methods), *(_product(rows[size, kind, methods]) for size, kind in places)]
        for methods in dict.fromkeys(key[2] for key in rows)
    ]
    yield _markdown(lines)


def _product(one: dict[str, Any]) -> str:
    ratio, low, high = told_ratio(one)
    pairs = f"{one['num_values']}/{one['num_values'] + one['num_left_out']}"
    if ratio is None:
        return f"only bounds ({pairs})"
    ends = f" [{', '.join(told_ends(low, high))}]" if one["covers"] else ""
    return f"{ratio:.2f}{ends} ({pairs})"


def _results(groups: list[dict[str, Any]]) -> Iterator[str]:
    """For each model of a grid a title and a table: one row a recipe, per task score, size and ratio."""
    tasks = list(dict.fromkeys(group["task"] for group in groups))
    for model in dict.fromkeys(group["model"] for group in groups):
        own = [group for group in groups if group["model"] == model]
        runs = {group["score"]["n"] for group in own}
        seeds = f"Mean of {max(runs)} runs ± standard deviation" if max(runs) > 1 else "One run"
        yield f"## {model}\n\n{seeds}; Δ against dense."
        head = [
            "methods",
            *(f"{task} {name}" for task in tasks for name in ("score", "Δ", "ideal, weights MB", "×")),
        ]
        rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
        for label in dict.fromkeys(group["label"] for group in own):
            by_task = {group["task"]: group for group in own if group["label"] == label}
            rows.append([label, *(cell for task in tasks for cell in _result(by_task.get(task)))])
        yield _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
    pages["docs/multiplicativity.md"] = coverage_page
    pages |= {str(grid.parent.relative_to(ROOT) / "tables.md"): partial(tables_page, grid) for grid in _grids()}
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
