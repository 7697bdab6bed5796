"""The documents say what is true: generated pages are fresh, links lead somewhere, blocks run."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from multipress.plan import Plan
from multipress.spec import DataSpec, TrainingSpec
from multipress.study_file import parse_study
from multipress.tickets import TicketSpec

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^<!-- readme-run -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("docs/cli.md", "cli_page"),
        ("docs/methods.md", "methods_page"),
        ("docs/multiplicativity.md", "coverage_page"),
        ("README.md", "readme_page"),
    ],
)
def test_a_generated_page_is_fresh(name: str, made: str, generate: ModuleType) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == getattr(generate, made)(), "run `make docs`"


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/analysis.json")), ids=lambda path: path.parent.name)
def test_the_tables_of_a_published_grid_are_fresh(path: Path, generate: ModuleType) -> None:
    page = (path.parent / "tables.md").read_text(encoding="utf-8")
    assert page == generate.tables_page(path), "run `make docs`"


@pytest.fixture
def elsewhere(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the repository."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- results:begin -->\nold\n<!-- results:end -->\n", encoding="utf-8")
    marks = "<!-- coverage:begin -->\nold\n<!-- coverage:end -->\n"
    (tmp_path / "docs" / "multiplicativity.md").write_text(marks, encoding="utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "methods_page", lambda: "methods\n")
    return tmp_path


def test_the_check_of_the_docs_fails_until_they_are_written(
    generate: ModuleType, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 1
    assert not (elsewhere / "docs" / "cli.md").exists()
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0


def test_the_readme_shows_published_results_and_failures(generate: ModuleType, elsewhere: Path) -> None:
    from multipress.analysis import Outcome, analyze_cells

    def cell(seed: int, methods: list[str], task: str, score: float | None) -> dict[str, object]:
        state = "failed" if score is None else "done"
        ideal, weights = (2_000_000, 2_500_000) if methods else (8_000_000, 4_000_000)
        return {
            "run_id": f"{seed}-{task}-{methods}", "model": "tiny", "task": task, "methods": methods,
            "settings": {name: {} for name in methods}, "seed": seed, "state": state, "why": "",
            "score": score, "ideal_bytes": ideal, "weights_bytes": weights, "package_bytes": 5_000_000,
            "dense_bytes": 8_000_000, "learning_rate": 1e-4, "metrics": {}, "studies": [], "data": {},
            "training": {},
        }  # fmt: skip

    rows = [cell(seed, [], "a", 0.75 + seed / 4) for seed in (0, 1)]
    rows += [cell(0, ["quantization"], "a", 0.5), cell(1, ["quantization"], "a", None)]
    rows += [cell(0, [], "b", None)]
    folder = elsewhere / "results" / "grid"
    folder.mkdir(parents=True)
    (folder / "analysis.json").write_text(json.dumps(analyze_cells(rows)), encoding="utf-8")
    assert rows_of(generate.readme_page())[2:] == [["dense", "not all done"], ["Q", "not all done"]]
    smaller = elsewhere / "results" / "a"
    smaller.mkdir()
    (smaller / "analysis.json").write_text(json.dumps(analyze_cells(rows[:1])), encoding="utf-8")
    first = generate.readme_page().splitlines()[2]
    assert first == "Grid: [`results/grid`](results/grid/tables.md); others: [`results/a`](results/a/tables.md)."
    overview, cells = (
        rows_of(generate.tables_page(folder / "analysis.json"))[part] for part in (slice(4), slice(4, 9))
    )
    assert overview == rows_of(generate.readme_page())
    assert len(cells) == 4
    assert cells[2] == ["dense", "0.875 ± 0.177", "+0.000", "8.00, 4.00", "2.0", "failed", "", "", ""]
    assert cells[3][1:5] == ["0.500 (1 failed)", "-0.250", "2.00, 2.50", "3.2"]
    assert cells[3][5:] == ["not run", "", "", ""]
    assert "old" not in generate.readme_page()
    rows += [cell(seed, [], "c", 0.5) for seed in (0, 1)] + [cell(seed, ["quantization"], "c", 0.8) for seed in (0, 1)]
    rows = [row for row in rows if row["task"] != "b" and row["score"] is not None]
    rights = {row["run_id"]: np.arange(100) < 100 * row["score"] for row in rows}
    outcomes = {
        run_id: Outcome(100, lambda draws, right=right: right[draws].mean(axis=1)) for run_id, right in rights.items()
    }
    (folder / "analysis.json").write_text(json.dumps(analyze_cells(rows, outcomes)), encoding="utf-8")
    shown = rows_of(generate.readme_page())
    # Task a: .75 and 1 dense, .5 with seed 0 alone; task c: .5 and .8. Each task counts alike.
    assert shown[2:4] == [["dense", "0.688, 8.0/4.0"], ["Q", "0.650 (+2.5), 2.0/2.5"]]
    assert shown[6][:2] == ["Q", "+2.50"]
    low, high = map(float, shown[6][2].split(" to "))
    assert low < 2.5 < high
    assert shown[6][4] == "3"


def rows_of(page: str) -> list[list[str]]:
    """The cells of all lines of Markdown tables."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_the_study_page_names_every_key_and_its_example_is_a_study() -> None:
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "study.md").read_text(encoding="utf-8"), re.DOTALL)
    assert text
    study = parse_study(tomllib.loads(text[1]))
    assert [data.name for data in study.data] == ["banking77", "train.csv"]
    training = {field.name for field in fields(TrainingSpec)} - {"learning_rate"}
    tasks = {field.name for field in fields(DataSpec)} - {"task"}
    for name in training | tasks | {"seeds", "names", "learning_rates", "subsets"}:
        assert re.search(rf"^{name} = ", text[1], re.MULTILINE), name


def test_each_example_of_rounds_on_the_study_page_is_planned(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(\[tickets\].*?)```", (ROOT / "docs" / "study.md").read_text("utf-8"), re.DOTALL)
    named = set()
    for text in examples:
        document = tomllib.loads(text)
        named |= set(document["tickets"])
        document |= {
            "study": {"name": "s"},
            "models": {"names": ["transformer-l1-h32-v300"]},
            "methods": {"subsets": [[]]},
        }
        study = parse_study({**document, "tasks": {"names": ["multi30k_test2016"]}})
        study = replace(
            study,
            data=(DataSpec(train=str(pairs(tmp_path / "a.csv")), dev=str(pairs(tmp_path / "b.csv")), target="text"),),
        )
        plan = Plan(study)
        plan.check()
        assert len(plan.cells({(study.models[0], study.data[0]): study.learning_rates[0]})) > study.tickets.rounds
    assert named == {field.name for field in fields(TicketSpec)}


def pairs(path: Path) -> Path:
    """A file of a few rows to translate, other ones by its name."""
    rows = [f"{path.stem} {letter},{letter}" for letter in "bcdefgh"]
    path.write_text("\n".join(["source,target", *rows]), encoding="utf-8")
    return path


def test_every_test_that_the_reliability_page_names_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert named
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test


def test_the_two_commands_of_the_readme_are_run_by_ci() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"^(make \w+) +#", readme, re.MULTILINE)
    assert commands == ["make demo", "make test"]
    for command in commands:
        assert f"\n{command}\n" in script


@pytest.mark.slow
def test_the_blocks_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [language for language, _ in blocks] == ["bash", "python"]
    # `multipress` as a reader has it, from the environment that runs the tests.
    program = tmp_path / "bin" / "multipress"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m multipress "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    for language, text in blocks:
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip()
