import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from dissected import dissected_rows, marked
from hostile import HOSTILE
from multipress.analysis import analyze_cells
from multipress.report import report_page
from multipress.report.figure import keys_of
from multipress.report.page_data import page_data

PARTS = (
    "html head meta link title style body header h1 h2 h3 main section div p strong em small fieldset legend",
    "label input svg g path text table thead tbody tr th td details summary pre dl dt dd script",
    "ul li a select option button output aside noscript span br circle rect",
)
TAGS = {tag for part in PARTS for tag in part.split()}
ORIGIN = {
    "versions": [{"cells": 2, "facts": {"torch": "2"}}],
    "computer": [{"cells": 1, "facts": {}}],
}


class Page(HTMLParser):
    """All elements and their attributes, and the text of the page's style and script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.raw, self.text, self._in = [], {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self._in.append(tag)

    def handle_endtag(self, tag):
        if self._in and self._in[-1] == tag:
            self._in.pop()

    def handle_data(self, data):
        if self._in:
            self.raw.setdefault(self._in[-1], []).append(data)
        else:
            self.text.append(data)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The mixed model has tests of its own."""
    monkeypatch.setattr("multipress.analysis.mixed_model", lambda _: {"rows": [], "sd": {}, "num_cells": 0, "note": ""})


def page(rows, mark="", command="multipress report", dissections=None):
    studies = {f"s{mark}": {"cells": [], "spec": {f"name{mark}": [mark, {"deep": {mark: mark}}], "seeds": [0]}}}
    origin = {kind: [{"cells": 1, "facts": {mark: [mark]}}, *found] for kind, found in ORIGIN.items()}
    parts = [{"group": mark, "weights": 1, "bytes": 2}, {"group": "head", "weights": 0, "bytes": 1}]
    made = {row["run_id"]: {"command": f"multipress train {mark}", "parts": parts} for row in rows}
    return report_page(analyze_cells(rows), studies, origin, command + mark, made, dissections)


def shape(text):
    return [(tag, sorted(attrs)) for tag, attrs in Page(text).elements]


def check_harmless(text):
    found = Page(text)
    for tag, attrs in found.elements:
        assert tag in TAGS, tag
        for name, value in attrs.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "action", "formaction", "style", "xlink:href"), name
            assert name != "href" or value in ("data:,", "#cells")
    scripts = [attrs for tag, attrs in found.elements if tag == "script"]
    data = [{"type": "application/json", "id": name} for name in ("data", "shapes", "csv")]
    assert scripts == [*data, {}]
    for text in found.raw["script"][:3]:
        json.loads(text)


@pytest.mark.parametrize("mark", [*HOSTILE, "".join(HOSTILE)])
def test_a_hostile_text_in_every_field_adds_no_element_and_no_attribute(make_rows, mark):
    text = page(make_rows(mark), mark)
    check_harmless(text)
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    harmless = "".join(c if c.isalnum() else "y" for c in mark)
    expected = [tag for tag, _ in shape(page(make_rows(harmless), harmless))]
    # Names too long for a label in the chart are left out, there and here alike, so that only counts of such
    # labels and the order of sorted settings may differ.
    found = [tag for tag, _ in shape(text)]
    assert {tag: found.count(tag) for tag in set(found) - {"text", "path"}} == {
        tag: expected.count(tag) for tag in set(expected) - {"text", "path"}
    }


@pytest.mark.parametrize("mark", HOSTILE)
def test_dissections_beside_the_runs_are_parts_of_the_page_and_as_harmless(make_rows, mark):
    rows = dissected_rows()
    text = page(make_rows(), dissections={"dense": rows, f"other{mark}": marked(rows, mark)})
    check_harmless(text)
    words = "".join(Page(text).text)
    assert words.count("Inside: what compression changed in ") == 2
    assert words.count("What probes find") == 2
    assert "Inside:" not in page(make_rows())


