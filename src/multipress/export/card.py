"""The card of a folder of exports: what each file is, how far it is from its artifact, and how to open it."""

from __future__ import annotations

from typing import Any

from multipress.artifact import Artifact
from multipress.export.files import OPENVINO_VNNI_FILE, VNNI_FILE
from multipress.measure.parity import Parity
from multipress.runtime.graph_file import read_graph
from multipress.runtime.tokenizer import TextEncoder

__all__ = ["export_card"]

_INTEGERS = """\
Linear layers multiply the stored integers (of weights stored as floats or in groups: integers rounded from them, one
scale a row) with activations rounded to 8 bits, with one scale a token or, where the training fixed it, one a layer.
Without VNNI too no sum is cut off: weights beyond 7 bits are unsigned."""
_SIGNED = """\
The same, all weights signed, for processors with VNNI alone: on others sums are cut off, and answers are wrong."""

_TWIN_OF_ROUNDED = """\
The artifact rounds what goes into its linear layers to 8 bits and stock code does not: the answers below differ."""


def _openvino(file: str, hint: str) -> str:
    """How such a file is opened: without the hint OpenVINO takes bf16 for floats where the processor has it."""
    return f'openvino.Core().compile_model("openvino/{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})'


# Of each file how to open it, and what it holds.
_OPEN = {
    "model.safetensors": (
        'transformers.AutoModelForSequenceClassification.from_pretrained("this/folder")',
        "The dense twin: every weight as a 32-bit float.",
    ),
    "onnx/model.onnx": ('onnxruntime.InferenceSession("onnx/model.onnx")', "32-bit floats."),
    "onnx/model_qint8.onnx": ('onnxruntime.InferenceSession("onnx/model_qint8.onnx")', _INTEGERS),
    VNNI_FILE: (f'onnxruntime.InferenceSession("{VNNI_FILE}")', _SIGNED),
    "openvino/openvino_model.xml": (_openvino("openvino_model.xml", "f32"), "32-bit floats."),
    "openvino/openvino_model_bf16.xml": (
        _openvino("openvino_model_bf16.xml", "bf16"),
        "16-bit floats in the file, bf16 products where the processor can.",
    ),
    "openvino/openvino_model_qint8_quantized.xml": (
        _openvino("openvino_model_qint8_quantized.xml", "f32"),
        "Weights as 8-bit integers with their scales; where the processor has VNNI, OpenVINO rounds activations too.",
    ),
    OPENVINO_VNNI_FILE: (
        _openvino("openvino_model_qint8_avx512_vnni.xml", "f32"),
        "Linear layers multiply integers, with the scales of the training; for processors with VNNI alone.",
    ),
}


def export_card(artifact: Artifact, report: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        artifact: The artifact.
        report: What `export.json` holds.
    """
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [multipress, compressed]",
        "---",
        "",
        f"# Exports of the multipress artifact of run `{report['artifact']['run_id']}`",
        "",
        *_use(artifact),
    ]
    for file, entry in report["models"].items():
        how, what = _OPEN[file]
        size = sum(part["bytes"] for part in entry["files"].values())
        computer = entry["computer"]
        instructions = ", ".join(computer["instruction_sets"]) or "none that matter"
        lines += [f"## `{file}`", "", f"{what} {size / 1e6:.2f} MB.", ""]
        if entry["reduced_range"]:
            lines += ["Its 8-bit weights were rounded once more, to 7 bits (reduced range).", ""]
        if file.endswith(".safetensors") and artifact.rounds_activations:
            lines += [_TWIN_OF_ROUNDED, ""]
        lines += ["```python", how, "```", ""]
        lines += [f"Against the artifact, on {_plain(entry['compared_on'])}: {_parity(entry['parity'])}."]
        if entry.get("drift"):
            lines += [f"**It does not give the artifact's answers**: {'; '.join(entry['drift'])}."]
        if entry["rival"] is not None:
            lines += [f"ONNX Runtime's dynamic int8 of the same model: {_parity(entry['rival'])}."]
        lines += [f"Compared on {_plain(computer['cpu'])}; instruction sets: {instructions}.", ""]
    return "\n".join(lines)


def _use(artifact: Artifact) -> list[str]:
    """What every one of these files reads and gives."""
    length, task = int(artifact.facts["max_length"]), artifact.facts["task"]
    encoder = TextEncoder(artifact.tokenizer_json(), length)
    inputs = ", ".join(f"`{name}`" for name in read_graph(artifact.graph()).inputs)
    labels = ", ".join(_plain(label) for label in task["labels"])
    gives = (
        f"one logit for each label, in this order: {labels}; a softmax makes shares of them" if labels else "a number"
    )
    text = "(first, second)" if task.get("is_pair") else "text"
    return [
        f"The model reads int64 arrays of rows and tokens, {inputs}, and gives float32 `logits` of each row: {gives}.",
        f"Texts are cut at {length} tokens; more the model may not be able to read.",
        "",
        "```python",
        'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")',
        f"tokenizer.enable_truncation({length})",
        f"tokenizer.enable_padding(pad_id={encoder.pad_id})",
        f"rows = tokenizer.encode_batch([{text}, ...])  # ids, attention_mask and type_ids of each",
        "```",
        "",
    ]


def _parity(record: dict[str, Any]) -> str:
    return Parity(**record).describe()


def _plain(text: str) -> str:
    """A text without what Markdown or HTML would read as more than text."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else " " if c in "\r\n" else c for c in str(text))
