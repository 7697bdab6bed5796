"""The dissection as words and as a page: what an interval supports is said, hostile text does nothing."""

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.stats import t as student

from dissected import dissected_rows, marked, measured, zeros
from multipress.errors import StoreError
from multipress.report.dissection import dissection_figure, dissection_page, dissection_sections
from multipress.report.dissection_contrasts import chance, least
from multipress.report.dissection_rows import dissection_csv, read_dissections
from multipress.report.dissection_words import dissection_table, findings, lost_probes
from multipress.report.dissection_zeros import zeros_by_kind
from multipress.spec import DataSpec, RunSpec
from multipress.store import Store

HOSTILE = "</style><script>alert(1)</script>\"'&<img src=x onerror=1>\x1b[31m"


@pytest.fixture
def rows():
    return dissected_rows()


def test_what_differs_is_said_with_its_layer_and_interval(rows):
    (sentence,) = findings(rows)
    assert sentence.startswith("small: least like the reference in layer 2: linear CKA 0.700 (0.690 to 0.710)")
    assert "the embeddings use 5 fewer components for 99 % of the variance" in sentence
    assert "attention changed most in layer 2: heads' maxcorr 0.600 (0.590 to 0.610)" in sentence
    assert "most was pruned in value of layer 1 (80%), least in query of layer 1 (20%)" in sentence
    assert "pos -5.0 points in the embeddings (-6.0 to -4.0)" in sentence


def test_what_an_interval_does_not_support_is_not_said(rows):
    assert "past_present" not in findings(rows)[0]
    unsure = measured("linear_cka", {0: 0.90, 1: 0.91}, spread=0.1) + measured("pca_components", {0: 9}, change=-0.001)
    (sentence,) = findings(unsure)
    assert "all layers are about as much like" in sentence
    assert "no layer uses clearly more or fewer components" in sentence


def test_a_layer_is_called_least_alike_of_those_that_it_is_told_apart_from():
    layers = {0: 0.99, 1: 0.9, 2: 0.801, 3: 0.8}
    (sentence,) = findings(measured("linear_cka", layers, spread=0.01))
    assert sentence.startswith("small: least like the reference in layer 3 (or 2: not told apart): linear CKA 0.800")
    # The same text moves all layers alike: a difference may be sure where the intervals overlap.
    together = measured("linear_cka", layers, spread=0.2)
    for row in together:
        sways = [0.1 * (-1) ** tenth for tenth in range(10)]
        sways[row["context"]["layer"]] += 1e-5
        row["context"]["without"] = [row["value"] + sway for sway in sways]
    (sentence,) = findings(together)
    assert sentence.startswith("small: least like the reference in layer 3: linear CKA 0.800 (0.600 to 1.000)")


def test_heads_that_no_longer_depend_on_the_word_are_named():
    assert findings(measured("attention_degenerate", {1: 2.0, 2: 4.0}, change=0.0)) == []  # nothing to say
    (sentence,) = findings(measured("attention_degenerate", {1: 2.0, 2: 4.0}, change=1.0))
    assert "whichever word looks: 2 in layer 1 (of the reference's 1), 4 in layer 2 (of the reference's 3)" in sentence


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.5, 2.262, -3.5, 9.0])
def test_chances_are_students(ratio):
    for parts in (10, 6):
        without = [(-1) ** part * 2 / (parts - 1) ** 0.5 for part in range(parts)]  # a standard error of 2
        expected = 2 * student(parts - 1).sf(abs(ratio))
        assert chance(2 * ratio, without) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_equal_layers_are_rarely_told_apart():
    """The smallest is chosen by the same numbers by which it is compared."""
    random = np.random.default_rng(0)
    named = 0
    for parts in random.normal(size=(1000, 7, 10)):
        rows = [
            {"value": own.mean(), "context": {"without": ((own.sum() - own) / (len(own) - 1)).tolist()}}
            for own in parts
        ]
        named += len(least(rows)) < len(rows)
    assert named / 1000 < 0.06


