"""The parts of the page about what methods do: effects, products, shares, and what to add next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from multipress.analysis.cells import DENSE
from multipress.analysis.verdict import told_ends, told_ratio
from multipress.report.controls import option, radios
from multipress.report.sections import html_row, html_table
from multipress.report.text import NONE, escaped, megabytes, points_text

__all__ = ["effects_section", "products_section", "shares_section"]

_MINUS = "\N{MINUS SIGN}"
_EFFECTS_NOTE = (
    "One name: score with it less dense. With ×: what they do together beyond the sum of their own effects; 0 means "
    "that they simply add up. Bars are {level:g} % intervals over {covers}; a filled dot is settled after correction "
    "for the number of effects (Holm)."
)
_TABLE_NOTE = (
    "A block is one model, task and seed; <em>missing</em> blocks lack a cell that is not done. <em>Other tasks</em>: "
    "the interval if these tasks are a sample of many. <em>Mixed</em>: by a mixed model over tasks, models and seeds; "
    "too narrow where tasks differ and are few. "
    "<em>Seeds more</em>: how many would settle the sign if the mean stayed; a dash: unknown with one seed, or more "
    "than 100, so that more validation rows are needed."
)
_PRODUCTS_NOTE = (
    "Right of 1, methods together shrink a model more than the product of each alone, at a score within {drop} of "
    "dense. <em>Discrete</em> takes the smallest stored model that is good enough, as the paper does: a step function, "
    "far from 1 also where reductions multiply, so that it gets no verdict; <em>interpolated</em> draws a line between "
    "neighboring models, and its ratio is shown net of what the drop alone gives dense models. Geometric means over "
    "pairs of model and task all of whose factors are values, not bounds. Bars are {level:g} % intervals over "
    "{covers}; <em>other tasks</em> in the numbers is the interval, of the net ratio where there is one, if these "
    "tasks are a sample of many."
)
_DROPS_NOTE = (
    "The interpolated net ratio at other drops: an answer that changes with the drop is no law. Bars are intervals as "
    "above, not corrected for their number."
)
_FACTORS_NOTE = (
    "≥ marks a bound: the smallest model is already good enough. It is never multiplied as a value; where it leaves "
    "one, the ratio is shown as a bound."
)
_SHARES_NOTE = (
    "Shapley shares: a method's mean effect over all orders of adding the methods. Shares of the log of the size "
    "reduction (real bytes) add up to 1, parts of the score to what the combination does."
)
_STEPS_NOTE = (
    "What adding one method does. A smaller dense model is the rival: halving the bytes that way costs {rate} points. "
    "<em>Net</em> is how many halvings a step is worth at an equal score, with its interval over models and tasks; "
    "marked steps are the way that always takes the largest."
)


def effects_section(analysis: Mapping[str, Any]) -> str:
    """What methods do to the score, alone and beyond the sum of what they do alone."""
    effects, intervals = analysis["interactions"], analysis["intervals"]["rows"]
    if not effects:
        return ""
    chart = ""
    if intervals:
        places = [(row["by"], row["where"]) for row in intervals]
        options = "".join(
            option(f"{by}\t{where}", "all blocks" if by == "all" else f"{by} {where}")
            for by, where in sorted(dict.fromkeys(places), key=lambda place: ("all", "model", "task").index(place[0]))
        )
        covers = _covered({row["covers"] for row in intervals})
        note = _EFFECTS_NOTE.format(level=100 * analysis["intervals"]["level"], covers=covers)
        chart = (
            f'<p class="note">{note}</p><label class="field">Over <select id="effects-of">{options}</select></label>'
            '<div id="effects" class="chart"></div>'
        )
    return (
        f"<section><h2>What the methods do to the score</h2>{chart}"
        f"<details{'' if intervals else ' open'}><summary>The numbers</summary>"
        f'<p class="note">{_TABLE_NOTE}</p>{_effects_table(analysis)}{_mixed_note(analysis["mixed_model"])}'
        f"</details>{_by_place(intervals)}</section>"
    )


def _covered(found: Collection[str]) -> str:
    if len(found) > 1:
        return "validation rows, and over seeds where there are several"
    return f"validation {next(iter(found))}" + (
        "" if "rows and seeds" in found else " (one seed: other trainings may differ)"
    )


def _effects_table(analysis: Mapping[str, Any]) -> str:
    sure = {tuple(row["levels"]): row for row in analysis["intervals"]["rows"] if row["by"] == "all"}
    mixed = {tuple(row["levels"]): row for row in analysis["mixed_model"]["rows"]}
    rows = []
    for one in analysis["interactions"]:
        key = tuple(one["levels"])
        row, fitted = sure.get(key), mixed.get(key)
        values = [" × ".join(key), _points(one["overall"]["mean"])]
        values += [_range(row and (row["low"], row["high"])), _range(row and row["tasks"])]
        values += [_range(fitted and (fitted["low"], fitted["high"])), f"{row['p_holm']:.3f}" if row else NONE]
        values += [NONE if not row or row["more_seeds"] is None else str(row["more_seeds"])]
        rows.append(html_row([*values, str(one["num_blocks"]), str(one["num_missing"])], 1))
    head = ["effect", "points", "interval", "other tasks", "mixed", "p (Holm)", "seeds more", "blocks", "missing"]
    return html_table(head, rows, 1)


def _by_place(intervals: Sequence[Mapping[str, Any]]) -> str:
    """The numbers behind the chart of one model's or one task's effects."""
    rows = [
        html_row(
            [
                f"{row['by']} {row['where']}",
                " × ".join(row["levels"]),
                _points(row["mean"]),
                _range((row["low"], row["high"])),
                f"{row['p_holm']:.3f}",
                str(row["num_blocks"]),
            ],
            2,
        )
        for row in sorted(intervals, key=lambda row: (row["by"], row["where"]))
        if row["by"] != "all"
    ]
    head = ["over", "effect", "points", "interval", "p (Holm)", "blocks"]
    return f"<details><summary>By model and by task</summary>{html_table(head, rows, 2)}</details>" if rows else ""


def _mixed_note(mixed: Mapping[str, Any]) -> str:
    if not mixed["rows"]:
        return f'<p class="note">No mixed model: {escaped(mixed["note"])}</p>'
    parts = ", ".join(f"{name} {100 * sd:.2f}" for name, sd in mixed["sd"].items())
    note = f" {mixed['note']}" if mixed["note"] else ""
    text = f"Mixed model of {mixed['num_cells']} cells; standard deviations in points: {parts}.{note}"
    return f'<p class="note">{escaped(text)}</p>'


def _points(value: float | None) -> str:
    return NONE if value is None else points_text(value).replace("-", _MINUS)


def _range(ends: Sequence[float] | None) -> str:
    return f"{_points(ends[0])} to {_points(ends[1])}" if ends else NONE


def products_section(analysis: Mapping[str, Any]) -> str:
    """Whether size reductions multiply, by both estimators, on both sizes."""
    factors = analysis["multiplicativity"]
    if not factors["products"]:
        return ""
    rows = []
    for one in factors["products"]:
        values = ["+".join(one["methods"]), one["size"].removesuffix("_bytes"), one["estimator"], one["verdict"]]
        values += [_number(one["ratio"]), _interval(one["low"], one["high"], one["covers"])]
        values += [_number(one["net_ratio"]), _interval(one["net_low"], one["net_high"], one["covers"])]
        values += [_interval(one["tasks_low"], one["tasks_high"], one["covers"])]
        values += [_number(one["p_holm"], 3), f"{one['num_values']} of {one['num_values'] + one['num_left_out']}"]
        rows.append(html_row(values, 4))
    head = ["methods", "size", "estimator", "verdict", "ratio", "interval", "net", "net interval", "other tasks"]
    head += ["p (Holm)", "pairs"]
    sizes = radios("product-size", {"weights_bytes": "real bytes", "ideal_bytes": "ideal sizes"})
    return (
        f'<section><h2>Do size reductions multiply?</h2><p class="note">{_products_note(analysis)}</p>'
        f'<fieldset class="switch"><legend>Size</legend>{sizes}</fieldset><div class="pair">'
        f'<div id="products" class="chart"></div><div><p class="note">{_DROPS_NOTE}</p>'
        '<div id="drops" class="chart"></div></div></div>'
        f"<details><summary>The numbers</summary>{html_table(head, rows, 4)}{_drops_table(factors['by_drop'])}"
        "</details>"
        f"<details><summary>Every factor</summary>{_factors(factors['rows'])}</details></section>"
    )


def _products_note(analysis: Mapping[str, Any]) -> str:
    factors = analysis["multiplicativity"]
    drop = f"{factors['tolerance']:g}{' times dense' if factors['relative'] else ''}"
    covers = _covered({one["covers"] for one in factors["products"] if one["covers"]} or {"rows"})
    return _PRODUCTS_NOTE.format(drop=drop, level=100 * analysis["intervals"]["level"], covers=covers)


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _interval(low: float | None, high: float | None, covers: str) -> str:
    """What is without bounds is shown so; without repetitions there is no interval."""
    if not covers:
        return NONE
    return " to ".join(told_ends(low, high))


def _drops_table(rows: Sequence[Mapping[str, Any]]) -> str:
    drops = list(dict.fromkeys(row["drop"] for row in rows))
    lines: dict[tuple[str, str, str], dict[float, str]] = {}
    for row in rows:
        key = ("+".join(row["methods"]), row["size"].removesuffix("_bytes"), row["estimator"])
        ratio, low, high = told_ratio(row)
        sure = f" ({_interval(low, high, row['covers'])})" if row["covers"] and ratio is not None else ""
        lines.setdefault(key, {})[row["drop"]] = f"{_number(ratio)}{sure}"
    head = ["methods", "size", "estimator", *(f"drop {drop:g}" for drop in drops)]
    return html_table(head, [html_row([*key, *(own[drop] for drop in drops)], 3) for key, own in lines.items()], 3)


def _factors(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        names = [
            row["task"],
            row["size"].removesuffix("_bytes"),
            row["estimator"],
            row["model"],
            "+".join(row["methods"]),
        ]
        alone = " × ".join(_factor(factor) for factor in row["singles"].values())
        numbers = [_number(row["product"]), _ratio(row), _number(row["net_ratio"])]
        if len(row["methods"]) == 1:
            alone, numbers = NONE, [NONE] * 3
        lines.append(html_row([*names, _factor(row["factor"]), alone, *numbers], 5))
    head = ["task", "size", "estimator", "model", "methods", "factor", "alone", "product", "ratio", "net"]
    return f'<p class="note">{_FACTORS_NOTE}</p>{html_table(head, lines, 5)}'


def _factor(factor: Mapping[str, Any]) -> str:
    if factor["value"] is None:
        return "not reached"
    return f"{'≥ ' if factor['kind'] == 'at least' else ''}{factor['value']:.2f}"


def _ratio(row: Mapping[str, Any]) -> str:
    low, high = row["bounds"]
    if row["ratio"] is not None:
        return f"{row['ratio']:.2f}"
    return f"≥ {low:.2f}" if low is not None else f"≤ {high:.2f}" if high is not None else NONE


def shares_section(analysis: Mapping[str, Any]) -> str:
    """Who earned what, and which method to add next."""
    shapley, priority = analysis["shapley"], analysis["priority"]
    if not shapley and not priority["steps"]:
        return ""
    return (
        f"<section><h2>Who earned it, and what to add next</h2>{_steps(priority)}"
        f"<details open><summary>Shapley shares</summary>{_shapley(shapley)}</details></section>"
    )


def _shapley(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return '<p class="note">No combination of two methods has all its subsets.</p>'
    lines = []
    for one in rows:
        shares = one["shares"]["weights_bytes"]
        for i, level in enumerate(one["levels"]):
            name = "+".join(one["levels"]) if i == 0 else ""
            share = NONE if shares is None else f"{round(100 * shares[i]) + 0:d} %".replace("-", _MINUS)
            factor = f"{one['factors']['weights_bytes'][i]:.2f}×"
            lines.append(html_row([name, level, factor, share, _points(one["score"][i])], 2, "" if i else "first"))
    table = html_table(["combination", "method", "smaller by", "share of size", "points"], lines, 2)
    return f'<p class="note">{_SHARES_NOTE}</p>{table}'


def _steps(priority: Mapping[str, Any]) -> str:
    rate = priority["exchange_rate"]
    said = "an unknown number of" if rate is None else f"{100 * rate:.2f}"
    lines = []
    for step in _on_the_way(priority["steps"]):
        ends = (
            NONE
            if step["net_low"] is None
            else f"{step['net_low']:+.2f} to {step['net_high']:+.2f}".replace("-", _MINUS)
        )
        net = NONE if step["net"] is None else f"{step['net']:+.2f}".replace("-", _MINUS)
        per_point = "none lost" if step["bytes_per_point"] is None else megabytes(max(step["bytes_per_point"], 0.0))
        saved = f"{100 * step['saved']:.1f} %".replace("-", _MINUS)
        base = "dense" if step["base"] == DENSE else step["base"]
        values = [base, step["add"], saved, _points(step["change"]), per_point, net, ends]
        lines.append(html_row(values, 2, "best" if step["is_chosen"] else ""))
    head = ["to", "add", "bytes saved", "points", "MB saved a point", "net", "interval"]
    return f'<p class="note">{_STEPS_NOTE.format(rate=said)}</p>{html_table(head, lines, 2)}'


def _on_the_way(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The steps from the combinations on the best way, in its order; without a way those from dense."""
    bases, here = [DENSE], DENSE
    while True:
        chosen = next((step for step in steps if step["is_chosen"] and step["base"] == here), None)
        if chosen is None:
            return [step for base in bases for step in steps if step["base"] == base]
        levels = [] if here == DENSE else here.split("+")
        here = next((s["base"] for s in steps if sorted(s["base"].split("+")) == sorted([*levels, chosen["add"]])), "")
        bases.append(here)
