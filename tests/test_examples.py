"""Every example runs."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multipress.cli.main import main

EXAMPLES = Path(__file__).parents[1] / "examples"
ARGUMENTS = {"train_and_predict.py": ["out", "96"], "make_it_fit.py": ["out", "4", "560", "0.5"]}
SAYS = {"train_and_predict.py": (2, "MB of weights"), "make_it_fit.py": (1, "MB before, ")}


def test_every_example_is_run_by_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_name_that_the_example_imports_is_there(name: str) -> None:
    assert "main" in runpy.run_path(str(EXAMPLES / name), run_name="imported")


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / name), *ARGUMENTS[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    predictions, words = SAYS[name]
    assert words in done.stdout
    assert done.stdout.count(" -> ") == predictions


@pytest.mark.slow
def test_the_browser_page_gives_the_answers_of_python(write_tiny, tmp_path: Path) -> None:
    page = EXAMPLES / "browser"
    if not (page / "node_modules").is_dir():
        pytest.skip("examples/browser has no node_modules: run `npm install` there")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("there is no Chromium")
    artifact = write_tiny(tmp_path / "artifact")
    command = ["export", str(artifact.folder), "--precision", "int8", "--allow-drift", "-o", str(tmp_path / "exported")]
    assert main([*command, "--max-rows", "20"]) == 0
    check = [sys.executable, str(page / "check.py"), str(tmp_path / "exported"), str(artifact.folder)]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "100.00% of the labels agree" in done.stdout
    assert (tmp_path / "page.png").stat().st_size > 1000
