"""Texts without labels: the model labels them, and says what that costs."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from multipress.budget.fitting import Asked
from multipress.budget.unlabeled import FEWEST_TEXTS, label_texts
from multipress.cli.main import main
from multipress.engines.job import ANYWHERE
from multipress.errors import DataError, ModelError, SettingError
from multipress.runtime.tokenizer import TextEncoder
from multipress.spec import DataSpec
from multipress.tasks import load_task

LABELS = ("maybe", "no", "yes")


@pytest.fixture
def texts(tmp_path):
    chance = random.Random(0)
    lines = [" ".join(f"w{chance.randrange(90)}" for _ in range(6)) for _ in range(300)]
    (tmp_path / "texts.txt").write_text("\n".join([*lines, "", *lines[:50]]) + "\n")
    return lines


def asked(model, tmp_path, **others):
    return Asked(model, DataSpec(**others), max_length=16, unlabeled=str(tmp_path / "texts.txt"))


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_each_text_is_there_once_with_the_label_that_transformers_gives(classifier, texts, tokenizer_json, tmp_path):
    said = []
    model = classifier(LABELS)
    made = label_texts(asked(model, tmp_path), tmp_path, ANYWHERE, said.append)
    train, dev = rows_of(made.data.train), rows_of(made.data.dev)
    assert sorted(row["text"] for row in [*train, *dev]) == sorted(set(texts))
    assert len(dev) == 80
    plain = BertForSequenceClassification.from_pretrained(model, num_labels=3).eval()
    rows = TextEncoder(tokenizer_json, 16).encode([row["text"] for row in dev])
    with torch.no_grad():
        logits = np.stack([plain(input_ids=torch.tensor([row.ids])).logits[0].numpy() for row in rows])
    assert [row["label"] for row in dev] == [LABELS[index] for index in logits.argmax(axis=1)]
    # They are read as rows of the model's classes, in its order, those that no text has too.
    assert load_task(made.data).task.labels == LABELS
    assert "agrees with it, not how often it is right" in said[0]


def test_the_same_texts_are_held_out_again(classifier, texts, tmp_path):
    model = classifier(LABELS)
    made = label_texts(asked(model, tmp_path), tmp_path, ANYWHERE, lambda note: None)
    before = rows_of(made.data.dev)
    again = label_texts(asked(model, tmp_path), tmp_path, ANYWHERE, lambda note: None)
    assert rows_of(again.data.dev) == before


def test_what_cannot_be_labeled_is_refused(classifier, texts, tiny_folder, tmp_path):
    def refused(error, match, *args, **others):
        with pytest.raises(error, match=match):
            label_texts(asked(*args, tmp_path, **others), tmp_path, ANYWHERE, lambda note: None)

    model = classifier(LABELS)
    refused(ModelError, "without a head", str(tiny_folder))
    with pytest.raises(SettingError, match="stands alone"):
        asked(model, tmp_path, task="sst2")
    (tmp_path / "texts.txt").write_text("\n".join(texts[: FEWEST_TEXTS - 1] * 2))
    refused(DataError, f"{FEWEST_TEXTS - 1} different texts", model)


def test_the_command_refuses_texts_and_labels_together(classifier, texts, tmp_path, capsys):
    command = ["compress", classifier(LABELS), "--unlabeled", str(tmp_path / "texts.txt"), "--max-mb", "1"]
    assert main([*command, "--task", "sst2", "-o", str(tmp_path / "out")]) == 2
    assert "stands alone" in capsys.readouterr().err
    assert not (tmp_path / "out.search").exists()
