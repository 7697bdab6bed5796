"""Rows that are made of others reach the student with what the teacher says of exactly them."""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from multipress.checkpoint import load_model
from multipress.engines import execute
from multipress.engines.single import train_artifact
from multipress.engines.teaching import made_rows
from multipress.models import read_first_token_only
from multipress.models.states import write_text_states
from multipress.runtime import Predictor
from multipress.runtime.tokenizer import TextEncoder
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec
from multipress.tasks import load_task
from multipress.tasks.augment import WORD

TRAINING = TrainingSpec(epochs=1, learning_rate=1e-3, batch_size=8, max_length=24)
PARTS = [["my card", "cash", "transfer", "account"], ["was not", "arrived yet", "how long", "wrong today"]]


@pytest.mark.parametrize("columns", [("text",), ("text", "pair")])
def test_made_rows_are_learned_with_what_the_teacher_says_of_them(columns, tiny_folder, tmp_path, monkeypatch):
    for part in ("train", "dev"):
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "pair", "label"])
            for row in range(20):
                first, second = PARTS[0][row % 4], PARTS[1][row // 4 % 4]
                writer.writerow([f"{first} {part}, {row}?", f"{second}: {row} {part}!", "ab"[row % 2]])
    files = {part: str(tmp_path / f"{part}.csv") for part in ("train", "dev")}
    data = DataSpec(**files, text=columns, label="label")
    teacher = train_artifact(RunSpec("train", str(tiny_folder), data, TRAINING), tmp_path / "teacher").artifact
    seen = {}

    def spied(model, rows, recipe, training, context, **more):
        seen.update(rows=rows, logits=context.teacher_logits, states=context.teacher_states)
        return train(model, rows, recipe, training, context, **more)

    train = execute.train
    monkeypatch.setattr(execute, "train", spied)
    methods = (MethodSpec("distillation", {"augment": 2, "replace": 0.5, "hidden": 1.0}),)
    spec = RunSpec("train", str(tiny_folder), data, TRAINING, methods)
    train_artifact(spec, tmp_path / "out", teacher=str(teacher.folder))

    own = load_task(data).train
    texts, pairs = made_rows(teacher, own, 2, 0.5)
    assert len(texts) == 40
    for made, sources in ((texts, own.texts), (pairs, own.pairs)):
        assert (made is None) == (sources is None)
        for new, source in zip(made or [], (sources or []) * 2, strict=True):
            assert WORD.sub("_", new) == WORD.sub("_", source)
    both = own.texts + texts, None if pairs is None else own.pairs + pairs
    encodings = TextEncoder(teacher.tokenizer_json(), TRAINING.max_length).encode(*both)
    assert [row.ids for row in seen["rows"].encodings] == [row.ids for row in encodings]
    assert (seen["rows"].labels[:20] == own.labels).all()
    assert (seen["rows"].labels[20:] == -1).all()
    np.testing.assert_allclose(seen["logits"].numpy(), Predictor(teacher.folder).logits(*both), atol=1e-5)
    model = read_first_token_only(load_model(teacher.folder))
    write_text_states(tmp_path / "states", model, encodings, seen["rows"].pad_id)
    states = load_file(tmp_path / "states")["states"]
    assert len(states[:, 0].unique(dim=0)) > 20  # rows differ, so that an order can be wrong
    torch.testing.assert_close(seen["states"], states, atol=2e-3, rtol=0)
