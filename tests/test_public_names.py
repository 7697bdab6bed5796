"""`import multipress`: fast, and every name it lists is there."""

import subprocess
import sys

import pytest

import multipress


@pytest.mark.parametrize("name", multipress.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(multipress, name) is not None
    assert name in dir(multipress)


def test_all_errors_are_public() -> None:
    from multipress import errors

    assert set(errors.__all__) <= set(multipress.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        multipress.no_such_name  # noqa: B018


def test_opening_an_artifact_needs_no_torch() -> None:
    script = "import sys, multipress; multipress.open; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_importing_the_package_imports_no_other_package() -> None:
    script = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; import multipress"
    source = str(next(iter(multipress.__path__))).removesuffix("multipress")
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": source}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
