"""Limits of the house style that no linter checks, and contracts that must be able to fail."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_no_source_file_is_longer_than_400_lines() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_every_file_is_named_by_what_is_in_it() -> None:
    empty_names = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base_utils"}
    assert {path.stem for path in SOURCES} & empty_names == set()


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'src'); {script}"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources and settings, to be spoiled."""
    for path in [*SOURCES, ROOT / "pyproject.toml"]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("packing/__init__.py", "import multipress.store", "Imports go down"),
        ("methods/pruning.py", "import multipress.methods.distillation", "Methods do not know"),
        ("measure/__init__.py", "def f() -> None:\n    import torch", "The core needs neither"),
        ("tasks/__init__.py", "import multipress.analysis", "Making does not read"),
        ("new_room.py", "", "Imports go down"),
    ],
)
def test_the_import_contract_catches(room: str, line: str, contract: str, copy: Path) -> None:
    path = copy / "src" / "multipress" / room
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8")
    done = lint_imports(copy)
    assert done.returncode != 0
    assert contract in done.stdout.replace("\n", " ") or "new_room" in done.stdout


def test_the_import_contract_holds_as_it_is(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


def test_torch_has_exactly_the_range_that_takes_no_gpu_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [need for extra in project["optional-dependencies"].values() for need in extra] + project["dependencies"]
    assert [need for need in needs if need.startswith("torch")] == ["torch>=2.10,<2.14"]
