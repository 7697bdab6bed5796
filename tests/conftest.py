"""What every test shares: one thread, no network, and the folders of real data where there are some."""

import os
from pathlib import Path

import pytest

# Before torch or tokenizers are imported: one thread, so that results repeat and tests may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder `MULTIPRESS_DATA`; the test is skipped where there is none."""
    return _folder("MULTIPRESS_DATA")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder `MULTIPRESS_MODELS`; the test is skipped where there is none."""
    return _folder("MULTIPRESS_MODELS")
