"""The model card of an artifact: a README with what a hub reads (`model-index`) and what a person asks first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multipress.artifact import Artifact
from multipress.plain_text import megabytes
from multipress.records import Measurement

__all__ = ["Recalls", "model_card"]

_MOST_CLASSES = 20  # of more, those that lost most are shown


@dataclass(frozen=True)
class Recalls:
    """Share of each class's validation rows that were found.

    Args:
        after: By class, of the artifact; NaN for a class without rows.
        before: By class, of the dense control of the same model, task and seed; empty where it is not known.
        dense_score: The dense control's score; None where it is not known.
        dense: What has that score, in words.
    """

    after: Mapping[str, float]
    before: Mapping[str, float] = field(default_factory=dict)
    dense_score: float | None = None
    dense: str = "the dense control"


def _kind(task: Mapping[str, Any]) -> str:
    """The hub's name for what the model does."""
    return "translation" if task["target"] == "text" else "text-classification"


_UNLABELLED = {"classes": "none", "number": "a number", "text": "none, it writes text"}


def _on_dropped_words(measurements: Sequence[Measurement], task: Mapping[str, Any]) -> list[str]:
    """The score on rows with words that the tokenizer has lost."""
    return [
        f"| {task['score']} on the {row.context['rows']} rows with words that were dropped | {row.value:.4f} |"
        for row in measurements
        if row.name == "score_dropped_words"
    ]


def model_card(  # noqa: PLR0913 - what a card tells of, by name
    artifact: Artifact,
    measurements: Sequence[Measurement],
    command: str,
    recalls: Recalls | None = None,
    computer: Mapping[str, Any] | None = None,
    made_of: str = "",
    about: str = "",
) -> str:
    """A model card as Markdown with a YAML head.

    Args:
        artifact: The artifact, opened.
        measurements: Its quality and sizes, and its latency where it was timed; `agreement` in place of the quality
            where there were no labels.
        command: The commands that make it again, one a line.
        recalls: Of each class, where there are classes.
        computer: Where the score was computed; None where it is not known.
        made_of: What the user calls the model that it was made of, where the run has a name of its own for it.
        about: A sentence on how it was found; empty: none.
    """
    values = {row.name: row.value for row in measurements if not _is_in_integers(row)}
    rows = next((row.context.get("rows") for row in measurements if row.name == "score"), None)
    name = made_of or str(artifact.facts["spec"]["model"])
    facts = artifact.facts
    task = facts["task"]
    metrics = [name for name in dict.fromkeys([task["score"], *task["metrics"]]) if name in values]
    example = '["a first text"], ["a second text"]' if task.get("is_pair") else '["a text"]'
    lines = [
        "---",
        "library_name: multipress",
        f"pipeline_tag: {_kind(task)}",
        "tags: [multipress, compressed]",
        *_model_index(name, task, metrics, values),
        "---",
        "",
        f"# {_plain(name)}, fine-tuned on {_plain(_rows_name(task))}, stored by multipress",
        "",
        f"Recipe: {_recipe(facts['spec']['methods'])}. Run `{facts['run_id']}`, seed {facts['spec']['seed']}.",
        _training(facts["spec"]["training"]),
        *([_plain(about)] if about else []),
        "",
        *_speedup(facts["spec"]["methods"]),
        "| what | value |",
        "|---|---|",
        *(f"| {metric} ({rows} rows) | {values[metric]:.4f} |" for metric in metrics),
        *_on_dropped_words(measurements, task),
        *_intervals_and_integers(measurements, task),
        *_agreement(measurements),
        f"| weights | {megabytes(values['weights_bytes'])} |",
        f"| whole package | {megabytes(values['package_bytes'])} |",
        f"| all weights, dropped words counted, as float32 | {megabytes(values['dense_bytes'])} |",
        *_ideal_size(facts["spec"]["methods"], values["ideal_bytes"]),
        *_against_dense(recalls, values, task),
        *(_latency(row) for row in measurements if row.name == "latency_p50_ms"),
        "",
        f"{'Translate' if task['target'] == 'text' else 'Predict without torch'}:",
        "",
        "```python",
        "import multipress as mp",
        "",
        'predictor = mp.open("this/folder")',
        f"print(predictor({example}))",
        "```",
        "",
        "transformers opens it too, after `import multipress.huggingface`.",
        "",
        "Made by:",
        "",
        "```",
        command.replace("`", "'"),
        "```",
        "",
        f"Labels: {', '.join(_plain(label) for label in task['labels']) or _UNLABELLED[task['target']]}.",
        f"Texts longer than {facts['max_length']} tokens are cut.",
        *_instructions(computer),
        "",
        *(_recall_lines(recalls) if recalls else []),
        "Limits: the numbers are those of one seed on the rows named above; another seed or other rows give",
        "others. Predictions are computed in 32-bit floats; fewer bytes alone do not make the model faster. Text",
        "unlike the training rows was not tested, nor was the model tested for bias.",
        *([] if any(row.name == "latency_p50_ms" for row in measurements) else ["Latency was not measured."]),
        "",
    ]
    return "\n".join(lines)


_OWN_ROWS = "text"  # name of a task whose rows are the user's


def _rows_name(task: Mapping[str, Any]) -> str:
    return "own rows" if task["name"] == _OWN_ROWS else str(task["name"])


def _is_in_integers(row: Measurement) -> bool:
    return row.context.get("precision") == "int8" and not row.name.startswith("latency")


