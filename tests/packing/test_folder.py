"""Files of a stranger's folder: regular, bounded, not elsewhere."""

import os

import pytest

from multipress.errors import ArtifactError
from multipress.packing.folder import list_unexpected, read_bounded


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path, "a", 5) == b"12345"
    assert read_bounded(tmp_path, "a", 2**46) == b"12345"  # what a forged manifest may say; only what is there is read
    with pytest.raises(ArtifactError, match="has 5 bytes, but at most 4"):
        read_bounded(tmp_path, "a", 4)


def test_a_link_is_refused_wherever_it_points(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"b of .* is a link"):
        read_bounded(tmp_path, "b", 100)


def test_a_pipe_or_a_folder_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ArtifactError):
            read_bounded(tmp_path, name, 100)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"has no a\.bin"):
        read_bounded(tmp_path, "a.bin", 100)


def test_leftovers_of_an_interrupted_write_are_not_unexpected(tmp_path):
    for name in ("a", "z", "b", ".0123.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert list_unexpected(tmp_path, frozenset({"a"})) == ["b", "z"]
