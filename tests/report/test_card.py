"""The model card: its head is YAML that a hub can read, and no name breaks out of its place."""

import json

import pytest

from multipress.records import Measurement
from multipress.report.card import model_card

yaml = pytest.importorskip("yaml")


class Stored:
    """What a card needs of an artifact."""

    def __init__(self, name, labels):
        task = {
            "name": name,
            "target": "classes",
            "labels": labels,
            "metrics": ["accuracy", "f1"],
            "score": "accuracy",
        }
        methods = [{"name": "pruning", "settings": {"sparsity": 0.6}}]
        self.facts = {
            "run_id": "0123456789ab",
            "task": task,
            "max_length": 64,
            "spec": {"model": name, "seed": 3, "methods": methods},
        }


ROWS = [
    Measurement("", "score", 0.875, "share", {"rows": 80}),
    Measurement("", "accuracy", 0.875, "share", {"rows": 80}),
    Measurement("", "f1", 0.8, "share", {"rows": 80}),
    Measurement("", "weights_bytes", 2_000_000, "bytes"),
    Measurement("", "package_bytes", 2_500_000, "bytes"),
    Measurement("", "dense_bytes", 90_000_000, "bytes"),
    Measurement("", "ideal_bytes", 3_000_000, "bytes"),
]


def test_the_head_is_yaml_with_a_model_index():
    card = model_card(Stored("sst2", ["bad", "good"]), ROWS, "multipress train minilm-l3 --task sst2 -o out")
    head = yaml.safe_load(card.split("---")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "sst2"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"accuracy": 0.875, "f1": 0.8}
    assert "| whole package | 2.50 MB |" in card
    assert "sparsity 0.6" in card
    assert "multipress train minilm-l3 --task sst2 -o out" in card


@pytest.mark.parametrize("name", ['"}\n- evil: true', "<script>alert(1)</script>", "a | b\n# Title", "---", "{x}: y"])
def test_hostile_names_stay_text(name):
    card = model_card(Stored(name, [name, "good"]), ROWS, f"multipress {json.dumps(name)}")
    head = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == name
    assert set(head) == {"library_name", "pipeline_tag", "tags", "model-index"}
    body = card.split("\n---\n", 1)[1].split("Made by:")[0]
    assert "<script" not in body.replace("\\<script", "")
    assert sum(line.startswith("# ") for line in body.splitlines()) == 1
