"""`multipress compress` as a user types it: a classifier and files it has never seen, down to the winner."""

import json
import random
import shutil

import pytest

import multipress as mp
from multipress.budget.asked import Asked
from multipress.budget.fitting import _Fitting
from multipress.budget.limits import Budget
from multipress.budget.pace import BATCHES, ENOUGH_STEPS, FEWEST_ROWS, ROUNDS, SHARE, Pace, pace
from multipress.budget.rows import SearchRows
from multipress.budget.tries import Recipe
from multipress.cli.main import main
from multipress.engines.job import ANYWHERE
from multipress.spec import DataSpec

QUICK = ["--epochs", "8", "--max-length", "16", "--time-limit", "60"]  # more than it takes, so that it ends by itself


@pytest.fixture
def files(tmp_path):
    chance = random.Random(0)

    def write(name, count):
        rows = []
        for _ in range(count):
            label = chance.choice(["lost", "here"])
            words = ["my", "card", "is", label, "number", str(chance.randrange(10))]
            chance.shuffle(words)
            rows.append({"text": " ".join(words), "label": label})
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return ["--train", write("train.jsonl", 400), "--dev", write("dev.jsonl", 200)]


def parts(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_an_encoder_is_fine_tuned_and_compressed_until_it_fits(files, tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("multipress.budget.search.PATIENCE", 1)
    out = tmp_path / "out"
    command = ["compress", str(tiny_folder), *files, *QUICK, "--max-mb", "0.05", "-o", str(out), "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    size = sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md")
    rows = {row["name"]: row for row in printed["rows"]}
    assert rows["after"]["package_bytes"] == size <= 50_000 < rows["before"]["package_bytes"]
    assert all(row["low"] <= row["score"] <= row["high"] for row in rows.values())
    assert abs(printed["num_rows"] - 100) < 5  # about half of them: rows of one text stay together
    assert min(row["score"] for row in rows.values()) > 0.8
    assert (tmp_path / "out.search" / "report.html").stat().st_size > 10_000
    card = (out / "README.md").read_text()
    for words in (
        f"# {tiny_folder.name}, fine-tuned",
        f"({printed['num_rows']} rows)",
        " of the model before | ",
        "latency, 1 x 16 tokens",
    ):
        assert words in card
    made = parts(tmp_path / "out.search" / "runs")
    # The same command finds all done; the winner is the same, byte for byte.
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == printed["recipe"]
    assert parts(tmp_path / "out.search" / "runs") == made
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    timed = (before.pop("README.md"), after.pop("README.md"))  # the latency is measured anew
    assert after == before
    assert all(b"latency" in card for card in timed)
    # The artifact is like any other.
    assert main(["evaluate", str(out), "--data", files[3], "--json"]) == 0
    assert len(mp.open(out)(["w1 w2"])) == 1
    # A smaller limit takes the winner's place.
    command[command.index("--max-mb") + 1] = "0.045"
    assert main(command) == 0
    assert sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md") <= 45_000


@pytest.mark.slow
def test_what_cannot_be_is_said_and_nothing_is_lost(files, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["compress", str(tiny_folder), *files, *QUICK, "-o", str(out)]
    assert main([*command, "--max-mb", "0.001"]) == 2
    assert "cannot be made as small as 0.001 MB" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--max-drop", "0", "--max-ms", "0.000001"]) == 2
    assert "One of 2 layers alone takes about" in capsys.readouterr().err
    assert not out.exists()


def test_another_folder_at_the_place_is_left_alone(files, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(tiny_folder, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["compress", str(tiny_folder), *files, *QUICK, "--max-mb", "1", "-o", str(out)]) == 2
    assert "is no result of this search" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_python_call_takes_the_options_by_name_and_refuses_as_the_command_does(files, tiny_folder, tmp_path):
    with pytest.raises(TypeError, match="max_gb"):
        mp.compress(str(tiny_folder), files[1], files[3], max_gb=1)
    with pytest.raises(mp.SettingError, match="No limit is given"):
        mp.compress(str(tiny_folder), train=files[1], dev=files[3], out=tmp_path / "out")


def test_the_pace_is_kept_for_the_same_command(tiny_folder, tmp_path):
    """Another calibration of the computer must not give other runs."""

    class Tries:
        facts = ("a model", "its rows")

        def __init__(self, seconds):
            self._seconds = seconds

        def seconds(self, recipe):
            return self._seconds if recipe.rate else self._seconds / 3  # as dense rows would take

    said = []
    asked = Asked(str(tiny_folder), DataSpec(task="banking77"))
    fitting = _Fitting(asked, Budget(max_mb=1), tmp_path / "out", ANYWHERE, said.append, lambda run, ended, total: None)
    (tmp_path / "out.search").mkdir()
    rows = SearchRows(asked.data, None, None, None, None, 10_000)
    first = fitting._pace(Tries(50.0), Recipe("m"), rows)
    assert (first.epochs, first.rows) == (4, 0)
    assert fitting._pace(Tries(1.0), Recipe("m"), rows) == first
    assert len(said) == 1
    other = Tries(1.0)
    other.facts = ("a model", "other rows")
    assert fitting._pace(other, Recipe("m"), rows) != first


@pytest.mark.parametrize("seconds", [0.5, 20, 140, 3_000, 100_000])
def test_as_many_rounds_as_are_planned_fit_into_the_time(seconds):
    chosen = pace(seconds, 10_000, 1_800)
    each = seconds * chosen.epochs * (chosen.rows or 10_000) / 10_000
    assert each * ROUNDS <= SHARE * 1_800 or chosen == Pace(1, FEWEST_ROWS, BATCHES[-1])
    assert chosen.epochs == 1 or not chosen.rows
    assert chosen.of(SearchRows(DataSpec(), None, None, None, None, 10_000)).num_train == (chosen.rows or 10_000)


def test_epochs_that_are_asked_for_are_had_with_all_rows():
    assert pace(3_000, 10_000, 60, epochs=4) == Pace(4)
    assert pace(3_000, 100, 60) == Pace(1, batch_size=BATCHES[-1])  # fewer rows than the fewest that are drawn


@pytest.mark.parametrize("rows", [300, 2_000, 5_000, 10_000, 100_000])
def test_where_there_are_few_steps_they_are_smaller(rows):
    chosen = pace(1, rows, 1_800)
    steps = rows * chosen.epochs / chosen.batch_size
    assert steps >= ENOUGH_STEPS or chosen.batch_size == BATCHES[-1]
    assert chosen.batch_size == BATCHES[0] or steps < 2 * ENOUGH_STEPS
