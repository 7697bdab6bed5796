import json

import pytest


@pytest.fixture
def classifier(tiny_bert, tokenizer_json, tmp_path):
    """Write a classifier with these labels, in this order; none: as transformers writes one without names."""

    def write(labels):
        model = tiny_bert(3)
        folder = tmp_path / "classifier"
        if labels:
            model.config.id2label = dict(enumerate(labels))
            model.config.label2id = {label: index for index, label in enumerate(labels)}
        model.save_pretrained(folder)
        if not labels:
            values = json.loads((folder / "config.json").read_text())
            values.pop("id2label", None)
            values.pop("label2id", None)
            (folder / "config.json").write_text(json.dumps(values))
        (folder / "tokenizer.json").write_text(tokenizer_json)
        return str(folder)

    return write
