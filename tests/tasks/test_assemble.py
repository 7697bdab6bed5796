import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import DataError, SpecError
from multipress.reproducibility import seed_for
from multipress.spec import DataSpec
from multipress.tasks import Split, Task, load_task
from multipress.tasks.assemble import content_hash, rows_also_in, sample_positions

TASK = Task("t", "classes", ("no", "yes"), ("accuracy",), "accuracy")


def split(texts, labels=None, pairs=None):
    return Split(list(texts), pairs, np.array(labels if labels is not None else [0] * len(texts), dtype=np.int64))


def write_files(folder, train, dev):
    for name, rows in (("train", train), ("dev", dev)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return DataSpec(train=str(folder / "train.csv"), dev=str(folder / "dev.csv"))


# Samples


@settings(deadline=None)
@given(rows=st.integers(1, 300), limit=st.integers(0, 400), seed=st.integers(0, 5))
def test_a_sample_has_its_size_and_the_order_of_the_rows(rows, limit, seed):
    positions = sample_positions(rows, limit, "rows", seed)
    assert len(positions) == (min(limit, rows) if limit else rows)
    assert (np.diff(positions) > 0).all()
    assert set(positions) <= set(range(rows))
    np.testing.assert_array_equal(positions, sample_positions(rows, limit, "rows", seed))


def test_a_sample_follows_the_published_stream_of_pcg64():
    """Made again from the definition of PCG64 (XSL-RR 128/64), so that no library can move it unseen."""
    state = np.random.PCG64(seed_for("rows", "train", 0)).state["state"]
    value, increment, raw = state["state"], state["inc"], []
    for _ in range(50):
        value = (value * 0x2360ED051FC65DA44385DF649FCCF645 + increment) % 2**128
        word, turn = (value >> 64) ^ (value % 2**64), value >> 122
        raw.append(((word >> turn) | (word << (64 - turn))) % 2**64)
    chosen = sorted(sorted(range(50), key=raw.__getitem__)[:20])
    assert sample_positions(50, 20, "rows", "train", 0).tolist() == chosen


def test_a_smaller_sample_is_part_of_a_larger_one():
    large, small = (set(sample_positions(100, size, "x")) for size in (60, 20))
    assert small < large


def test_every_row_is_drawn_about_equally_often():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[sample_positions(20, 5, seed)] += 1
    # 500 expected, standard deviation 19.4.
    assert abs(counts - 500).max() < 5 * 19.4


def test_samples_differ_by_seed_and_split_but_keep_the_classes_of_all_rows(tmp_path):
    rows = [(f"text {i}", "rare" if i == 7 else f"class {i % 4}") for i in range(200)]
    spec = write_files(tmp_path, rows, [(f"dev {i}", f"class {i % 4}") for i in range(200)])
    samples = [load_task(replace(spec, max_train_rows=20, max_eval_rows=20, sample_seed=seed)) for seed in (0, 0, 1)]
    assert samples[0].sha256 == samples[1].sha256 != samples[2].sha256
    assert samples[0].train.texts != samples[2].train.texts
    assert [t.split()[1] for t in samples[0].train.texts] != [t.split()[1] for t in samples[0].dev.texts]
    assert all("rare" in sample.task.labels for sample in samples)
    facts = samples[0].facts["train"]
    assert (facts["rows_found"], facts["rows_left_out"], facts["rows_used"]) == (200, 180, 20)
    assert "1 of 5 classes have no train row." in samples[0].notes


def test_a_sample_larger_than_the_data_takes_all(tmp_path):
    spec = write_files(tmp_path, [("a", "x"), ("b", "y")], [("c", "x"), ("d", "y")])
    assert load_task(replace(spec, max_train_rows=99)).sha256 == load_task(spec).sha256


def test_a_sample_below_zero_is_an_error():
    with pytest.raises(SpecError, match="sample of -1 rows"):
        sample_positions(10, -1)


# Rows of dev that are also in train


@settings(deadline=None)
@given(
    dev=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=8),
    train=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=8),
)
def test_shared_rows_are_those_that_a_slow_search_finds(dev, train):
    one = rows_also_in(split([a for a, _ in dev]), split([a for a, _ in train]))
    assert one == [i for i, (a, _) in enumerate(dev) if any(a == other for other, _ in train)]
    both = rows_also_in(
        split([a for a, _ in dev], pairs=[b for _, b in dev]),
        split([a for a, _ in train], pairs=[b for _, b in train]),
    )
    assert both == [i for i, row in enumerate(dev) if any(row == other for other in train)]