@pytest.mark.parametrize("dissections", [{}, {"dense": dissected_rows()}])
def test_the_policy_lets_the_pages_own_style_and_script_run_and_nothing_else(make_rows, dissections):
    found = Page(page(make_rows(), dissections=dissections))
    (policy,) = [a["content"] for tag, a in found.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        text = found.raw[kind][-1]
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_page_asks_for_nothing(make_rows):
    text = page(make_rows()).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.search(r"url\(|@import|https?:|//[a-z]|fetch|XMLHttp|import\(", text.replace("http-equiv", ""))


def test_the_same_study_gives_the_same_page(make_rows):
    assert page(make_rows()) == page(make_rows())


def test_the_order_of_the_runs_is_that_of_the_points_in_every_process(make_rows):
    """Not that of a set of texts, which each process has anew."""
    rows = make_rows()
    analysis = analyze_cells(rows)
    made = {row["run_id"]: {"command": "x", "parts": []} for row in rows}
    data = page_data(analysis, keys_of(analysis["groups"]), made)
    assert list(data["runs"]) == list(dict.fromkeys(run_id for point in data["points"] for run_id in point["runs"]))


def test_the_page_shows_every_group_every_failure_and_why(make_rows):
    rows = make_rows()
    text = " ".join(Page(page(rows)).text)
    groups = analyze_cells(rows)["groups"]
    assert page(rows).count("<tr") > len(groups)
    for word in (
        "2 models",
        "2 tasks",
        "8 combinations",
        "2 seeds",
        "61 of 64",
        "2 failed",
        "1 waiting",
        "stub",
    ):
        assert word in text, word
    for row in rows:
        if row["state"] != "done":
            assert row["run_id"] in text


def test_a_study_with_nothing_done_gives_a_page_all_the_same(make_rows):
    rows = [{**row, "state": "failed", "score": None, "weights_bytes": None} for row in make_rows()]
    text = page(rows)
    check_harmless(text)
    assert "64 cells without a result" in text
    assert "64 failed" in text


def test_one_cell_alone_gives_a_page(make_rows):
    text = page(make_rows()[:1])
    check_harmless(text)
    assert "1 model × 1 task × 1 combination × 1 seed" in text


def test_counts_are_multiplied_only_where_the_product_is_the_number_of_cells(make_rows):
    assert "2 models × 2 tasks × 8 combinations × 2 seeds: 61 of 64 cells" in page(make_rows())
    assert re.search(r"2 models, 2 tasks, 8 combinations, 2 seeds: \d+ of 63 cells", page(make_rows()[:-1]))


def test_a_thousand_cells_stay_below_five_megabytes(make_rows):
    rows = make_rows(tasks=tuple(f"task-{i}" for i in range(32)))[:1000]
    rows = [{**row, "run_id": f"{i:012x}"} for i, row in enumerate(rows)]
    made = {row["run_id"]: {"command": "multipress train " + "x" * 700, "parts": []} for row in rows}
    text = report_page(analyze_cells(rows), {}, ORIGIN, "multipress report", made)
    assert len(rows) == 1000
    assert len(text.encode()) < 5e6


def test_the_page_names_a_winner_for_each_budget_and_every_chart_has_a_table(make_rows):
    rows = make_rows()
    found = Page(page(rows))
    text = " ".join(found.text)
    data = json.loads(found.raw["script"][0])
    best = max((p for p in data["points"] if p["task"] == data["tasks"][0] and p["score"]), key=lambda p: p["score"])
    assert f"{best['score']:.4f}" in text
    assert text.count("The numbers") == 2
    charts = [attrs["id"] for tag, attrs in found.elements if tag == "div" and attrs.get("class") == "chart"]
    assert charts == ["chart", "products", "drops"]  # no predictions, so no intervals of effects


def test_points_of_the_mean_are_means_over_the_tasks(make_rows):
    data = json.loads(
        Page(page([{**row, "state": "done", "score": 0.5 + i / 200} for i, row in enumerate(make_rows())])).raw[
            "script"
        ][0]
    )
    means = [p for p in data["points"] if p["task"] == "mean over tasks"]
    assert len(means) == 16
    for mean in means:
        own = [
            p
            for p in data["points"]
            if p["task"] != mean["task"] and (p["model"], p["label"]) == (mean["model"], mean["label"])
        ]
        assert len(own) == 2
        assert mean["score"] == pytest.approx(sum(p["score"] for p in own) / 2, abs=1e-6)
