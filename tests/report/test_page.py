import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from multipress.analysis import analyze_cells
from multipress.report import report_page

PARTS = (
    "html head meta link title style body header h1 h2 h3 main section div p strong em small fieldset legend",
    "label input svg g path text polyline table thead tbody tr th td details summary pre dl dt dd script",
)
TAGS = {tag for part in PARTS for tag in part.split()}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title></svg><svg/onload=alert(1)>",
    "--><!--",
    "]]>",
    "&lt;b&gt;&#x3c;i>",
    "javascript:alert(1)",
    "\x00\x1b[31m\r\n\u202e\u2028",
    "{{7*7}}${7*7}{tolerance}%s",
    "\ud800",
]
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


def page(rows, mark="", command="multipress report"):
    studies = {f"s{mark}": {"cells": [], "spec": {f"name{mark}": [mark, {"deep": {mark: mark}}], "seeds": [0]}}}
    origin = {kind: [{"cells": 1, "facts": {mark: [mark]}}, *found] for kind, found in ORIGIN.items()}
    return report_page(analyze_cells(rows), studies, origin, command + mark)


def shape(text):
    return [(tag, sorted(attrs)) for tag, attrs in Page(text).elements]


def check_harmless(text):
    found = Page(text)
    for tag, attrs in found.elements:
        assert tag in TAGS, tag
        for name, value in attrs.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "action", "formaction", "style", "xlink:href"), name
            assert name != "href" or value == "data:,"
    scripts = [attrs for tag, attrs in found.elements if tag == "script"]
    assert scripts == [{}]


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


def test_the_policy_lets_the_pages_own_style_and_script_run_and_nothing_else(make_rows):
    found = Page(page(make_rows()))
    (policy,) = [a["content"] for tag, a in found.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (text,) = found.raw[kind]
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_page_asks_for_nothing(make_rows):
    text = page(make_rows())
    assert not re.search(r"url\(|@import|https?:|//[a-z]|fetch|XMLHttp|import\(", text.replace("http-equiv", ""))


def test_the_same_study_gives_the_same_page(make_rows):
    assert page(make_rows()) == page(make_rows())


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
    assert "no run of this task is done" in text
    assert "64 failed" in text


def test_one_cell_alone_gives_a_page(make_rows):
    text = page(make_rows()[:1])
    check_harmless(text)
    assert "1 model × 1 task × 1 combination × 1 seed" in text