def test_shared_rows_are_a_note_with_their_positions_and_a_mask(tmp_path):
    train = [(f"train {i}", "xy"[i % 2]) for i in range(10)]
    dev = [*((f"dev {i}", "xy"[i % 2]) for i in range(9)), ("train 3", "x")]
    data = load_task(write_files(tmp_path, train, dev))
    assert data.facts["dev_rows_also_in_train"] == 1
    assert data.facts["dev_indices_also_in_train"] == [9]
    assert data.dev_unseen.tolist() == [True] * 9 + [False]
    assert any(note.startswith("1 of 10 validation rows are also in train") for note in data.notes)


@pytest.mark.parametrize(("shared", "refused"), [(2, False), (3, True)])
def test_above_a_fifth_of_shared_rows_is_an_error_even_if_a_sample_hides_them(tmp_path, shared, refused):
    train = [(f"train {i}", "xy"[i % 2]) for i in range(100)]
    dev = [(f"train {i}" if i < shared else f"dev {i}", "xy"[i % 2]) for i in range(10)]
    spec = replace(write_files(tmp_path, train, dev), max_train_rows=2, sample_seed=4)
    if refused:
        with pytest.raises(DataError, match="3 of 10 rows are also in train, above 20%"):
            load_task(spec)
    else:
        assert load_task(spec).facts["dev_rows_also_in_train"] <= shared


# Hash


def test_the_hash_tells_every_change_apart():
    base = split(["ab", "c"], [0, 1], ["x", "y"])
    changed = [
        (TASK, base),
        (TASK, split(["ab", "d"], [0, 1], ["x", "y"])),
        (TASK, split(["a", "bc"], [0, 1], ["x", "y"])),
        (TASK, split(["ab", "c"], [1, 1], ["x", "y"])),
        (TASK, split(["ab", "c"], [0, 1], ["x", "z"])),
        (TASK, split(["ab", "c"], [0, 1])),
        (TASK, split(["c", "ab"], [1, 0], ["y", "x"])),
        (TASK, split(["ab", "c", "x", "y"], [0, 1, 0, 0])),
        (replace(TASK, labels=("yes", "no")), base),
        (replace(TASK, labels=("no", "yes", "more")), base),
        (replace(TASK, target="number"), base),
    ]
    hashes = {content_hash(task, rows, base) for task, rows in changed}
    assert len(hashes) == len(changed)
    assert content_hash(TASK, base, split([])) != content_hash(TASK, split([]), base)


def test_the_hash_does_not_depend_on_the_name_of_task_or_file(tmp_path):
    rows = [("a", "x"), ("b", "y")], [("c", "x"), ("d", "y")]
    (tmp_path / "other").mkdir()
    one, two = load_task(write_files(tmp_path, *rows)), load_task(write_files(tmp_path / "other", *rows))
    assert one.sha256 == two.sha256


# Types


def test_taken_rows_are_those_at_the_positions():
    rows = split("abcd", [0, 1, 2, 3], list("ABCD")).take([3, 1])
    assert (rows.texts, rows.pairs, rows.labels.tolist()) == (["d", "b"], ["D", "B"], [3, 1])
    assert len(split("ab").take([])) == 0


def test_a_task_comes_back_from_json():
    task = replace(TASK, is_pair=True)
    assert Task.from_json(task.to_json()) == task
    assert Task.from_json({**TASK.to_json(), "more": 1}) == TASK


@pytest.mark.parametrize("change", [{"labels": None}, {"target": "texts"}, {"name": 3}, {"metrics": [1]}])
def test_a_task_that_is_none_is_an_error(change):
    with pytest.raises(DataError):
        Task.from_json(TASK.to_json() | change)
    with pytest.raises(DataError, match="score"):
        Task.from_json({key: value for key, value in TASK.to_json().items() if key != "score"})
