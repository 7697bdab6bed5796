"""Predictions from the folder are those of torch with the stored weights, and need no torch."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import multipress as mp
from multipress.artifact import open_artifact
from multipress.errors import ArtifactError, DataError, SettingError
from multipress.runtime import Predictor

TEXTS = ["w1 w2 w3", "", "w9 " * 40, "w4 w5 unknown", "w7", "w1 w2 w3", "\ud800 日本"]
PAIRS = ["w2", "w3 w4", "", "w50 " * 30, "w5", "w6", "w8"]


@pytest.fixture(scope="module")
def artifact(write_tiny, tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("a") / "classes", bits=4, sparsity=0.5)


@pytest.fixture(scope="module")
def number(write_tiny, tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("a") / "number", bits=16, target="number")


@pytest.fixture(scope="module")
def pair(write_tiny, tmp_path_factory, artifact):
    task = artifact.facts["task"] | {"is_pair": True}
    return write_tiny(tmp_path_factory.mktemp("a") / "pair", bits=4, sparsity=0.5, task=task)


def torch_logits(artifact, model, texts, pairs=None) -> np.ndarray:
    """One row at a time, no padding: the slow reference."""
    import torch

    from multipress.runtime import TextEncoder

    weights = {name: torch.from_numpy(value) for name, value in artifact.dense_weights().items()}
    model.load_state_dict(weights, strict=True)
    rows = TextEncoder(artifact.tokenizer_json(), artifact.facts["max_length"]).encode(texts, pairs)
    with torch.no_grad():
        return np.concatenate(
            [
                model(input_ids=torch.tensor([row.ids]), token_type_ids=torch.tensor([row.type_ids])).logits.numpy()
                for row in rows
            ]
        )


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_logits_are_those_of_torch_whatever_the_batch(artifact, pair, tiny_bert, batch_size, pairs):
    artifact = artifact if pairs is None else pair
    expected = torch_logits(artifact, tiny_bert(), TEXTS, pairs)
    found = Predictor(artifact, batch_size=batch_size).logits(TEXTS, pairs)
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), 3))
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    ("is_pair", "arguments", "message"),
    [
        (True, (["w1"],), "reads pairs"),
        (False, (["w1"], ["w2"]), "reads one text a row"),
        (True, ([("w1", "w2")], ["w3"]), r"Row 1 holds a tuple .* two lists"),
        (True, (["w1", "w2"], ["w3", None]), "Row 2 holds a NoneType"),
        (False, (["w1", 3],), "Row 2 holds a int"),
        (False, ("w1",), "write \\[text\\]"),
    ],
)
def test_rows_of_another_kind_are_refused_not_guessed(artifact, pair, is_pair, arguments, message):
    predictor = Predictor(pair if is_pair else artifact)
    with pytest.raises(DataError, match=message):
        predictor(*arguments)


def test_predictions_are_the_softmax_of_the_logits_by_label(artifact):
    predictor = Predictor(artifact.folder)
    logits = predictor.logits(TEXTS).astype(np.float64)
    for row, prediction in zip(logits, predictor(TEXTS), strict=True):
        shares = [np.exp(value) / sum(np.exp(row)) for value in row]
        assert list(prediction.scores) == ["bad", "fair", "good"]
        assert list(prediction.scores.values()) == pytest.approx(shares, rel=1e-9)
        assert prediction.label == ["bad", "fair", "good"][int(np.argmax(row))]
        assert prediction.score == max(prediction.scores.values())


def test_a_task_of_numbers_gives_the_number(number):
    predictor = Predictor(number)
    logits = predictor.logits(TEXTS)
    assert logits.shape == (len(TEXTS), 1)
    for value, prediction in zip(logits[:, 0], predictor(TEXTS), strict=True):
        assert prediction.to_json() == {"label": None, "score": float(value), "scores": {}}


def test_rows_that_were_cut_are_counted_and_no_rows_give_no_predictions(artifact):
    predictor = Predictor(artifact)
    with pytest.warns(mp.TruncationWarning, match=r"^1 of \d+ rows are longer than \d+ tokens and were cut"):
        predictor(TEXTS)
    assert predictor.num_truncated == 1
    assert predictor([]) == []
    assert predictor.num_truncated == 0


def test_one_string_is_refused(artifact):
    with pytest.raises(DataError, match="list"):
        Predictor(artifact)("w1")


def test_logits_stay_the_same_when_memory_is_used_again(artifact):
    predictor = Predictor(artifact)
    before = predictor.logits(TEXTS)
    gc.collect()
    rubbish = [np.full(20_000, np.nan, dtype=np.float32) for _ in range(500)]
    assert np.array_equal(predictor.logits(TEXTS), before)
    del rubbish


def test_threads_do_not_change_the_labels(artifact):
    one, two = Predictor(artifact, threads=1), Predictor(artifact, threads=2)
    assert [p.label for p in one(TEXTS)] == [p.label for p in two(TEXTS)]


def test_predicting_imports_no_torch(artifact):
    code = (
        "import sys; from multipress.runtime import Predictor; Predictor(sys.argv[1])(['w1']);"
        "print(sorted({'torch', 'transformers', 'onnx', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, artifact.folder], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def with_graph(artifact, folder, graph: bytes):
    from multipress.artifact import write_artifact

    return write_artifact(
        folder,
        tensors=artifact.tensors(),
        aliases={},
        config=artifact.config,
        tokenizer_json=artifact.tokenizer_json(),
        graph=graph,
        facts=artifact.facts,
    )


def test_a_graph_that_does_not_fit_is_an_artifact_error(artifact, number, tmp_path):
    onnx = pytest.importorskip("onnx")
    needs_more = onnx.load_from_string(artifact.graph())
    added = needs_more.graph.initializer.add()
    added.CopyFrom(needs_more.graph.initializer[0])
    added.name = "elsewhere"
    other_shape = onnx.load_from_string(artifact.graph())
    other_shape.graph.initializer[0].dims[0] += 1
    lone = onnx.load_from_string(artifact.graph())
    del lone.graph.node[-1]
    unsorted = onnx.load_from_string(artifact.graph())
    unsorted.graph.node.append(unsorted.graph.node[0])
    del unsorted.graph.node[0]
    for graph, message in (
        (needs_more.SerializeToString(), "elsewhere"),
        (other_shape.SerializeToString(), "shape"),
        (number.graph(), "1 logits, but the task has 3"),
        (lone.SerializeToString(), "must give logits"),
        (unsorted.SerializeToString(), "cannot be known"),
        (b"", "empty"),
        (artifact.graph()[:-9], "cut"),
    ):
        with pytest.raises(ArtifactError, match=message):
            Predictor(with_graph(artifact, tmp_path / "x", graph))


def test_labels_that_do_not_fit_the_graph_are_refused(write_tiny, artifact, tmp_path):
    task = artifact.facts["task"] | {"labels": ["a", "b"]}
    two = write_tiny(tmp_path / "two", task=task)
    with pytest.raises(ArtifactError, match="3 logits, but the task has 2"):
        Predictor(open_artifact(two.folder))


def test_a_model_of_too_few_positions_is_refused(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a", max_length=25)
    with pytest.raises(ArtifactError, match="25 tokens, but the model 24"):
        Predictor(artifact)


def test_ids_beyond_the_vocabulary_and_infinite_logits_are_artifact_errors(artifact, tmp_path):
    from multipress.artifact import round_floats, write_artifact
    from multipress.runtime import Encoding

    with pytest.raises(ArtifactError, match="cannot compute"):
        Predictor(artifact).run([Encoding([2, 64, 3], [0, 0, 0])])
    bias = round_floats(np.array([np.nan, 0, 0]))
    broken = write_artifact(
        tmp_path / "broken",
        tensors=artifact.tensors() | {"classifier.bias": bias},
        aliases={},
        config=artifact.config,
        tokenizer_json=artifact.tokenizer_json(),
        graph=artifact.graph(),
        facts=artifact.facts,
    )
    with pytest.raises(ArtifactError, match="not finite"):
        Predictor(broken).logits(["w1"])


def test_progress_is_told_after_every_batch(artifact):
    told = []
    Predictor(artifact, batch_size=3).logits(TEXTS, None, lambda *counts: told.append(counts))
    assert told == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_large_batch_is_computed_in_parts_and_gives_the_same(artifact, monkeypatch, precision):
    whole = Predictor(artifact, precision=precision).logits(TEXTS)
    monkeypatch.setattr("multipress.runtime.predictor._MAX_TOKENS", 20)
    assert np.abs(Predictor(artifact, precision=precision).logits(TEXTS) - whole).max() < 1e-5


def test_an_iterator_of_texts_is_refused_because_it_can_be_read_only_once(write_tiny, tmp_path):
    predictor = Predictor(write_tiny(tmp_path / "a"))
    for wrong in (iter(["w1", "w2"]), map(str, ["w1"]), (text for text in ["w1"])):
        with pytest.raises(DataError, match=r"write list\(texts\)"):
            predictor(wrong)
    assert len(predictor(("w1", "w2"))) == 2


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -1}, {"batch_size": 0}])
def test_no_threads_and_no_rows_at_once_are_refused(write_tiny, tmp_path, wrong):
    with pytest.raises(SettingError, match="must be at least 1"):
        Predictor(write_tiny(tmp_path / "a"), **wrong)
