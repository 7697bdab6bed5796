"""Text from an artifact, a data file or an error does nothing to the terminal that it is printed on."""

import json
import re

import pytest

from multipress import errors
from multipress.cli.main import app
from multipress.runtime import Predictor

# Title, clear screen, one-byte CSI, right-to-left override, a line end, half a character.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\nend\ud800"
# Tab and line end alone may come: they are the layout of what is printed.
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def artifact(write_tiny, tmp_path_factory):
    text = HOSTILE.replace("\ud800", "")
    task = {
        "name": text, "target": "classes", "labels": [f"{name}\t{text}" for name in "abc"], "metrics": ["accuracy"],
        "score": "accuracy", "is_pair": False,
    }  # fmt: skip
    return write_tiny(tmp_path_factory.mktemp("hostile") / "a", bits=4, task=task)


def test_predict_prints_hostile_labels_and_texts_as_text(artifact, run, tmp_path):
    (tmp_path / "texts.txt").write_bytes(HOSTILE.replace("\n", "").encode("utf-8", "replace"))
    unknown = "warning: 1 of 1 rows have no word that the model knows; what is predicted for them means nothing.\n"
    for arguments, told in ((["w1"], ""), ([HOSTILE], unknown), (["--file", tmp_path / "texts.txt"], unknown)):
        code, out, err = run("predict", artifact.folder, *arguments)
        assert (code, err) == (0, told)
        assert not STEERS.search(out)
        assert out.count("\n") == 1
        assert out.count("\t") == 2
        assert "owned" in out


def test_json_is_plain_and_gives_the_text_back(artifact, run, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "w1", "label": artifact.facts["task"]["labels"][0]}))
    for arguments in (("predict", artifact.folder, "w1"), ("inspect", artifact.folder),
                      ("evaluate", artifact.folder, "--data", file)):  # fmt: skip
        code, out, _ = run(*arguments, "--json")
        assert code == 0
        assert not STEERS.search(out)
    assert (
        json.loads(run("predict", artifact.folder, "w1", "--json")[1])[0]["label"]
        == Predictor(artifact)(["w1"])[0].label
    )


def test_evaluate_and_measure_say_hostile_names_as_text(artifact, run, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nw1,\x1b[2Jx\n", newline="")
    for arguments in (
        ("evaluate", artifact.folder),
        ("evaluate", artifact.folder, "--task", HOSTILE),
        ("evaluate", artifact.folder, "--data", file),
        ("evaluate", artifact.folder, "--data", tmp_path / f"x{HOSTILE}.csv"),
        ("predict", tmp_path / HOSTILE, "w1"),
        ("measure", artifact.folder, "--repeats", 1),
    ):
        _, out, err = run(*arguments)
        assert not STEERS.search(out + err)
        assert err.count("\n") == 1
        assert err.startswith(("multipress: ", "warning: no quality was measured: "))


def test_an_error_and_its_traceback_are_printed_as_text(run, monkeypatch):
    def act() -> None:
        raise errors.DataError(HOSTILE)

    monkeypatch.setattr(app, "registered_commands", [])
    app.command("act")(act)
    app.command("other")(act)
    for arguments in (["act"], ["act", "--debug"]):
        code, _, err = run(*arguments)
        assert code == 2
        assert not STEERS.search(err)
        assert "owned" in err
