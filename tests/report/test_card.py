"""The model card: its head is YAML that a hub can read, and no name breaks out of its place."""

import json

import pytest

from multipress.records import Measurement
from multipress.report.card import Recalls, model_card

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
            "spec": {
                "model": name,
                "seed": 3,
                "methods": methods,
                "training": {"epochs": 2, "learning_rate": 3e-4, "batch_size": 16},
            },
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
    assert "Epochs: 2; highest learning rate: 0.0003; a step: 16 rows." in card
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


def test_recall_before_and_after_is_told_of_every_class_and_of_many_of_those_that_lost_most():
    before = {f"c{i}": 0.9 for i in range(30)} | {"empty": float("nan")}
    after = {f"c{i}": 0.9 - i / 100 for i in range(30)} | {"empty": float("nan")}
    card = model_card(Stored("sst2", list(after)), ROWS, "multipress", Recalls(after, before, 0.9))
    assert "the 20 of 30 classes that lost most" in card
    assert "| c29 | 0.900 | 0.610 | -0.290 |" in card
    assert "| c3 |" not in card
    assert "| accuracy of the dense control | 0.9000 (this one -0.0250) |" in card
    few = model_card(Stored("sst2", ["bad", "go|od"]), ROWS, "multipress", Recalls({"bad": 0.5, "go|od": 1.0}))
    assert "Recall of every class, after:" in few
    assert "| go\\|od | 1.000 |" in few


def test_latency_and_what_it_was_measured_on_are_told_where_they_are_known():
    context = {"batch_size": 1, "length": 32, "threads": 1, "computer": {"cpu": "A <CPU>"}}
    timed = [*ROWS, Measurement("", "latency_p50_ms", 4.25, "ms", context)]
    card = model_card(Stored("sst2", ["bad", "good"]), timed, "multipress")
    assert "| latency, 1 x 32 tokens (1 thread(s), A \\<CPU\\>) | 4.25 ms |" in card
    assert "not measured" not in card
    assert "Latency was not measured." in model_card(Stored("sst2", ["bad", "good"]), ROWS, "multipress")


def test_the_processor_of_the_score_and_its_instruction_sets_are_named():
    computer = {"cpu": "AMD <EPYC>", "instruction_sets": ["avx2", "avx512_vnni"]}
    card = model_card(Stored("sst2", ["bad", "good"]), ROWS, "multipress", computer=computer)
    assert "instruction sets: avx2, avx512\\_vnni." in card
    assert "<EPYC>" not in card
    assert "instruction sets" not in model_card(Stored("sst2", ["bad", "good"]), ROWS, "multipress")


def test_a_shape_chosen_for_a_speedup_says_for_which():
    stored = Stored("sst2", ["bad", "good"])
    settings = {"speedup": 2.0, "batch": 1, "length": 128, "heads": 0.5, "neurons": 0.25}
    stored.facts["spec"]["methods"].append({"name": "structured", "settings": settings})
    card = model_card(stored, ROWS, "multipress")
    assert "2 times as fast as the whole encoder at 1 x 128 tokens: 50% of the heads and 25% of the neurons" in card
