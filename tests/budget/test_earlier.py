"""What earlier studies and searches say of another model, on stores that are really trained and on known numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from multipress.budget.earlier import Earlier, as_results, best_learning_rate, read_earlier
from multipress.budget.tries import Recipe
from multipress.cli.main import main
from multipress.errors import NoStoreError, SettingError
from multipress.size_ahead import SizeAhead

STUDY = """
[study]
name = "before"
seeds = [0]

[models]
names = ["{model}"]

[tasks]
train = "{train}"
dev = "{dev}"

[training]
epochs = 1
learning_rates = [{rate}]
max_length = 8

[methods]
subsets = [[], ["quantization"], ["quantization", "pruning"]]

[methods.quantization]
rate = 2.0
steps = "tensor"

[methods.pruning]
sparsity = 0.5
"""


@pytest.fixture
def runs(tiny_folder, tmp_path):
    """A folder of runs with a dense one, one with a rate, and one that is pruned too."""
    files = {}
    for part, start in (("train", 0), ("dev", 40)):
        rows = [{"text": f"w{i % 7} w{i % 5} n{i}", "label": "ab"[i % 2]} for i in range(start, start + 40)]
        files[part] = tmp_path / f"before-{part}.jsonl"
        files[part].write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = STUDY.format(model=tiny_folder, rate=2e-3, **files)
    (tmp_path / "study.toml").write_text(study)
    folder = tmp_path / "runs"
    assert main(["study", "run", str(tmp_path / "study.toml"), "--runs", str(folder)]) == 0
    return folder


def test_a_studys_runs_are_read_less_the_dense_one_and_without_those_of_other_methods(runs, tiny_folder):
    cells = {tuple(cell["methods"]): cell for cell in _cells(runs)}
    assert len(cells) == 3
    (found,) = read_earlier([runs])
    assert found.recipe == Recipe(str(tiny_folder), rate=2.0, learning_rate=2e-3, epochs=1)
    assert found.change == pytest.approx(cells["quantization",]["score"] - cells[()]["score"])
    assert Earlier.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert best_learning_rate([found]) == 2e-3


def _cells(runs):
    from multipress.store import Store

    return Store(runs).cells("before")


def test_a_folder_that_is_none_of_runs_is_refused(tmp_path):
    with pytest.raises(NoStoreError):
        read_earlier([tmp_path / "nothing"])


def earlier(rate, change, group=0, bits: float | None = 1.0, words="all"):
    return Earlier(Recipe("other", bits, words, rate, epochs=9), group, change)


def test_the_middle_of_the_best_learning_rates_is_taken_whatever_is_best_without_a_rate():
    first = [earlier(1e-4, -0.1), earlier(1e-3, -0.02), earlier(3e-3, 0.0, bits=None)]
    second = [earlier(3e-4, -0.2, group=1), earlier(1e-4, -0.3, group=1)]
    assert best_learning_rate(first) == 1e-3
    assert best_learning_rate([*first, *second, earlier(2e-3, 0.0, group=2)]) == 1e-3
    assert best_learning_rate([earlier(3e-3, 0.0, bits=None)]) is None


def test_results_have_the_models_own_size_and_score_and_its_own_passes():
    class Sizes:
        def size(self, recipe):
            if recipe.words == "rows":
                raise SettingError("no such words")
            assert recipe.model == "own"
            return SizeAhead(0, round(1000 * (recipe.rate or 8)), False)

    base = Recipe("own", learning_rate=5e-4, epochs=2, heads=0.5)
    told = [earlier(1e-3, -0.02), earlier(1e-3, 0.01, bits=None, words="general"), earlier(1e-3, 0.0, words="rows")]
    first, second = as_results(told, base, 0.9, Sizes())  # type: ignore[arg-type]
    assert first.recipe == replace(base, rate=1.0, learning_rate=1e-3)
    assert (first.score, first.package_bytes) == (pytest.approx(0.88), 1000)
    assert (second.score, second.package_bytes) == (pytest.approx(0.91), 8000)
    assert second.artifact == Path()


@pytest.mark.slow
def test_a_search_begins_with_the_learning_rate_that_was_best(runs, tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("multipress.budget.search.PATIENCE", 0)
    rows = [{"text": f"{'lost' if i % 2 else 'here'} w{i % 9} n{i}", "label": "ab"[i % 2]} for i in range(400)]
    for name, part in (("train", rows[:200]), ("dev", rows[200:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = ["--train", str(tmp_path / "train.jsonl"), "--dev", str(tmp_path / "dev.jsonl")]
    limits = ["--max-mb", "0.05", "--epochs", "8", "--max-length", "16", "--time-limit", "60"]
    command = ["compress", str(tiny_folder), *files, *limits, "-o", str(tmp_path / "out")]
    assert main([*command, "--learn-from", str(tmp_path / "nothing")]) == 2
    assert not (tmp_path / "out.search").exists()
    capsys.readouterr()
    assert main([*command, "--learn-from", str(runs)]) == 0
    assert "Earlier runs that a search could have tried: 1; learning rates of about 0.002" in capsys.readouterr().err
    coded = [cell for cell in _search_cells(tmp_path / "out.search" / "runs") if cell["methods"]]
    assert {0.002, 0.006} <= {cell["learning_rate"] for cell in coded}


def _search_cells(runs):
    from multipress.store import Store

    return Store(runs).cells()
