"""The paper's findings, judged (`benchmarks/paper_findings.py`), on planted rows."""

import importlib
from pathlib import Path

import numpy as np
import pytest

KINDS = ("query", "key", "value", "attention output", "feed-forward in", "feed-forward out")
CROSS = ("cross query", "cross key", "cross value", "cross output")


@pytest.fixture
def paper(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("paper_findings")


def row(name, value, **context):
    return {"name": name, "value": value, "context": {"artifact": "a", **context}}


def likeness(name, by_layer, noise=0.001):
    tenths = np.random.default_rng(0).normal(0, noise / 3, size=(len(by_layer), 10))
    return [
        row(name, value, layer=layer, low=value - noise, high=value + noise, without=list(value + tenths[layer - 1]))
        for layer, value in enumerate(by_layer, 1)
    ]


def zeros(draw, size=20_000):
    """Rows of 3 + 3 blocks; `draw(kind, layer)` is the chance with which a weight is pruned."""
    random = np.random.default_rng(1)
    rows = []
    for layer in range(1, 7):
        for kind in (*KINDS, *(CROSS if layer > 3 else ())):
            count = int(random.binomial(size, draw(kind, layer)))
            rows.append(
                row("zero_share", count / size, layer=layer, matrix=kind, is_bias=False, size=size, pruned=count)
            )
        rows.append(row("zero_share", 1.0, layer=layer, matrix="key", is_bias=True, size=99, pruned=99))
    return rows


def verdicts(paper, rows):
    return {finding.finding.split(":")[0].split(",")[0]: finding.verdict for finding in paper.findings(rows, "a")}


def test_upper_layers_are_the_upper_half_whatever_the_ends_are(paper):
    name = "upper layers diverge most"
    assert verdicts(paper, likeness("linear_cka", (0.97, 0.96, 0.95, 0.9, 0.88, 0.86)))[name] == "agrees"
    assert verdicts(paper, likeness("linear_cka", (0.9, 0.86, 0.85, 0.95, 0.96, 0.89)))[name] == "disagrees"
    assert verdicts(paper, likeness("linear_cka", (0.9,) * 6))[name] == "open"


def test_first_blocks_heads_are_held_against_the_others(paper):
    name = "attention is alike but in the first encoder layer"
    assert verdicts(paper, likeness("attention_maxcorr", (0.7, 0.9, 0.91)))[name] == "agrees"
    assert verdicts(paper, likeness("attention_maxcorr", (0.95, 0.9, 0.91)))[name] == "disagrees"


def test_zeros_at_random_agree_with_nothing_and_the_papers_with_all(paper):
    chance = verdicts(paper, zeros(lambda kind, layer: 0.7))
    assert sum(verdict == "open" for verdict in chance.values()) >= len(chance) - 2  # one by keys, 5 % of the others

    def drawn(kind, layer):
        if kind in ("value", "attention output"):
            return 0.95 if layer == 1 else 0.8
        if kind == "feed-forward out":
            return 0.5 + 0.05 * layer
        return 0.5 if kind in CROSS else 0.6

    found = verdicts(paper, zeros(drawn))
    assert len(found) == 5
    assert set(found.values()) == {"agrees"}
    turned = verdicts(paper, zeros(lambda kind, layer: 1 - drawn(kind, layer)))
    keys = "biases of keys"
    assert {turned[name] for name in turned if name != keys} == {"disagrees"}
    some = [
        one | {"context": one["context"] | {"pruned": 98}} if one["context"]["is_bias"] else one for one in zeros(drawn)
    ]
    assert verdicts(paper, some)[keys] == "disagrees"


def test_equal_models_have_no_losses_of_probes(paper):
    """Seven layers that are alike, 485 examples: of the layer where one happens to have most, losses would be found."""
    random = np.random.default_rng(2)
    found = []
    for _ in range(200):
        for layer in range(7):
            change = random.normal(0, 0.02)
            ends = {"change_low": change - 0.0392, "change_high": change + 0.0392, "against_value": 0.6 - change}
            own = row("probe_accuracy", 0.6, layer=layer, probe="supersense_role", change=change, **ends)
            found += [finding.verdict for finding in paper.of_probes([own], "a")]
    assert len(found) == 200
    assert found.count("agrees") < 12
    assert found.count("disagrees") < 12


def test_what_holds_agrees_where_a_loss_can_be_ruled_out(paper):
    def verdict(low, high):
        change = (low + high) / 2
        own = row("probe_accuracy", 0.6, layer=3, probe="pos", change=change, change_low=low, change_high=high)
        return next(iter(paper.of_probes([own], "a"))).verdict

    assert [verdict(-0.01, 0.01), verdict(-0.03, 0.01), verdict(-0.03, -0.01)] == ["agrees", "open", "disagrees"]
