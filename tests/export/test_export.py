"""An export answers as its artifact does, opens in stock tools, and is not written where it does not."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from multipress.cli.main import main
from multipress.errors import InputError, RunError, SettingError
from multipress.export import Export, export_artifact, read_export
from multipress.export import files as files_room
from multipress.export import write as write_room
from multipress.export.files import exports_in
from multipress.export.write import REPORT, Rows
from multipress.measure.parity import EXACT, ROUNDED, compare_logits, drift
from multipress.runtime import Predictor, TextEncoder, pad_batch
from multipress.runtime.products import has_exact_products
from multipress.tasks import Split, Task

TEXTS = ["w1 w2 w3", "", "w9 " * 40, "w4 w5 unknown", "w7", "w1 w2 w3", "日本 w8", "w11 w12", "w30 w2", "w40"]
PAIRS = TEXTS[::-1]
VARIED = [" ".join(f"w{i}" for i in row) for row in np.random.default_rng(0).integers(1, 40, size=(100, 8))]
EXPORTS = [("onnx", "fp32"), ("onnx", "int8"), ("safetensors", "fp32")]
OPENVINO = [("openvino", "fp32"), ("openvino", "int8"), ("openvino", "bf16")]


def rows(artifact, labels: bool = True) -> Rows:
    task = Task.from_json(artifact.facts["task"])
    pairs = PAIRS if task.is_pair else None
    truth = np.arange(len(TEXTS)) % task.num_outputs if task.target == "classes" else np.arange(len(TEXTS)) / 10
    return Rows("rows", TEXTS, pairs, Split(TEXTS, pairs, truth) if labels else None)


@pytest.fixture(scope="module")
def artifacts(write_tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    coded = write_tiny(folder / "codes", bits=8, sparsity=0.4)
    return {
        "codes": coded,
        "low bits": write_tiny(folder / "low", bits=2),
        "floats": write_tiny(folder / "floats", bits=16),
        "number": write_tiny(folder / "number", bits=8, target="number"),
        "pair": write_tiny(folder / "pair", bits=8, task=coded.facts["task"] | {"is_pair": True}),
    }


@pytest.mark.parametrize("kind", ["codes", "low bits", "floats", "number", "pair"])
@pytest.mark.parametrize("export", EXPORTS)
def test_every_artifact_is_exported_and_answers_the_same(artifacts, tmp_path, kind, export):
    artifact, wanted = artifacts[kind], Export(*export)
    report = export_artifact(artifact, wanted, tmp_path, rows(artifact), allow_drift=wanted.is_rounded(artifact))
    entry = report["models"][wanted.file]
    assert json.loads((tmp_path / REPORT).read_text()) == report
    assert entry["files"][wanted.file]["bytes"] == (tmp_path / wanted.file).stat().st_size
    given = rows(artifact)
    session = read_export(tmp_path, wanted, artifact)
    found = Predictor(artifact, session=session).logits(given.texts, given.pairs)
    expected = Predictor(artifact).logits(given.texts, given.pairs)
    difference = np.abs(found - expected).max()
    assert entry["parity"]["largest_difference"] == pytest.approx(difference)
    assert difference < (0.1 * np.abs(expected).max() if wanted.is_rounded(artifact) else 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_plain_onnx_runtime_gives_the_predictions_of_the_runtime(artifacts, tmp_path, precision):
    artifact, wanted = artifacts["codes"], Export("onnx", precision)
    export_artifact(artifact, wanted, tmp_path, rows(artifact), allow_drift=True)
    session = onnxruntime.InferenceSession(str(tmp_path / wanted.file), providers=["CPUExecutionProvider"])
    encoder = TextEncoder((tmp_path / "tokenizer.json").read_text(), 16)
    batch = pad_batch(encoder.encode(TEXTS), encoder.pad_id, multiple=4)
    (found,) = session.run(None, batch)
    expected = Predictor(artifact, precision=precision).logits(TEXTS)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("export", OPENVINO)
def test_openvino_files_answer_as_the_artifact(artifacts, tmp_path, export):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    artifact, wanted = artifacts["codes"], Export(*export)
    report = export_artifact(artifact, wanted, tmp_path, rows(artifact))
    assert set(report["models"][wanted.file]["files"]) == {wanted.file, wanted.file.replace(".xml", ".bin")}
    limit = 1e-4 if export[1] == "fp32" else 0.05  # int8: it rounds activations where there is VNNI
    assert report["models"][wanted.file]["parity"]["largest_difference"] < limit
    expected = Predictor(artifact).logits(TEXTS)
    for precision, share in (("fp32", 1e-5), ("int8", 0.05)):
        predictor = Predictor(artifact, engine="openvino", precision=precision)
        assert np.abs(predictor.logits(TEXTS) - expected).max() < share * np.abs(expected).max()


@pytest.fixture(scope="module")
def static(tiny_bert, artifacts, tmp_path_factory):
    """A model whose training fixed a scale for each layer's input."""
    import torch

    from multipress.checkpoint import save_model
    from multipress.methods import Context
    from multipress.methods.quantization import Quantization

    artifact = artifacts["codes"]
    model, method = tiny_bert(), Quantization(activation_bits=8, activation_scale="static")
    method.prepare(model, Context()).train()
    for _ in range(3):
        model(torch.randint(5, 59, (8, 10)))
    facts = {name: artifact.facts[name] for name in ("run_id", "task", "max_length")}
    folder = tmp_path_factory.mktemp("static") / "artifact"
    return save_model(folder, method.convert(model).eval(), tokenizer_json=artifact.tokenizer_json(), facts=facts)


