"""Texts without labels: the model labels them, and says what that costs."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from multipress.budget.asked import Asked
from multipress.budget.unlabeled import FEWEST_TEXTS, label_texts, texts_to_label
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


def labeled(given, folder, said=None):
    rows, notes = texts_to_label(given)
    made = label_texts(given, rows, folder, ANYWHERE, (said if said is not None else []).append)
    return made, notes


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("labels", [LABELS, ("LABEL_0", "LABEL_1", "LABEL_2"), ()])
def test_each_text_is_there_once_with_the_label_that_transformers_gives(
    classifier, texts, tokenizer_json, tmp_path, labels
):
    said = []
    model = classifier(labels)
    made, notes = labeled(asked(model, tmp_path), tmp_path, said)
    train, dev = rows_of(made.data.train), rows_of(made.data.dev)
    assert sorted(row["text"] for row in [*train, *dev]) == sorted(set(texts))
    assert notes == [f"{351 - len(set(texts))} of 351 texts are empty or there twice; they are left out."]
    assert len(dev) == 80
    plain = BertForSequenceClassification.from_pretrained(model, num_labels=3).eval()
    rows = TextEncoder(tokenizer_json, 16).encode([row["text"] for row in dev])
    with torch.no_grad():
        logits = np.stack([plain(input_ids=torch.tensor([row.ids])).logits[0].numpy() for row in rows])
    names = labels or ("LABEL_0", "LABEL_1", "LABEL_2")
    assert [row["label"] for row in dev] == [names[index] for index in logits.argmax(axis=1)]
    # They are read as rows of the model's classes, in its order, those that no text has too.
    assert load_task(made.data).task.labels == names
    assert "not how often it is right" in said[-1]


def test_two_classes_without_names_are_the_commonest_classifier(tiny_bert, texts, tokenizer_json, tmp_path):
    model = tiny_bert(2)
    rows = TextEncoder(tokenizer_json, 16).encode(texts[:20])
    with torch.no_grad():  # a classifier that calls some texts each
        logits = torch.cat([model.eval()(input_ids=torch.tensor([row.ids])).logits for row in rows])
        model.classifier.bias -= logits.median(dim=0).values
    model.save_pretrained(tmp_path / "two")
    (tmp_path / "two" / "tokenizer.json").write_text(tokenizer_json)
    made, _ = labeled(asked(str(tmp_path / "two"), tmp_path), tmp_path)
    assert load_task(made.data).task.labels == ("LABEL_0", "LABEL_1")


def test_a_number_and_pairs_are_labeled(tiny_bert, tokenizer_json, tmp_path):
    tiny_bert(1).save_pretrained(tmp_path / "one")
    (tmp_path / "one" / "tokenizer.json").write_text(tokenizer_json)
    rows = [{"a": f"w{i % 60} w{i % 7}", "b": "" if i % 5 == 0 else f"w{i % 11}"} for i in range(400)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = Asked(
        str(tmp_path / "one"), DataSpec(text=("a", "b")), max_length=16, unlabeled=str(tmp_path / "pairs.jsonl")
    )
    said = []
    made, notes = labeled(given, tmp_path, said)
    found = load_task(made.data)
    assert found.task.target == "number"
    assert found.task.is_pair
    assert len(found.train) + len(found.dev) == len({(row["a"], row["b"]) for row in rows if row["b"]})
    assert "of 400 texts are empty or there twice" in notes[0]
    assert "how near" in said[-1]


def test_the_same_texts_are_labeled_once(classifier, texts, tmp_path, monkeypatch):
    model = classifier(LABELS)
    made, _ = labeled(asked(model, tmp_path), tmp_path)
    monkeypatch.setattr("multipress.budget.unlabeled.Predictor", None)
    again, _ = labeled(asked(model, tmp_path), tmp_path)
    assert again == made


def test_of_many_texts_some_are_drawn_the_same_each_time(classifier, texts, tmp_path):
    given = asked(classifier(LABELS), tmp_path, max_train_rows=220)
    rows, notes = texts_to_label(given)
    assert len(rows) == 220
    assert rows == texts_to_label(given)[0]
    assert "220 of the" in notes[-1]


def test_what_cannot_be_labeled_is_refused(classifier, texts, tiny_folder, tiny_bert, tokenizer_json, tmp_path):
    def refused(error, match, model, **others):
        with pytest.raises(error, match=match):
            labeled(asked(model, tmp_path, **others), tmp_path)

    model = classifier(LABELS)
    refused(ModelError, "without a head", str(tiny_folder))
    refused(SettingError, "have no effect", model, label="label")
    with pytest.raises(SettingError, match="stands alone"):
        asked(model, tmp_path, task="sst2")
    with pytest.raises(SettingError, match="standard input"):
        texts_to_label(Asked(model, DataSpec(), unlabeled="-"))
    deaf = tiny_bert(3)
    with torch.no_grad():
        deaf.classifier.weight.zero_()
        deaf.classifier.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    deaf.save_pretrained(tmp_path / "deaf")
    (tmp_path / "deaf" / "tokenizer.json").write_text(tokenizer_json)
    refused(ModelError, "calls every text 'LABEL_1'", str(tmp_path / "deaf"))
    (tmp_path / "texts.txt").write_text("\n".join(texts[: FEWEST_TEXTS - 1] * 2))
    refused(DataError, f"{FEWEST_TEXTS - 1} different texts", model)


def test_the_command_refuses_before_it_writes(classifier, texts, tmp_path, capsys):
    command = ["compress", classifier(LABELS), "--max-mb", "1", "-o", str(tmp_path / "out"), "--unlabeled"]
    assert main([*command, str(tmp_path / "texts.txt"), "--task", "sst2"]) == 2
    assert "stands alone" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
    assert not (tmp_path / "out.search").exists()
