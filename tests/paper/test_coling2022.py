"""The numbers of Movva et al. (2022), from the two files beside this one, through our own analysis.

Figure 1 gives mean scores, Table 1 means of factors over tasks. A mean over tasks does not commute with a
threshold, so that the discrete estimator on the mean curves comes close where no model sits near the bar.
"""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import BertConfig

from multipress.analysis import group_cells, read_cells
from multipress.analysis.interaction import interactions
from multipress.analysis.multiplicativity import multiplicativity
from multipress.analysis.products import geometric_mean
from multipress.measure import ideal_bytes
from multipress.models.catalogue import BERT_SIZES
from multipress.models.encoder import expected_shapes
from multipress.report.paper_figure import curves

pytestmark = pytest.mark.paper

SETS = {
    "q": ("quantization",),
    "kd": ("distillation",),
    "p": ("pruning",),
    "q+kd": ("quantization", "distillation"),
    "q+p": ("quantization", "pruning"),
    "kd+p": ("distillation", "pruning"),
    "q+kd+p": ("quantization", "distillation", "pruning"),
}


@pytest.fixture(scope="module")
def paper():
    """The script that makes the page on multiplicativity: the published numbers as rows of a store."""
    script = Path(__file__).parents[2] / "docs" / "coling2022.py"
    spec = importlib.util.spec_from_file_location("coling2022", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cells(paper):
    return read_cells(paper.rows())


@pytest.fixture(scope="module")
def table1(paper):
    return {line["architecture"]: line for line in paper.read("table1_max_size_reduction.csv")}


@pytest.fixture(scope="module")
def factors(cells):
    groups = group_cells(cells)
    return {
        estimator: {
            (one.model, one.methods): one
            for one in multiplicativity(groups, sizes=["ideal_bytes"], estimators=[estimator])
        }
        for estimator in ("discrete", "interpolated")
    }


def test_four_bytes_a_parameter_give_the_size_column(paper, table1):
    for architecture, line in table1.items():
        # MEDIUM's 41.37 M parameters are 165.48 MB; the paper prints 166. All others round to what it prints.
        allowed = 0.53 if architecture == "medium" else 0.5
        assert abs(paper.size_mb(architecture) - float(line["size_mb"])) <= allowed


def test_table_1_is_super_multiplicative_but_for_quantization_with_pruning(table1):
    for names, published in (("q+kd", 1.16), ("q+p", 0.87), ("kd+p", 1.22), ("q+kd+p", 1.41)):
        ratios = [
            float(line[names]) / math.prod(float(line[name]) for name in names.split("+")) for line in table1.values()
        ]
        assert geometric_mean(ratios) == pytest.approx(published, abs=0.01)


def test_the_discrete_estimator_comes_close_to_table_1_for_large_small_and_tiny(table1, factors):
    for architecture, within in (("large", 0.3), ("small", 0.3), ("tiny", 0.35)):
        for names, methods in SETS.items():
            one = factors["discrete"][architecture, methods]
            if (architecture, names) == ("large", "q+p"):
                # The mean of LARGE with Q and P40 misses the bar by 0.23 points; single tasks reach it.
                assert one.factor.kind == "not reached"
                continue
            assert one.factor.value == pytest.approx(float(table1[architecture][names]), rel=within)


def test_the_discrete_estimator_falls_short_of_table_1_for_base_and_medium_with_all_three(table1, factors):
    for architecture in ("base", "medium"):
        one = factors["discrete"][architecture, SETS["q+kd+p"]]
        assert 0.5 < one.factor.value / float(table1[architecture]["q+kd+p"]) < 0.7


def test_the_smallest_architecture_is_censored(factors):
    for estimator in factors.values():
        assert estimator["tiny", SETS["q+kd+p"]].factor.kind == "at least"
        assert estimator["tiny", SETS["q+kd+p"]].ratio is None


def test_interpolated_factors_of_all_three_stay_below_their_product(factors):
    for architecture in ("large", "base", "medium", "small", "mini"):
        assert 0.4 < factors["interpolated"][architecture, SETS["q+kd+p"]].ratio < 0.85
        assert 0.64 < factors["interpolated"][architecture, SETS["q+kd"]].ratio < 1.04


def test_that_shortfall_is_the_tolerance_counted_three_times_and_goes_when_it_is_divided_out(factors):
    for architecture in ("large", "base", "medium", "small", "mini"):
        one = factors["interpolated"][architecture, SETS["q+kd+p"]]
        assert 1.1 < one.dense.value < 1.7
        assert 1.0 < one.net_ratio < 1.26


def test_score_effects_and_interactions_are_those_read_off_figure_1(cells):
    published = {
        ("Q8",): -0.28,
        ("KD",): 1.72,
        ("P40",): -0.35,
        ("P60",): -1.08,
        ("Q8", "KD"): 0.18,
        ("Q8", "P40"): -0.21,
        ("Q8", "P60"): -0.01,
        ("KD", "P40"): 0.46,
        ("KD", "P60"): 0.85,
    }
    found = {tuple(one.to_json()["levels"]): 100 * one.overall.mean for one in interactions(cells)}
    for levels, points in published.items():
        assert found[levels] == pytest.approx(points, abs=0.011), levels


@dataclass
class Sizes:
    """What `ideal_bytes` reads of an artifact."""

    manifest: dict
    facts: dict


def test_our_ideal_sizes_are_the_positions_of_figure_1(paper, cells):
    """Every tensor of each architecture, without the head, under each of the twelve recipes of the figure."""
    groups = [group.to_json() for group in group_cells(cells)]
    positions = {
        (model, label): mb for label, points in curves(groups, "ideal_bytes").items() for mb, _, model in points
    }
    assert len(positions) == 6 * 12
    for cell in cells:
        _, num_layers, hidden = paper.ARCHITECTURES[cell.model]
        bits = cell.row["settings"].get("quantization", {}).get("bits")
        sparsity = cell.row["settings"].get("pruning", {}).get("sparsity", 0.0)
        records, pruned = {}, {}
        for name, shape in expected_shapes(bert(num_layers, hidden)).items():
            size = math.prod(shape)
            if name.startswith("bert."):
                is_linear = ".layer." in name and len(shape) == 2
                removed = round(sparsity * size) if is_linear else 0
                pruned |= {name: removed} if removed else {}
                records[name] = {
                    "shape": shape,
                    "bits": bits if bits and len(shape) == 2 else 16,
                    "nonzeros": size - removed,
                }
        stored = Sizes({"tensors": records}, {"pruned": pruned, "quantization": {"bits": bits} if bits else None})
        # Millions of parameters are given to a hundredth, 4.39 for the smallest.
        assert ideal_bytes(stored) / 1e6 == pytest.approx(positions[cell.model, cell.label], rel=0.0015)


def bert(num_layers, hidden):
    return BertConfig(
        hidden_size=hidden,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )


def test_the_six_names_have_the_papers_shapes_and_numbers_of_parameters(paper):
    """The paper counts the encoder without a head."""
    for name, (millions, layers, hidden) in paper.ARCHITECTURES.items():
        _, our_layers, our_hidden = BERT_SIZES[f"bert-{name}"]
        assert (our_layers, our_hidden) == (layers, hidden)
        shapes = expected_shapes(bert(layers, hidden))
        encoder = sum(math.prod(shape) for key, shape in shapes.items() if key.startswith("bert."))
        assert round(encoder / 1e6, 2) == millions


def test_the_page_on_multiplicativity_holds_the_tables_that_its_script_prints(paper):
    page = Path(__file__).parents[2] / "docs" / "multiplicativity.md"
    assert paper.tables() in page.read_text(encoding="utf-8")
