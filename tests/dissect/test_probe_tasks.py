"""Examples of the probe tasks: what they ask, on small data laid out as the real."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from multipress.dissect.probe_tasks import (
    DEV,
    PROBES,
    TEST,
    TRAIN,
    load_source,
    probe_names,
    sources_of,
)
from multipress.errors import DataError, SpecError

TREE = {
    "tokens": ["My", "old", "dog", "sees", "you", "run", "very", "fast"],
    "upos": ["PRON", "ADJ", "NOUN", "VERB", "PRON", "VERB", "ADV", "ADV"],
    "head": [3, 3, 4, 0, 4, 4, 8, 6],
    "deprel": ["nmod:poss", "amod", "nsubj", "root", "obj", "xcomp", "advmod", "advmod"],
}
DOCUMENT = {
    "tokens": [["Ann", "saw", "Bo", "."], ["She", "left", "."]] * 8,
    "mentions": [
        {"sentence": s + 2 * k, "start": w, "end_exclusive": w + 1, "entity_id": e}
        for k in range(8)
        for s, w, e in ((0, 0, "ann"), (0, 2, "bo"), (1, 0, "ann"))
    ],
}


def write(path: Path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


@pytest.fixture
def data(tmp_path):
    splits = ("train", "validation", "test")
    for split in splits:
        write(tmp_path / "ud_ewt" / f"{split}.parquet", {name: [value] * 3 for name, value in TREE.items()})
        write(tmp_path / "semantic/gum_coref" / f"{split}.parquet", {k: [v] for k, v in DOCUMENT.items()})
        senses = {"tokens": [["In", "town", "at", "noon"]] * 2, "positions": [[0, 2]] * 2}
        senses |= {"role": [["p.Locus", "p.Time"]] * 2, "function": [["p.Locus", "p.Time"]] * 2}
        write(tmp_path / "semantic/streusle_adpositions" / f"{split}.parquet", senses)
    rows = [(part, label, f"{word} was here") for part in ("train", "dev", "test") for label, word in ("Ax", "By")]
    columns = dict(zip(("split", "label", "sentence"), map(list, zip(*rows, strict=True)), strict=True))
    write(tmp_path / "probing/past_present.parquet", columns)
    pairs = {"sentence_good": [f"g{i} is" for i in range(120)], "sentence_bad": [f"b{i} are" for i in range(120)]}
    write(tmp_path / "probing_minimal_pairs/blimp.parquet", {**pairs, "UID": ["a", "b"] * 60})
    return tmp_path


def examples(data, task):
    source = load_source(PROBES[task][1], [task], data)
    return source.rows, source.tasks[task]


def words_of(rows, found):
    return [[" ".join(rows[row][start:end]) for row, start, end in one] for one in found.spans.tolist()]


def test_relations_are_asked_of_the_word_its_head_and_the_heads_head(data):
    asked = {
        "dependency_relation": "nmod amod nsubj root obj xcomp advmod advmod",
        "parent_relation": "nsubj nsubj root - root root advmod xcomp",
        "grandparent_relation": "root root - - - - xcomp root",
    }
    for task, relations in asked.items():
        expected = [pair for pair in zip(TREE["tokens"], relations.split(), strict=True) if pair[1] != "-"]
        names = sorted({relation for _, relation in expected})
        rows, found = examples(data, task)
        words = [words[0] for words in words_of(rows, found)]
        one_tree = list(zip(words, (names[label] for label in found.labels), strict=True))[: len(expected)]
        assert one_tree == expected


def test_arcs_are_true_half_of_the_time_and_the_head_comes_first(data):
    rows, found = examples(data, "dependency_arc")
    arcs = {("dog", "My"), ("dog", "old"), ("sees", "dog"), ("sees", "you")}
    arcs |= {("sees", "run"), ("fast", "very"), ("run", "fast")}
    for words, label in zip(words_of(rows, found), found.labels, strict=True):
        assert (tuple(words) in arcs) == (label == 0)  # "arc" sorts before "none"
    assert np.mean(found.labels) == 0.5


def test_mentions_of_one_entity_in_a_window_are_the_same(data):
    rows, found = examples(data, "coreference_arc")
    for (first, second), label in zip(words_of(rows, found), found.labels, strict=True):
        same = {first, second} <= {"Ann", "She"} or first == second == "Bo"
        assert same == (label == 1)
    assert max(map(len, rows)) <= 48
    # What is asked of one document moves together, in however many windows it is read.
    assert set(found.cluster.tolist()) == {0}
    assert len(set(found.spans[found.split == TEST, 0, 0].tolist())) > 1


def test_supersenses_are_asked_of_the_targets_word(data):
    rows, found = examples(data, "supersense_role")
    assert set(map(tuple, words_of(rows, found))) == {("In",), ("at",)}
    assert found.num_classes == 2


def test_sentences_keep_the_splits_of_the_file(data):
    rows, found = examples(data, "past_present")
    assert found.split.tolist() == [TRAIN] * 2 + [DEV] * 2 + [TEST] * 2
    assert words_of(rows, found)[0] == ["x was here"]


def test_the_grammatical_sentence_comes_first_half_of_the_time(data):
    rows, found = examples(data, "minimal_pairs")
    for (first, second), label in zip(words_of(rows, found), found.labels, strict=True):
        good, bad = (second, first) if label else (first, second)
        assert (good[0], bad[0], good[1:-2]) == ("g", "b", bad[1:-3])
    assert np.mean(found.labels) == 0.5
    assert {part: int(np.sum(found.split == part)) for part in (TRAIN, DEV, TEST)} == {TRAIN: 80, DEV: 16, TEST: 24}


def test_the_control_label_belongs_to_the_word_in_all_splits(data):
    # An uncased model cannot tell "My" from "my".
    small = {name: [[word.lower() for word in value] if name == "tokens" else value] for name, value in TREE.items()}
    write(data / "ud_ewt/test.parquet", small)
    for task in ("pos", "dependency_arc"):
        rows, found = examples(data, task)
        by_word, written = {}, set()
        for (*_, word), label in zip(words_of(rows, found), found.control, strict=True):
            written.add(word)
            assert by_word.setdefault(word.lower(), label) == label
        assert {"My", "my"} <= written
        assert set(found.control) <= set(found.labels[found.split == TRAIN])


def test_unknown_probes_and_data_that_is_not_there_are_named(data, tmp_path):
    with pytest.raises(SpecError, match="coreference_arc"):
        probe_names("pos,nonsense")
    assert probe_names("all") == tuple(PROBES)
    with pytest.raises(DataError, match="MULTIPRESS_DATA"):
        load_source("ud_ewt", ["pos"], None)
    with pytest.raises(DataError, match="tree_depth"):
        load_source("probing/tree_depth", ["tree_depth"], data)
    write(data / "ud_ewt/train.parquet", {"tokens": [["a"]]})
    with pytest.raises(DataError, match="layout"):
        load_source("ud_ewt", ["pos"], data)


def test_probes_of_one_source_share_its_texts():
    assert sources_of(("pos", "past_present", "dependency_arc")) == {
        "ud_ewt": ["pos", "dependency_arc"],
        "probing/past_present": ["past_present"],
    }


@pytest.mark.slow
def test_every_task_is_made_from_the_real_data(data_dir):
    for source, tasks in sources_of(tuple(PROBES)).items():
        loaded = load_source(source, tasks, data_dir)
        for name, task in loaded.tasks.items():
            assert task.num_classes == len(np.unique(task.labels)), name
            shares = np.bincount(task.labels[task.split == TEST]) / np.sum(task.split == TEST)
            assert shares.max() < 0.6, name
            assert min(np.sum(task.split == part) for part in (TRAIN, DEV, TEST)) > 200, name
            ends = task.spans[..., 2].ravel()
            lengths = np.array([len(loaded.rows[row]) for row in task.spans[..., 0].ravel()])
            assert np.all(ends <= lengths), name