def test_a_loss_must_stand_however_many_probes_and_layers_were_looked_at():
    one = measured("probe_accuracy", {0: 0.6}, spread=0.01, change=-0.013, probe="pos")  # a chance of .011 alone
    assert [row["context"]["probe"] for row in lost_probes(one, "small")] == ["pos"]
    others = [row for n in range(9) for row in measured("probe_accuracy", {0: 0.6}, change=0.0, probe=f"p{n}")]
    assert lost_probes([*one, *others], "small") == []
    sure = measured("probe_accuracy", {0: 0.6}, change=-0.05, probe="arc")
    assert [row["context"]["probe"] for row in lost_probes([*one, *sure, *others], "small")] == ["arc"]


def test_what_is_lost_first_as_zeros_grow_is_said():
    def dissected(name, share, **changes):
        found = [zeros(1, "query", share)]
        for probe in ("pos", "arc", "tense", "topic"):
            found += measured("probe_accuracy", {0: 0.6}, change=changes.get(probe, 0.0), probe=probe)
        return [{**row, "context": {**row["context"], "artifact": name}} for row in found]

    rounds = dissected("tiny sst2 P49[importance=magnitude][3 rounds] seed 0", 49, arc=-0.1, pos=-0.05)
    rounds += dissected("tiny sst2 P20[importance=magnitude] seed 0", 20, arc=-0.1, tense=-0.1)
    rounds += dissected("tiny sst2 P20[importance=random] seed 0", 20, topic=-0.1)
    (sentence,) = [sentence for sentence in findings(rounds) if sentence.startswith("As zeros grow")]
    assert sentence == (
        "As zeros grow (20%, 49% of the blocks): losses beyond their interval, with more zeros too: arc from 20% on, "
        "then pos from 49% on; no lasting loss beyond its interval: tense, topic. "
        "More test examples show smaller losses."
    )


def test_the_terminal_shows_a_line_for_each_layer(rows):
    lines = dissection_table(rows)
    assert lines[0] == "small against dense, 9,814 words of WikiText-2"
    assert [line.split()[:2] for line in lines[2:5]] == [["0", "0.990"], ["1", "0.900"], ["2", "0.700"]]
    assert any(line.startswith("pos ") and "0.800(-5.0)" in line for line in lines)


