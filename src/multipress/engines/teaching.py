"""What a teacher must have in common with its student, and the further rows that it labels."""

from __future__ import annotations

import json

from multipress.artifact import Artifact
from multipress.errors import SettingError
from multipress.tasks import Split
from multipress.tasks.augment import WORD, nearest_words, replace_words

__all__ = ["check_tokenizers", "made_rows"]


def made_rows(teacher: Artifact, rows: Split, augment: int, replace: float) -> tuple[list[str], list[str] | None]:
    """`augment` further rows for each row, words replaced by the nearest ones of the teacher's word embedding."""
    model = json.loads(teacher.tokenizer_json())["model"]
    if model.get("type") not in ("WordPiece", "WordLevel"):
        raise SettingError(
            "distillation.augment needs a teacher whose tokenizer knows whole words (WordPiece, WordLevel), not "
            f"{model.get('type')}. Set it to 0."
        )
    vocabulary = model["vocab"]
    words = ("word_embeddings.weight", "tok_embeddings.weight")
    tables = {name: table for name, table in teacher.dense_weights().items() if name.endswith(words)}
    (table,) = tables.values()
    both = [*rows.texts, *(rows.pairs or [])]
    nearest = nearest_words({word for text in both for word in WORD.findall(text.lower())}, vocabulary, table)

    def made(texts: list[str], place: str) -> list[str]:
        return [text for copy in range(augment) for text in replace_words(texts, nearest, replace, place, copy)]

    return made(rows.texts, "first"), None if rows.pairs is None else made(rows.pairs, "second")


def check_tokenizers(teacher: str, of_teacher: str, of_model: str) -> None:
    """Raise `SettingError` if two models, given as `tokenizer.json`, do not read the same tokens.

    A translator that is to be made learns its tokenizer later, and has an empty one here.
    """
    if not of_teacher or not of_model:
        return
    if json.loads(of_teacher) != json.loads(of_model):
        raise SettingError(
            f"The teacher {teacher} has another tokenizer than the model, so what they say cannot be compared "
            "token by token. Choose a teacher with the same tokenizer; or set distillation.states to text, for a "
            "translator alpha to 0 and sequences to true."
        )
