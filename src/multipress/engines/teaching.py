"""What a teacher must have in common with its student, and the further rows that it labels."""

from __future__ import annotations

import json
from pathlib import Path

from multipress.artifact import Artifact, open_artifact
from multipress.errors import SettingError
from multipress.recipe import Recipe
from multipress.tasks import Split, Task
from multipress.tasks.augment import WORD, nearest_words, replace_words

__all__ = ["check_labels", "check_teacher", "made_rows"]


def made_rows(teacher: Artifact, rows: Split, augment: int, replace: float) -> tuple[list[str], list[str] | None]:
    """`augment` further rows for each row, words replaced by the nearest ones of the teacher's word embedding."""
    check_words(teacher.tokenizer_json())
    vocabulary = json.loads(teacher.tokenizer_json())["model"]["vocab"]
    words = ("word_embeddings.weight", "tok_embeddings.weight")
    tables = {name: table for name, table in teacher.dense_weights().items() if name.endswith(words)}
    (table,) = tables.values()
    both = [*rows.texts, *(rows.pairs or [])]
    nearest = nearest_words({word for text in both for word in WORD.findall(text.lower())}, vocabulary, table)

    def made(texts: list[str], place: str) -> list[str]:
        return [text for copy in range(augment) for text in replace_words(texts, nearest, replace, place, copy)]

    return made(rows.texts, "first"), None if rows.pairs is None else made(rows.pairs, "second")


def check_teacher(name: str, tokenizer: str | int, recipe: Recipe, task: Task, of_model: str | int) -> None:
    """Raise `SettingError` for what can be known beforehand of a teacher that cannot teach.

    Args:
        name: An artifact's folder or a model's name.
        tokenizer: Of a teacher that is no artifact; see `Checked.tokenizer`.
        recipe: The methods that learn from it.
        task: What is to be learned.
        of_model: The model's own tokenizer.
    """
    if (Path(name) / "manifest.json").is_file():
        artifact = open_artifact(Path(name))
        check_labels(artifact, task)
        tokenizer = artifact.tokenizer_json()
    if any("augment" in method.settings for method in recipe.label_specs(task.target)):
        check_words(tokenizer)
    if "teacher_model" in recipe.needs(task.target):
        check_tokenizers(name, tokenizer, of_model)


def check_labels(teacher: Artifact, task: Task) -> None:
    """Raise `SettingError` if a teacher gives other labels, or another kind of answer, than a task has."""
    own = teacher.facts["task"]
    labels = tuple(own["labels"])
    if own["target"] != task.target:
        raise SettingError(
            f"The teacher {teacher.folder.name} gives {own['target']}, but {task.name} is {task.target}."
        )
    if labels != task.labels:
        raise SettingError(
            f"The teacher {teacher.folder.name} knows the labels {_some(labels)}, but {task.name} has "
            f"{_some(task.labels)}. Names and order must be equal."
        )


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:5]) + (f", ... ({len(labels)})" if len(labels) > 5 else "")


def check_words(of_teacher: str | int) -> None:
    """Raise `SettingError` if a teacher's tokenizer, given as `tokenizer.json`, knows no whole words to replace."""
    if isinstance(of_teacher, int):
        return
    kind = json.loads(of_teacher)["model"].get("type")
    if kind not in ("WordPiece", "WordLevel"):
        raise SettingError(
            "distillation.augment needs a teacher whose tokenizer knows whole words (WordPiece, WordLevel), not "
            f"{kind}. Set it to 0."
        )


def check_tokenizers(teacher: str, of_teacher: str | int, of_model: str | int) -> None:
    """Raise `SettingError` if two models do not read the same tokens.

    A tokenizer is given as `tokenizer.json`; one that a translator learns later as the number of its pieces: the same
    rows give the same pieces. Of one that is here and one that is not nothing is said.
    """
    if isinstance(of_teacher, int) or isinstance(of_model, int):
        differ = isinstance(of_teacher, int) and isinstance(of_model, int) and of_teacher != of_model
    else:
        differ = json.loads(of_teacher) != json.loads(of_model)
    if differ:
        raise SettingError(
            f"The teacher {teacher} has another tokenizer than the model, so what they say cannot be compared "
            "token by token. Choose a teacher with the same tokenizer; or set distillation.states to text, for a "
            "translator alpha to 0 and sequences to true."
        )
