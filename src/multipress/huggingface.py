"""Artifacts open in transformers: `import multipress.huggingface`, then `from_pretrained(folder)` and `pipeline()`.

transformers asks a quantizer for every model whose config has a `quantization_config`; importing this registers ours.
It decodes the stored tensors into a file of floats beside, which transformers then loads as any other, so that dtypes,
devices and tied weights are its own matter. What comes out is a plain model of floats: `save_pretrained` writes it as
the dense twin, which needs multipress no more, and does not round activations where the artifact does: that is warned
of. The tokenizer of an artifact is packed, for which transformers has no place: `AutoTokenizer.from_pretrained` looks
first whether a folder is an artifact.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from multipress.artifact import MANIFEST, METHOD, Artifact, is_artifacts, open_artifact
from multipress.block_shapes import padded
from multipress.errors import ArtifactError
from multipress.methods.quantization import quantize_activations
from multipress.runtime.graph_file import read_graph
from multipress.runtime.tokenizer import is_two_sided

__all__ = ["ArtifactConfig", "ArtifactQuantizer", "load_tokenizer"]


@register_quantization_config(METHOD)
class ArtifactConfig(QuantizationConfigMixin):
    """The `quantization_config` of an artifact's `config.json`.

    Args:
        quant_method: `multipress`.
        values: All other keys.
    """

    # The weights become floats, so the model that is loaded has no quantization of transformers' kind.
    dequantize = True

    def __init__(self, quant_method: str = METHOD, **values: Any) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]
        for key, value in values.items():
            setattr(self, key, value)


@register_quantizer(METHOD)
class ArtifactQuantizer(HfQuantizer):
    """Gives transformers the weights of an artifact as floats."""

    requires_calibration = True  # it only loads what was quantized before
    _decoded: tempfile.TemporaryDirectory[str] | None = None

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **_: Any
    ) -> None:
        """Changes `checkpoint_files` to name a file of floats.

        Raises:
            ArtifactError: the folder is no whole artifact.
        """
        if not checkpoint_files:
            raise ArtifactError("An artifact's weights are in its folder; from_pretrained was given others.")
        artifact = _artifact_of(Path(checkpoint_files[0]).parent)
        self._decoded = tempfile.TemporaryDirectory(prefix="multipress-")
        file = Path(self._decoded.name) / "model.safetensors"
        save_file(padded(artifact.dense_weights(), artifact.config), file, metadata={"format": "pt"})
        checkpoint_files[:] = [str(file)]

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        """Rounds activations where the training did; the file of floats is gone."""
        if self._decoded is not None:
            self._decoded.cleanup()
            self._decoded = None
        bits = getattr(self.quantization_config, "activation_bits", None)
        if bits is not None:
            quantize_activations(model, bits, getattr(self.quantization_config, "activation_scales", None))
            model.register_state_dict_pre_hook(_warn_of_saving)
        return model

    @property
    def is_trainable(self) -> bool:
        """Its floats can be trained on."""
        return True

    def is_serializable(self) -> bool:
        """It is saved as floats."""
        return True


def _warn_of_saving(*_: Any) -> None:
    warnings.warn(
        "This model rounds what goes into its linear layers to 8 bits, as its artifact does. What is saved are its "
        "weights alone: loaded from there it does not round, and its answers differ.",
        stacklevel=2,
    )


def load_tokenizer(folder: Path, **settings: Any) -> PreTrainedTokenizerFast:
    """An artifact's tokenizer as transformers uses it; texts are cut only if asked for (`truncation=True`).

    Args:
        folder: The artifact.
        settings: What transformers' own tokenizers are built with, such as `padding_side`.

    Raises:
        ArtifactError: it is a translator that writes in other pieces than it reads, for which transformers has no
            fast tokenizer.
    """
    artifact = open_artifact(folder)
    document = artifact.tokenizer_json()
    if is_two_sided(document):
        raise ArtifactError(
            f"{folder} writes in other pieces than it reads, and transformers' fast tokenizers have one kind. "
            "Translate with multipress.open."
        )
    known = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    inputs = ("input_ids", "attention_mask") if artifact.writes else read_graph(artifact.graph()).inputs
    known["model_input_names"] = list(inputs)
    tokenizer = Tokenizer.from_str(document)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **known | settings)


_stock = AutoTokenizer.from_pretrained


def _from_pretrained(name: Any, *inputs: Any, **settings: Any) -> Any:
    """Transformers' `AutoTokenizer.from_pretrained`, and of an artifact's folder `load_tokenizer`."""
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        config = None
    if not is_artifacts(config):
        return _stock(name, *inputs, **settings)
    # What says where to look; a folder needs none of it.
    places = {"config", "revision", "_from_pipeline", "_commit_hash", "trust_remote_code", "use_fast", "token"}
    return load_tokenizer(Path(name), **{key: value for key, value in settings.items() if key not in places})


AutoTokenizer.from_pretrained = _from_pretrained


def _artifact_of(folder: Path) -> Artifact:
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST}: transformers fetches a part of an artifact only. Fetch all of it with "
            "huggingface_hub.snapshot_download(repo, local_dir=FOLDER), then open FOLDER."
        )
    return open_artifact(folder)