@pytest.mark.parametrize("reduced_range", [False, True])
def test_fixed_scales_of_activations_are_exported_as_plain_onnx(static, tmp_path, reduced_range):
    wanted = Export("onnx", "int8", reduced_range)
    report = export_artifact(static, wanted, tmp_path, rows(static))
    kinds = {node.op_type for node in onnx.load(tmp_path / wanted.file).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert "ReduceMax" not in kinds
    assert report["models"][wanted.file]["parity"]["agreement"] == 1
    logits = Predictor(static, session=read_export(tmp_path, wanted, static)).logits(TEXTS)
    expected = Predictor(static, precision="int8").logits(TEXTS)
    assert np.abs(logits - expected).max() < (0.1 * np.abs(expected).max() if reduced_range else 1e-4)


@pytest.mark.slow
def test_openvino_multiplies_integers_where_scales_are_fixed(static, artifacts, tmp_path):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    wanted = Export("openvino", "int8", vnni=True)
    with pytest.raises(InputError, match="one scale of its activations"):
        export_artifact(artifacts["codes"], wanted, tmp_path / "other", rows(artifacts["codes"]))
    if not has_exact_products():
        pytest.skip("this processor cuts off sums of 8-bit products")
    out = tmp_path / "out"
    report = export_artifact(static, wanted, out, rows(static))
    assert exports_in(out) == [wanted]
    assert report["models"][wanted.file]["parity"]["largest_difference"] < 0.05
    assert "for processors with VNNI alone" in (out / "README.md").read_text()
    expected = Predictor(static).logits(TEXTS)
    found = Predictor(static, engine="openvino", precision="int8").logits(TEXTS)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_openvino_int8_of_floats_is_refused_because_nothing_was_trained(artifacts, tmp_path):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    with pytest.raises(InputError, match="weights are floats"):
        export_artifact(artifacts["floats"], Export("openvino", "int8"), tmp_path, rows(artifacts["floats"]))
    with pytest.raises(InputError, match="weights are floats"):
        Predictor(artifacts["floats"], engine="openvino", precision="int8")


def test_one_folder_holds_several_exports_of_one_artifact_only(artifacts, tmp_path):
    given = rows(artifacts["codes"])
    export_artifact(artifacts["codes"], Export("onnx", "fp32"), tmp_path, given)
    report = export_artifact(artifacts["codes"], Export("safetensors", "fp32"), tmp_path, given)
    assert list(report["models"]) == ["onnx/model.onnx", "model.safetensors"]
    card = (tmp_path / "README.md").read_text()
    assert "`onnx/model.onnx`" in card
    assert "100.00% of 10 rows agree" in card
    with pytest.raises(InputError, match="another artifact"):
        export_artifact(artifacts["low bits"], Export("onnx", "fp32"), tmp_path, given)
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        export_artifact(artifacts["codes"], Export("onnx", "fp32"), other, given)


def test_a_file_that_drifts_is_not_written_unless_allowed(artifacts, tmp_path, monkeypatch):
    artifact, wanted = artifacts["codes"], Export("onnx", "int8")
    monkeypatch.setattr(write_room, "ROUNDED", replace(ROUNDED, difference=1e-9))
    with pytest.raises(RunError, match=r"a logit differs.*--allow-drift"):
        export_artifact(artifact, wanted, tmp_path / "out", rows(artifact))
    assert not (tmp_path / "out").exists()
    report = export_artifact(artifact, wanted, tmp_path / "out", rows(artifact), allow_drift=True)
    assert report["models"][wanted.file]["parity"]["largest_difference"] > 0
    (fault,) = report["models"][wanted.file]["drift"]
    assert f"does not give the artifact's answers**: {fault}." in (tmp_path / "out" / "README.md").read_text()


@pytest.fixture(scope="module")
def outliers(tiny_bert, artifacts, tmp_path_factory):
    """A model of floats that 8 bits a row cannot hold: in each row one weight is large, of a neuron that is near 0."""
    import torch
    from torch import nn

    from multipress.checkpoint import save_model

    artifact, model = artifacts["floats"], tiny_bert()
    with torch.no_grad():
        for module in model.bert.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight[0], module.bias[0] = 1e-4, 0
        for module in model.bert.encoder.modules():
            if isinstance(module, nn.Linear):
                module.weight[:, 0] = 1000
        given = [TextEncoder(artifact.tokenizer_json(), 16).encode([text])[0].ids for text in VARIED]
        logits = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in given])
        model.classifier.bias -= logits.mean(dim=0)  # so that no label is that of all texts
    facts = {name: artifact.facts[name] for name in ("run_id", "task", "max_length")}
    folder = tmp_path_factory.mktemp("outliers") / "artifact"
    return save_model(folder, model.eval(), tokenizer_json=artifact.tokenizer_json(), facts=facts)


