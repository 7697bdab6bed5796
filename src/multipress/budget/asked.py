"""What is to be compressed, on which rows."""

from __future__ import annotations

from dataclasses import dataclass

from multipress.errors import SettingError
from multipress.spec import DataSpec, TrainingSpec

__all__ = ["Asked"]


@dataclass(frozen=True)
class Asked:
    """What is to be compressed, on which rows.

    Args:
        model: Short name, folder or hub id of a classifier or an encoder.
        data: The task, or files of train and validation rows.
        test: File of rows to report on; empty: half of the validation rows.
        max_length: Tokens kept of a row.
        epochs: Passes over the rows of a try; 0: as many as the time allows.
        unlabeled: File of texts without labels, in place of `data`'s files; the model itself labels them.
        learn_from: Folders of runs of earlier studies and searches, from which to learn what to try first.

    Raises:
        SettingError: there are texts without labels and others with.
    """

    model: str
    data: DataSpec
    test: str = ""
    max_length: int = TrainingSpec.max_length
    epochs: int = 0
    unlabeled: str = ""
    learn_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        data = self.data
        if self.unlabeled and (data.task or data.train or data.dev or self.test):
            raise SettingError(
                "--unlabeled stands alone: give it, or rows with labels by --task or --train, --dev and --test."
            )