class Reader(HTMLParser):
    """Tags that are open, and every tag and attribute there is."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), set(), ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in ("meta", "link", "br", "circle", "path", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if tag not in ("circle", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_has_every_part_and_is_whole(rows):
    page = read(dissection_page(rows, "multipress dissect a --against b"))
    for words in ("What differs", "Layer by layer", "with intervals", "Across layers", "Neurons that all have",
                  "Which head matches which",
                  "Where the zeros are", "What probes find", "multipress dissect a --against b"):  # fmt: skip
        assert words in page.text
    assert "2 0.90" in page.text


def test_zeros_are_told_by_kind_with_biases_and_a_decoders_apart():
    found = []
    for side, layer in (("encoder", 1), ("encoder", 2), ("decoder", 3)):
        for kind, is_bias, size, pruned in (
            ("key", False, 100, 10 * layer),
            ("key", True, 10, 10),
            ("norm", True, 5, 5),
        ):
            one = zeros(layer, kind, pruned)
            one["context"] |= {"tensor": f"model.{side}.layers.0", "is_bias": is_bias, "size": size}
            found.append(one)
    assert zeros_by_kind(found, "small") == {
        "encoder key": 0.15, "decoder key": 0.3, "encoder key bias": 1.0, "decoder key bias": 1.0
    }  # fmt: skip
    page = read(dissection_page(found, ""))
    assert "By kind" in page.text
    assert "decoder key bias" in page.text


def test_biases_that_were_pruned_are_told_and_those_of_norms_which_never_are_do_not_count():
    found = [zeros(1, kind, pruned) for kind, pruned in (("query", 40), ("key", 60), ("value", 20), ("norm", 0))]
    biases = [{**one, "context": one["context"] | {"is_bias": True}} for one in found]
    said = " ".join(findings([*found, *biases]))
    assert "of matrices most was pruned in key of layer 1" in said
    assert "; of biases most in key (60%), least in value (20%)" in said
    assert "of biases" not in " ".join(findings(found))


def test_the_csv_has_zeros_heads_and_what_all_have_but_no_layers_of_other_depth(rows):
    found = list(csv.DictReader(dissection_csv(rows).splitlines()))
    assert {row["name"] for row in found} == {row["name"] for row in rows}
    assert all(row["low"] for row in found if row["name"] == "linear_cka")
    assert [row["match"] for row in found if row["name"] == "attention_head_match"] == ["2", "2"]
    assert {row["matrix"] for row in found if row["name"] == "zero_share"} == {"query", "value"}


def test_the_ninth_line_is_told_from_the_first():
    rows = [row for n in range(9) for row in measured("linear_cka", {0: 1.0, 1: 0.9}, artifact=f"a{n}")]
    assert dissection_figure(rows).count('class="lines dashed c0"') == 1


def test_parts_without_rows_are_left_out():
    parts = dissection_sections(measured("linear_cka", {0: 1.0, 1: 0.9}))
    text = "".join(parts)
    assert "What probes find" not in text
    assert "Which head" not in text


def test_hostile_names_do_nothing(rows):
    hostile = marked(rows, HOSTILE)
    page = dissection_page(hostile, HOSTILE)
    found = read(page)
    assert found.tags.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") or name == "style" for name in found.attributes)
    assert "\x1b" not in page


def test_only_the_pages_own_style_may_run_and_nothing_is_fetched(rows):
    page = dissection_page(rows, "")
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|url\(", page)


def test_rows_beside_runs_are_found_by_what_they_were_compared_with_and_on_what(rows, tmp_path):
    store = Store(tmp_path)
    first, second, other = ("0" * 12, "1" * 12, "2" * 12)
    for run_id in (first, second, other):
        store.register(run_id, RunSpec("train", "tiny", DataSpec(task="t")).to_json())
        store.claim(run_id).commit()

    def keep(run_id, name, kept):
        attempt = store.claim(run_id, name)
        (attempt.folder / "measurements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        attempt.commit()

    keep(first, "dissect_aaaaaaaa-1", rows)
    keep(second, "speed_1x20-1", rows)
    assert store.measured(first) == ["dissect_aaaaaaaa-1"]
    assert read_dissections(store, {first: "", second: ""}) == {"dense": rows}
    assert read_dissections(store, {second: ""}) == {}
    keep(other, "dissect_aaaaaaaa-1", rows)
    names = {row["context"]["artifact"] for row in read_dissections(store, {first: "", other: ""})["dense"]}
    assert names == {"small", "small, other", f"small ({other})", f"small, other ({other})"}
    # The table of a study has names that say which settings differ.
    (called,) = read_dissections(store, {first: "P60"}).values()
    assert {row["context"]["artifact"] for row in called} == {"P60"}
    # Another look at the same text with other probes joins; another text is a part of its own.
    again = [{**row, "context": {**row["context"], "seeds": 9}} for row in rows]
    more = [*again, {**rows[0], "name": "more"}]
    keep(first, "dissect_bbbbbbbb-1", more)
    (found,) = read_dissections(store, {first: ""}).values()
    assert [row["name"] for row in found] == [row["name"] for row in more]
    keep(first, "dissect_cccccccc-1", [{**row, "context": {**row["context"], "text": "my text"}} for row in rows])
    parts = read_dissections(store, {first: ""})
    few = [{**row, "context": {**row["context"], "text": "my text", "words": 99}} for row in rows]
    keep(second, "dissect_dddddddd-1", few)
    several = read_dissections(store, {first: "", second: ""})
    assert list(several) == ["dense, on WikiText-2", "dense, on my text, 9,814 words", "dense, on my text, 99 words"]
    # What an older version found is not mixed with what a newer one did.
    keep(second, "dissect_aaaaaaaa-10", [{**row, "value": 0.0} for row in rows])
    (newer,) = read_dissections(store, {second: ""}).values()
    assert {row["value"] for row in newer} == {0.0}
    assert list(parts) == ["dense, on WikiText-2", "dense, on my text"]
    assert list(map(len, parts.values())) == [len(more), len(rows)]
    attempt = store.claim(other, "dissect_bbbbbbbb-1")
    (attempt.folder / "measurements.jsonl").write_text("no\n")
    attempt.commit()
    with pytest.raises(StoreError, match="damaged"):
        read_dissections(store, {other: ""})