@pytest.mark.parametrize("reduced_range", [False, True])
def test_rounding_that_changes_labels_is_refused_by_the_bound_as_it_is(outliers, tmp_path, reduced_range):
    given = Rows("rows", VARIED)
    assert len(set(Predictor(outliers).logits(VARIED).argmax(axis=1))) > 1
    assert export_artifact(outliers, Export("onnx", "fp32"), tmp_path / "fp32", given)["models"]
    with pytest.raises(RunError, match=r"% of the rows agree, not 98"):
        export_artifact(outliers, Export("onnx", "int8", reduced_range), tmp_path / "int8", given)
    assert not (tmp_path / "int8").exists()


def test_a_twin_that_is_refused_for_its_missing_rounding_names_what_keeps_it(static, tmp_path, monkeypatch):
    monkeypatch.setattr(write_room, "ROUNDED", replace(ROUNDED, difference=1e-9))
    with pytest.raises(RunError, match="--to onnx keeps that"):
        export_artifact(static, Export("safetensors", "fp32"), tmp_path / "out", rows(static))


def test_labels_that_are_as_good_as_equal_agree_and_others_do_not():
    task = Task("text", "classes", ("a", "b"), ("accuracy",), "accuracy")
    reference = np.array([[1.0, 1.00005], [2.0, 1.0], [0.5, 0.4]], dtype=np.float32)
    assert compare_logits(reference, reference[:, ::-1] + 0, task).agreement == pytest.approx(1 / 3)
    assert drift(compare_logits(reference, reference + np.float32(5e-5), task), EXACT, 2.0) == []
    faults = drift(compare_logits(reference, reference + np.float32(5e-4), task), EXACT, 2.0)
    assert faults == ["a logit differs by 0.0005"]


