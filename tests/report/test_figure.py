import copy
import random
import re
from xml.etree import ElementTree

import pytest

from multipress.analysis import analyze_cells
from multipress.report import figure_svg
from multipress.report.axes import linear_scale, log_scale

NS = "{http://www.w3.org/2000/svg}"


def points(svg, panel=0):
    """Title and place of each point of a panel."""
    root = ElementTree.fromstring(svg)
    group = [g for g in root.findall(f"{NS}g") if g.find(f"{NS}text[@class='head']") is not None][panel]
    found = {}
    for point in group.findall(f"{NS}g"):
        x, y = re.findall(r"-?[\d.]+", point.get("transform"))
        found[point.find(f"{NS}title").text] = (float(x), float(y))
    return found


@pytest.mark.parametrize("size", ["weights_bytes", "ideal_bytes"])
def test_every_group_with_a_score_is_one_point_in_its_place(analysis, size):
    svg = figure_svg(analysis, size)
    for panel, task in enumerate(("sst2", "banking77")):
        groups = [g for g in analysis["groups"] if g["task"] == task and g["score"]["mean"] is not None]
        found = points(svg, panel)
        assert len(found) == len(groups) == 16
        places = {
            (g["model"], g["label"]): place
            for g in groups
            for title, place in found.items()
            if title.startswith(f"{g['model']}, {g['label']}:")
        }
        for one in groups:
            for other in groups:
                a, b = places[one["model"], one["label"]], places[other["model"], other["label"]]
                if one["sizes"][size] < other["sizes"][size]:
                    assert a[0] <= b[0]
                if one["score"]["mean"] < other["score"]["mean"]:
                    assert a[1] >= b[1]
                assert 0 <= a[0] <= 440
                assert 0 <= a[1] <= 320


def test_the_figure_is_the_same_from_printed_json(analysis):
    import json

    assert figure_svg(json.loads(json.dumps(analysis))) == figure_svg(analysis)


def test_a_hostile_name_leaves_the_figure_well_formed(make_rows):
    mark = "</text><script>alert(1)</script>&\x00\ud800\"'"
    svg = figure_svg(analyze_cells(make_rows(mark)))
    tags = {element.tag.removeprefix(NS) for element in ElementTree.fromstring(svg.encode()).iter()}
    assert tags <= {"svg", "title", "style", "rect", "g", "text", "path", "polyline"}


def test_different_method_sets_have_different_colors_and_models_different_shapes(analysis):
    root = ElementTree.fromstring(figure_svg(analysis))
    legend = [g for g in root.findall(f"{NS}g") if g.find(f"{NS}text[@class='head']") is None]
    entries = {g.find(f"{NS}text").text: g.find(f"{NS}path[@fill-opacity]") for g in legend}
    assert {"big", "small", "dense", "Q+KD+P"} <= set(entries)
    sets = [path.get("class") for name, path in entries.items() if name not in ("big", "small")]
    assert len(set(sets)) == len(sets) == 8
    assert entries["big"].get("d") != entries["small"].get("d")


def test_a_task_without_a_result_says_so(analysis):
    empty = copy.deepcopy(analysis)
    for group in empty["groups"]:
        group["score"]["mean"] = None
    assert figure_svg(empty).count("no run of this task is done") == 2


def test_scales_hold_all_values_and_their_ticks_lie_inside():
    rng = random.Random(0)
    for _ in range(500):
        values = [10 ** rng.uniform(-3, 9) for _ in range(rng.randint(1, 5))]
        scores = [rng.random() ** 3 for _ in range(rng.randint(1, 5))]
        for scale, own in ((log_scale(values, 0, 100), values), (linear_scale(scores, 100, 0), scores)):
            assert all(-1e-9 <= scale(value) <= 100 + 1e-9 for value in own)
            assert all(scale.low <= tick <= scale.high * (1 + 1e-12) for tick in scale.ticks)
            assert 2 <= len(scale.ticks) <= 14
        assert 2 <= len(linear_scale(scores, 0, 1).ticks) <= 9


def test_equal_scores_and_sizes_still_have_an_axis():
    assert linear_scale([0.5, 0.5], 0, 100)(0.5) == pytest.approx(50)
    assert log_scale([7.0], 0, 100)(7.0) == pytest.approx(50)
