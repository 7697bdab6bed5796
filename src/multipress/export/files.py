"""What an export is as files: where each format lies in the folder, and how it is opened again.

Names are those of sentence-transformers, or formed as it forms them where it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from multipress.artifact import Artifact
from multipress.block_shapes import cut
from multipress.errors import InputError, SettingError
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import unrounded_graph
from multipress.runtime.products import has_exact_products
from multipress.runtime.session import OnnxSession, OpenVinoSession, Session

__all__ = ["FORMATS", "OPENVINO_VNNI_FILE", "VNNI_FILE", "Export", "exports_in", "known_exports", "read_export"]

# Format and precision to the model's file; an OpenVINO model has a second one, ending in .bin.
_FILES = {
    ("onnx", "fp32"): "onnx/model.onnx",
    ("onnx", "int8"): "onnx/model_qint8.onnx",
    ("openvino", "fp32"): "openvino/openvino_model.xml",
    ("openvino", "bf16"): "openvino/openvino_model_bf16.xml",
    ("openvino", "int8"): "openvino/openvino_model_qint8_quantized.xml",
    ("safetensors", "fp32"): "model.safetensors",
}
VNNI_FILE = "onnx/model_qint8_avx512_vnni.onnx"  # as sentence-transformers names it
OPENVINO_VNNI_FILE = "openvino/openvino_model_qint8_avx512_vnni.xml"
FORMATS = tuple(dict.fromkeys(name for name, _ in _FILES))


@dataclass(frozen=True)
class Export:
    """One format in one precision.

    Args:
        to: `onnx`, `openvino` or `safetensors`.
        precision: `fp32`, `int8` or `bf16`.
        reduced_range: Whether 8-bit weights in ONNX's int8 are rounded once more, to 7 bits, which processors without
            VNNI multiply faster.
        vnni: Whether all weights in ONNX's int8 are signed: on processors with VNNI their products take up to a third
            of the time; on others sums would be cut off. In OpenVINO's int8 whether its products are of integers too,
            which needs static scales of activations.

    Raises:
        SettingError: there is no such export.
    """

    to: str
    precision: str
    reduced_range: bool = False
    vnni: bool = False

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            raise SettingError(f"--to is {self.to!r}; there are: {', '.join(FORMATS)}.")
        if (self.to, self.precision) not in _FILES:
            known = [precision for name, precision in _FILES if name == self.to]
            raise SettingError(f"{self.to} is not written in {self.precision!r}; there are: {', '.join(known)}.")
        if self.reduced_range and (self.to, self.precision) != ("onnx", "int8"):
            raise SettingError("--reduced-range goes with --to onnx --precision int8 only.")
        if self.vnni and (self.to == "safetensors" or self.precision != "int8" or self.reduced_range):
            raise SettingError("--vnni goes with --precision int8 only, and not with --reduced-range.")

    @property
    def file(self) -> str:
        """The model's file inside the folder."""
        if self.vnni:
            return VNNI_FILE if self.to == "onnx" else OPENVINO_VNNI_FILE
        return _FILES[self.to, self.precision]

    @property
    def files(self) -> list[str]:
        """All files of the model inside the folder."""
        return [self.file, *([str(Path(self.file).with_suffix(".bin"))] if self.to == "openvino" else [])]

    def is_rounded(self, artifact: Artifact) -> bool:
        """Whether its numbers are not the artifact's.

        Where the artifact rounds activations, stock code that loads a dense twin does not, and OpenVINO, which adds
        in another order, rounds some to the other side.
        """
        return self.precision != "fp32" or (self.to != "onnx" and artifact.rounds_activations)


def known_exports() -> list[Export]:
    """Every export that has a file of its own."""
    return [*(Export(*key) for key in _FILES), *(Export(to, "int8", vnni=True) for to in ("onnx", "openvino"))]


def exports_in(folder: Path) -> list[Export]:
    """The exports that a folder holds."""
    return [export for export in known_exports() if (folder / export.file).is_file()]


def read_export(folder: Path, export: Export, artifact: Artifact, threads: int = 1) -> Session:
    """Open an exported model.

    Args:
        folder: Where it was written.
        export: Which of the models there.
        artifact: The one it was made of. A dense file of weights has no graph of its own: the artifact's is used,
            without what rounds activations, which stock code does not.
        threads: Threads to compute with.

    Raises:
        InputError: there is no such file, or this processor cannot compute it exactly.
        ArtifactError: it cannot be opened.
        MissingExtraError: OpenVINO is needed and not installed.
    """
    path = folder / export.file
    if not path.is_file():
        raise InputError(f"{folder} holds no {export.file}. Write it with `multipress export`.")
    if export.vnni and not has_exact_products():
        raise InputError(
            f"{export.file} is for processors with VNNI; on this one sums would be cut off, so that it cannot be "
            "compared. Write and measure it on a computer that has VNNI, or leave out --vnni."
        )
    if export.to == "openvino":
        return OpenVinoSession(path, threads=threads, precision=export.precision)
    if export.to == "onnx":
        return OnnxSession(path, threads=threads)
    graph, weights = unrounded_graph(read_graph(artifact.graph())), cut(load_file(path), artifact.config)
    return OnnxSession(write_graph(graph), {name: weights[name] for name in graph.weights}, threads=threads)