def test_the_exports_of_another_artifact_are_not_measured_as_its_own(artifacts, tmp_path, capsys):
    export_artifact(artifacts["codes"], Export("onnx", "fp32"), tmp_path, rows(artifacts["codes"]))
    assert main(["measure", str(artifacts["low bits"].folder), "--export", str(tmp_path)]) == 2
    assert "exports of another artifact" in capsys.readouterr().err
    (tmp_path / "onnx" / "model.onnx").write_bytes((tmp_path / "onnx" / "model.onnx").read_bytes()[:-9])
    assert main(["measure", str(artifacts["codes"].folder), "--export", str(tmp_path)]) == 2
    assert "is not the file of onnx/model.onnx that" in capsys.readouterr().err
    (tmp_path / REPORT).unlink()
    assert main(["measure", str(artifacts["codes"].folder), "--export", str(tmp_path)]) == 2
    assert REPORT in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_in_one_line(artifacts, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["export", str(artifacts["codes"].folder), "-o", str(tmp_path / "file" / "sub")]) in (1, 2)
    told = capsys.readouterr().err
    assert "Cannot make the folder" in told
    assert "unexpected" not in told


def test_the_drift_of_the_rival_stands_beside(artifacts, tmp_path):
    artifact = artifacts["codes"]
    report = export_artifact(artifact, Export("onnx", "int8"), tmp_path, rows(artifact), allow_drift=True, rival=True)
    entry = report["models"]["onnx/model_qint8.onnx"]
    assert entry["rival"]["rows"] == len(TEXTS)
    assert entry["rival"]["largest_difference"] > 0
    assert "ONNX Runtime's dynamic int8 of the same model" in (tmp_path / "README.md").read_text()


def test_the_file_for_vnni_has_signed_weights_of_full_range_and_the_same_numbers(artifacts, tmp_path, monkeypatch):
    if not has_exact_products():
        pytest.skip("this processor cuts off sums of 8-bit products")
    artifact, given = artifacts["codes"], rows(artifacts["codes"])
    both = [Export("onnx", "int8"), Export("onnx", "int8", vnni=True)]
    for export in both:
        export_artifact(artifact, export, tmp_path, given)
    assert exports_in(tmp_path) == both
    plain, signed = (onnx.load(tmp_path / export.file) for export in both)
    kinds = [
        {one.data_type for one in model.graph.initializer if one.name.endswith(".codes")} for model in (plain, signed)
    ]
    assert onnx.TensorProto.UINT8 in kinds[0]
    assert kinds[1] == {onnx.TensorProto.INT8}
    logits = [Predictor(artifact, session=read_export(tmp_path, export, artifact)).logits(TEXTS) for export in both]
    assert np.array_equal(*logits)
    assert "for processors with VNNI alone" in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(files_room, "has_exact_products", lambda: False)
    with pytest.raises(InputError, match="is for processors with VNNI"):
        read_export(tmp_path, both[1], artifact)
    with pytest.raises(InputError, match="is for processors with VNNI"):
        export_artifact(artifact, both[1], tmp_path / "other", given)
    assert not (tmp_path / "other" / both[1].file).exists()


@pytest.mark.parametrize(
    "wrong", [{"to": "onnx", "precision": "fp32"}, {"to": "onnx", "precision": "int8", "reduced_range": True}]
)
def test_vnni_goes_with_int8_alone(wrong):
    with pytest.raises(SettingError, match="--vnni goes with"):
        Export(**wrong, vnni=True)


@pytest.mark.parametrize("wrong", [("onnx", "bf16"), ("safetensors", "int8"), ("tflite", "fp32")])
def test_an_export_that_is_not_written_is_refused_with_those_there_are(wrong):
    with pytest.raises(SettingError, match="there are"):
        Export(*wrong)


def test_the_change_of_a_score_lies_in_its_interval_and_none_is_no_change():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=400)
    task = Task("text", "classes", ("a", "b"), ("accuracy",), "accuracy")
    split = Split(["x"] * 400, None, labels)
    reference = random.normal(size=(400, 2)).astype(np.float32)
    worse = np.where((random.random(400) < 0.2)[:, None], reference[:, ::-1], reference)
    same, changed = (compare_logits(reference, found, task, split) for found in (reference, worse))
    assert (same.agreement, same.largest_difference, same.score_change) == (1, 0, 0)
    assert -0.01 < same.change_low == -same.change_high < 0
    rank = replace(task, score="macro_f1")
    slow = compare_logits(reference, worse, rank, split)
    for parity in (changed, slow):
        assert parity.change_low < parity.score_change < parity.change_high
    # Accuracy's draws of counts agree with macro F1's draws of rows, because the classes are even.
    assert changed.change_high - changed.change_low == pytest.approx(slow.change_high - slow.change_low, rel=0.2)
