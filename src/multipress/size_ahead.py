"""The size of an artifact before anything is trained.

What fixes the size of most recipes is known before the training: shapes, the share of zeros, bits, words. The recipe is
put on the model as it comes, as if the training had passed, and the result is stored for real in a temporary folder.
Training moves the weights of a pre-trained encoder little, so that what an entropy coder makes of them hardly changes;
a translator that began with random weights became 3.5 % larger.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from multipress.checkpoint import save_model
from multipress.engines.job import ANYWHERE, Places
from multipress.errors import SettingError
from multipress.methods import Context, Method, Stage
from multipress.models import load_pretrained
from multipress.models.encoder import drop_positions
from multipress.models.graph import INPUT_SCALE
from multipress.models.pretrained import identify
from multipress.models.vocabulary import words_to_keep
from multipress.plain_text import megabytes
from multipress.recipe import Recipe
from multipress.runtime.tokenizer import TextEncoder
from multipress.shrink import shipped_text
from multipress.spec import RunSpec
from multipress.speed_ahead import shares_for_speedup
from multipress.tasks import load_task

__all__ = ["SizeAhead", "brings_words", "check_limit", "size_before_training"]

# Of the size, what may be above a limit before the training is refused: as far as the sizes of trained models were from
# what was said of them, and those whose bits the training finds (docs/log.md).
TOLERANCE, RATE_TOLERANCE = 0.02, 0.15


@dataclass(frozen=True)
class SizeAhead:
    """Bytes that an artifact will have.

    Args:
        weights_bytes: Of `model.safetensors`.
        package_bytes: Of all that must be shipped to predict.
        is_upper_limit: The training itself decides how much less it becomes: bits have a price in the loss, and no rate
            is asked for.
        is_lower_limit: It may become more: rows that are made from the training rows bring words of their own.
        tolerance: How far it may be from what comes, as a share.
    """

    weights_bytes: int
    package_bytes: int
    is_upper_limit: bool = False
    is_lower_limit: bool = False
    tolerance: float = TOLERANCE

    def text(self) -> str:
        """In words, such as `about 3.21 MB (to 2%), 2.98 MB of it weights`."""
        about = "about"
        if self.is_upper_limit != self.is_lower_limit:
            about = "at most" if self.is_upper_limit else "at least"
        weights = megabytes(self.weights_bytes)
        return f"{about} {megabytes(self.package_bytes)} (to {self.tolerance:.0%}), {weights} of it weights"


def check_limit(spec: RunSpec, max_mb: float, ahead: SizeAhead) -> None:
    """Raise `SettingError` if what a run will store is larger than a limit, in MB, whatever the training does."""
    if not ahead.is_upper_limit and ahead.package_bytes > (1 + ahead.tolerance) * max_mb * 1e6:
        above = megabytes(ahead.package_bytes - max_mb * 1e6)
        raise SettingError(
            f"With these settings {spec.model} will have {ahead.text()}: {above} above the limit of {max_mb:g} "
            "MB. Nothing was trained. Take fewer bits, a rate, more zeros, fewer words or a smaller model."
        )


def brings_words(methods: Sequence[Method]) -> bool:
    """Whether rows that are made of the training rows bring words that a dropped vocabulary then keeps."""
    return any(method.settings().get("augment") for method in methods) and any(
        method.name == "vocabulary" for method in methods
    )


def size_before_training(spec: RunSpec, places: Places = ANYWHERE) -> SizeAhead:
    """The size of what a run will store.

    Args:
        spec: A run of the kind `train` that starts from a pre-trained encoder.
        places: Where models and data are found.

    Raises:
        InputError: model, data or settings cannot be used; an encoder that a name stands for is not made yet.
    """
    checked = identify(spec.model, places.models_dir)
    checked.check_length(spec.training.max_length)
    specs = shares_for_speedup(spec.methods, checked.config)
    data = load_task(spec.data, places.data_dir)
    checked.check_target(data.task.target)
    Recipe.from_specs(specs).check_target(data.task.target)
    pretrained = load_pretrained(
        spec.model,
        label_names=data.task.labels,
        seed=spec.seed,
        models_dir=places.models_dir,
        texts=data.written_texts,
    )
    model = pretrained.model.eval()
    drop_positions(model, spec.training.max_length)
    every = Recipe.from_specs(specs).methods
    recipe = Recipe([method for method in every if method.stage != Stage.OBJECTIVE])

    def words(general: bool) -> torch.Tensor:
        encoder = TextEncoder(pretrained.tokenizer_json, spec.training.max_length)
        encodings = encoder.encode(data.train.texts, data.train.pairs)
        whole = data.train.every_text() if encoder.num_truncated else ()
        return words_to_keep(pretrained.tokenizer_json, encodings, [*whole, *(shipped_text() if general else ())])

    trained = recipe.prepare(model, Context(data.task.target, spec.seed, words=words))
    recipe.on_step_end(trained, 1.0)
    for name, buffer in trained.named_buffers():
        if name.endswith(f".{INPUT_SCALE}"):
            buffer.fill_(0.012345678)  # with as many digits as one that was found
    facts = {
        "run_id": "0" * 12,
        "spec": spec.to_json(),
        "task": data.task.to_json(),
        "max_length": spec.training.max_length,
    }
    with tempfile.TemporaryDirectory() as folder:
        artifact = save_model(
            Path(folder) / "artifact", recipe.convert(trained), tokenizer_json=pretrained.tokenizer_json, facts=facts
        )
    settings = {key: value for method in every for key, value in method.settings().items()}
    return SizeAhead(
        artifact.weights_bytes,
        artifact.package_bytes,
        is_upper_limit=bool(settings.get("rate_weight")),
        is_lower_limit=brings_words(every),
        # What begins with random weights moves far.
        tolerance=RATE_TOLERANCE if settings.get("rate") or not checked.tokenizer_json else TOLERANCE,
    )
