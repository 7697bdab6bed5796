"""Parallel text as a task, and how translations are scored; sacrebleu is the reference."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import sacrebleu

from multipress.errors import DataError, SettingError, SpecError
from multipress.measure.intervals import score_interval
from multipress.spec import DataSpec
from multipress.tasks import Task, evaluate_outputs, load_rows, load_task, load_validation
from multipress.tasks.translations import (
    METRICS,
    bleu_of_counts,
    bleu_rows,
    evaluate_translations,
    score_on_rows,
    signatures,
)

WORDS = ["ein", "kleiner", "Hund", "läuft", "schnell", "über", "die", "grüne", "Wiese", "und", "bellt", "laut", "."]


def sentences(count, seed):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(count)]


def test_bleu_of_the_counts_of_any_sample_is_that_of_sacrebleu():
    written, wanted = sentences(60, 0), sentences(60, 1)
    counts = bleu_rows(written, wanted)
    random = np.random.default_rng(2)
    draws = [random.integers(0, 60, size) for size in (1, 1, 2, 3, 60, 60)]
    draws += [np.array([row]) for row in range(60)]  # single rows lack n-grams: smoothing shows
    for draw in draws:
        expected = sacrebleu.corpus_bleu([written[i] for i in draw], [[wanted[i] for i in draw]]).score
        assert bleu_of_counts(counts[draw].sum(axis=0)) == pytest.approx(expected, abs=1e-9)


def test_both_metrics_of_any_sample_are_those_of_sacrebleu():
    written, wanted = sentences(60, 0), sentences(60, 1)
    by_library = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}
    assert set(by_library) == set(METRICS)
    for metric, score in by_library.items():
        score_on = score_on_rows(metric, written, wanted)
        for draw in (np.array([3]), np.random.default_rng(2).integers(0, 60, 60)):
            expected = score([written[i] for i in draw], [[wanted[i] for i in draw]]).score
            assert score_on(draw) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_of_a_translators_score_covers_that_of_all_rows(metric):
    """Of 100 samples of 80 rows nearly all intervals hold the score of the 4,000 rows they are drawn from."""
    task = Task("t", "text", (), METRICS, metric)
    wanted = np.array(sentences(4000, 0), dtype=object)
    written = np.array([" ".join(text.split()[: n % 7 + 4]) for n, text in enumerate(wanted)], dtype=object)
    whole = evaluate_translations(written.tolist(), wanted.tolist())[metric] / 100
    random, held = np.random.default_rng(1), 0
    for _ in range(100):
        rows = random.integers(0, 4000, 80)
        low, high = score_interval(task, written[rows], wanted[rows])
        assert low < high
        held += low <= whole <= high
    assert held >= 88


def test_metrics_are_those_of_sacrebleu_with_its_signatures():
    written, wanted = sentences(20, 0), sentences(20, 1)
    found = evaluate_translations(written, wanted)
    assert found["bleu"] == sacrebleu.corpus_bleu(written, [wanted]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(written, [wanted]).score
    assert sacrebleu.__version__ in signatures()["bleu"]
    with pytest.raises(DataError, match="one for each"):
        evaluate_translations(written, wanted[1:])


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "mt" / "multi30k_en_de"
    folder.mkdir(parents=True)
    for seed, split in enumerate(("train", "validation", "test")):
        rows = {"en": sentences(30, 10 + seed), "de": sentences(30, 20 + seed)}
        parquet.write_table(pa.table(rows), folder / f"{split}.parquet")
    return tmp_path


def test_multi30k_is_a_task_whose_labels_are_the_translations(data_dir):
    data = load_task(DataSpec(task="multi30k", max_train_rows=12), data_dir)
    assert (data.task.target, data.task.score, len(data.train), len(data.dev)) == ("text", "bleu", 12, 30)
    assert set(data.train.labels) <= set(sentences(30, 20))
    test = load_validation("multi30k_test2016", data_dir=data_dir)
    assert test.split.labels.tolist() == sentences(30, 22)
    scores = evaluate_outputs(data.task, data.dev.labels, data.dev.labels)
    assert scores["score"] == pytest.approx(1.0)
    assert scores["bleu"] == pytest.approx(100)


def test_a_translator_is_not_scored_on_labels_nor_a_classifier_on_translations(data_dir):
    translator = Task("t", "text", (), METRICS, "bleu")
    with pytest.raises(SettingError, match=r"writes text, but the task asks for labels\. So banking77 is no task"):
        load_validation("banking77", task=translator)
    classifier = Task("t", "classes", ("no", "yes"), ("accuracy",), "accuracy")
    with pytest.raises(SettingError, match=r"gives labels, but the task asks for text\. So multi30k is no task"):
        load_validation("multi30k", task=classifier, data_dir=data_dir)


def test_another_translation_is_another_identity(data_dir):
    one = load_task(DataSpec(task="multi30k"), data_dir)
    path = data_dir / "mt" / "multi30k_en_de" / "train.parquet"
    table = parquet.read_table(path).to_pydict()
    table["de"][3] += " ja"
    parquet.write_table(pa.table(table), path)
    assert load_task(DataSpec(task="multi30k"), data_dir).sha256 != one.sha256


@pytest.mark.parametrize("names", [("source", "target"), ("en", "de")])
def test_own_parallel_text_is_found_by_its_columns(tmp_path, names):
    for split in ("train", "dev"):
        rows = [dict(zip(names, pair, strict=True)) for pair in ((f"{split} a", "x"), (f"{split} b", "y"))]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(train=str(tmp_path / "train.jsonl"), dev=str(tmp_path / "dev.jsonl"), target="text")
    data = load_task(spec)
    assert (data.dev.texts, data.dev.labels.tolist()) == (["dev a", "dev b"], ["x", "y"])
    again = load_rows(tmp_path / "dev.jsonl", task=data.task)
    assert again.split.labels.tolist() == ["x", "y"]


def test_columns_that_could_be_anything_must_be_named(tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text(f"a,b,c\n{split},2,3\n")
    files = {"train": str(tmp_path / "train.csv"), "dev": str(tmp_path / "dev.csv")}
    with pytest.raises(DataError, match="--text and --label"):
        load_task(DataSpec(**files, target="text"))
    assert load_task(DataSpec(**files, target="text", text=("a",), label="c")).dev.labels.tolist() == ["3"]
    with pytest.raises(SpecError, match="classes, number, text"):
        load_task(DataSpec(**files, target="words", text=("a",), label="c"))