def _intervals_and_integers(measurements: Sequence[Measurement], task: Mapping[str, Any]) -> list[str]:
    """The interval of the score where it is known, and the score by integers, whose latency is another too."""
    lines = []
    for row in measurements:
        if row.name == task["score"] and "low" in row.context:
            ends = f"{row.context['low']:.4f} to {row.context['high']:.4f}"
            if _is_in_integers(row):
                lines.append(f'| {row.name} in integers: `precision="int8"` | {row.value:.4f}, {ends} |')
            else:
                lines.append(f"| {row.name}, 95 % interval | {ends} |")
    return lines


def _ideal_size(methods: Sequence[Mapping[str, Any]], size: float) -> list[str]:
    """The papers' formula; it says nothing of weights that an entropy coder stores in fewer bits than it counts."""
    if any(method["settings"].get("rate") or method["settings"].get("rate_weight") for method in methods):
        return []
    return [f"| ideal size (bits times weights left) | {megabytes(size)} |"]


def _agreement(measurements: Sequence[Measurement]) -> list[str]:
    """Where no true labels were there, only the agreement with the model that was compressed is known."""
    return [
        f"| agreement with the model before, on {row.context['rows']} texts without labels | {row.value:.4f} |"
        for row in measurements
        if row.name == "agreement"
    ]


def _instructions(computer: Mapping[str, Any] | None) -> list[str]:
    if computer is None:
        return []
    names = ", ".join(map(str, computer.get("instruction_sets", []))) or "none that matter"
    cpu = str(computer.get("cpu", "unknown CPU"))
    return [
        f"The score was computed on {_plain(cpu)}; instruction sets: {_plain(names)}.",
        "Integer products are exact with and without VNNI: another processor gives the same labels, but where two",
        "classes are as good as equal.",
    ]


def _training(how: Mapping[str, Any]) -> str:
    """How long and how fast it was trained: what is needed to train it again."""
    step = f"{how['batch_tokens']} tokens" if how.get("batch_tokens") else f"{how['batch_size']} rows"
    return f"Epochs: {how['epochs']}; highest learning rate: {how['learning_rate']:g}; a step: {step}."


def _speedup(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """For which speed-up the shape was chosen, where one was asked for; the latency itself is in the table."""
    found = [method["settings"] for method in methods if method["settings"].get("speedup") is not None]
    if not found:
        return []
    text = (
        "Its shape was chosen by measured times to be {speedup:g} times as fast as the whole encoder at {batch} x "
        "{length} tokens: {heads:.0%} of the heads and {neurons:.0%} of the neurons are gone."
    )
    return [text.format(**found[0]), ""]


def _against_dense(recalls: Recalls | None, values: Mapping[str, float], task: Mapping[str, Any]) -> list[str]:
    if recalls is None or recalls.dense_score is None or "score" not in values:
        return []
    change = values["score"] - recalls.dense_score
    return [f"| {task['score']} of {recalls.dense} | {recalls.dense_score:.4f} (this one {change:+.4f}) |"]


def _latency(row: Measurement) -> str:
    context, computer = row.context, row.context.get("computer", {})
    where = f"{context.get('threads')} thread(s), {_plain(computer.get('cpu', 'unknown CPU'))}"
    where += ', in integers: `precision="int8"`' if context.get("precision") == "int8" else ""
    return f"| latency, {context.get('batch_size')} x {context.get('length')} tokens ({where}) | {row.value:.2f} ms |"


def _recall_lines(recalls: Recalls) -> list[str]:
    """A table of the classes; of many, of those that lost most, or without a dense control are found least."""
    known = [name for name, value in recalls.after.items() if not math.isnan(value)]
    order = sorted(known, key=lambda name: recalls.after[name] - recalls.before.get(name, 0.0))
    shown = known if len(known) <= _MOST_CLASSES else order[:_MOST_CLASSES]
    head = ["class", *(["recall before", "after", "change"] if recalls.before else ["recall"])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name in shown:
        after, before = recalls.after[name], recalls.before.get(name)
        numbers = [f"{after:.3f}"] if before is None else [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
        lines.append(f"| {' | '.join([_plain(name), *numbers])} |")
    most = "lost most" if recalls.before else "are found least"
    which = f"the {_MOST_CLASSES} of {len(known)} classes that {most}" if len(shown) < len(known) else "every class"
    text = f"Recall of {which}, " + (f"before ({recalls.dense}) and after:" if recalls.before else "after:")
    return [text, "", *lines, ""]


def _model_index(name: str, task: dict[str, Any], metrics: list[str], values: dict[str, float]) -> list[str]:
    # JSON strings are YAML strings, so nothing in a name can break out of its place.
    if not metrics:
        return []
    dataset = json.dumps(_rows_name(task))
    lines = [
        "model-index:",
        f"- name: {json.dumps(name)}",
        "  results:",
        f"  - task: {{type: {_kind(task)}}}",
        f"    dataset: {{name: {dataset}, type: {dataset}}}",
        "    metrics:",
    ]
    return lines + [f"    - {{type: {name}, value: {values[name]:.6f}}}" for name in metrics]


def _recipe(methods: list[dict[str, Any]]) -> str:
    described = []
    for method in methods:
        settings = ", ".join(f"{key} {value}" for key, value in sorted(method["settings"].items()))
        described.append(f"{method['name']} ({settings})")
    return "; ".join(described) or "none (dense)"


def _plain(text: str) -> str:
    """A text without what Markdown or HTML would read as more than text."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else " " if c in "\r\n" else c for c in str(text))
