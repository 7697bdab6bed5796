"""Versions, seeds and the computer: the same wherever and however often they are asked for."""

from importlib import metadata

import numpy as np

from multipress import reproducibility
from multipress.reproducibility import computer, library_versions, seed_for


def test_versions_are_those_installed_and_an_absent_library_is_left_out():
    assert library_versions("numpy", "no-such-library") == {"numpy": np.__version__}


def test_each_version_is_looked_up_once(monkeypatch):
    asked = []
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: asked.append(name) or real(name))
    reproducibility._version.cache_clear()
    first = library_versions("numpy", "typer", "no-such-library")
    first.clear()  # what a caller does to its own answer changes no other
    assert set(library_versions("typer", "numpy", "no-such-library")) == {"numpy", "typer"}
    assert asked == ["numpy", "typer", "no-such-library"]


def test_a_seed_depends_on_every_part_and_on_where_parts_end():
    parts = [("a", 1), ("a", 2), ("b", 1), ("a1",), ("a", "1", ""), ()]
    seeds = {seed_for(*one) for one in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for("a", 1) == seed_for("a", "1")


def test_the_computer_is_described_without_a_name_or_a_path():
    assert {"cpu", "cores", "python"} <= set(computer())
    assert not any("/home" in str(value) or "/root" in str(value) for value in computer().values())
