"""A translator from its rows to its artifact and back, as a user meets it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import multipress as mp
from multipress.artifact import open_artifact
from multipress.checkpoint import load_model, save_model
from multipress.cli.main import main
from multipress.errors import ArtifactError, SettingError
from multipress.methods import Context
from multipress.recipe import Recipe
from multipress.runtime import Predictor, TextEncoder
from multipress.spec import TrainingSpec
from multipress.train import Saving, train
from tiny import parallel_rows, tiny_translator

TRAINING = TrainingSpec(
    epochs=12,
    learning_rate=5e-3,
    batch_tokens=96,
    label_smoothing=0.1,
    schedule="inverse_sqrt",
    adam_beta2=0.98,
)
ENGLISH = ["dog", "cat", "man", "woman", "ball", "red", "blue", "runs", "eats", "sees"]
GERMAN = ["Hund", "Katze", "Mann", "Frau", "Ball", "rot", "blau", "läuft", "isst", "sieht"]


def test_the_loop_teaches_a_translator():
    losses = []
    train(
        tiny_translator(layers=1),
        parallel_rows(64),
        Recipe([]),
        TRAINING,
        Context("text"),
        on_step=lambda step, total, loss: losses.append(loss),
    )
    assert np.mean(losses[-10:]) < 0.7 * losses[0]


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    short = TrainingSpec(**{**TRAINING.to_json(), "epochs": 2})
    whole = train(tiny_translator(), parallel_rows(), Recipe([]), short, Context("text"))

    class StoppedError(Exception):
        pass

    def stop(step, total, loss):
        if step == 9:
            raise StoppedError

    saving = Saving(tmp_path / "checkpoint", "run", every_steps=4)
    with pytest.raises(StoppedError):
        train(tiny_translator(), parallel_rows(), Recipe([]), short, Context("text"), saving=saving, on_step=stop)
    assert "model.model.shared.weight" in load_file(tmp_path / "checkpoint")
    resumed = train(tiny_translator(), parallel_rows(), Recipe([]), short, Context("text"), saving=saving)
    for (name, one), (_, other) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Parallel files of 200 and 30 rows, word for word."""
    folder = tmp_path_factory.mktemp("parallel")
    random = np.random.default_rng(0)
    for split, count in (("train", 200), ("dev", 30)):
        lines = ["source,target"]
        for _ in range(count):
            words = random.integers(0, 10, random.integers(4, 7))
            lines.append(",".join(" ".join(side[word] for word in words) for side in (ENGLISH, GERMAN)))
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def artifact(files):
    """A translator trained on them by the command line."""
    own = ["--train", str(files / "train.csv"), "--dev", str(files / "dev.csv"), "--target", "text"]
    how = ["--epochs", "8", "--batch-tokens", "256", "--learning-rate", "0.01", "--max-length", "32"]
    assert run("train", "transformer-l1-h32-v300", *own, *how, "-o", files / "out") == 0
    return files / "out"


def run(*words):
    """The exit code of a command."""
    try:
        return main([str(word) for word in words]) or 0
    except SystemExit as error:
        return error.code or 0


def test_what_was_trained_translates_is_scored_and_inspected(files, artifact, capsys):
    capsys.readouterr()
    assert run("evaluate", artifact, "--data", files / "dev.csv", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {"task", "rows", "metrics", "score"} <= set(result)
    assert result["score"] == pytest.approx(result["metrics"]["bleu"] / 100)
    assert result["score_low"] <= result["score"] <= result["score_high"]
    assert result["metrics"]["chrf"] > 10
    assert result["signatures"]["bleu"].startswith("nrefs:1|")
    assert run("predict", artifact, "dog sees cat", "man eats", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [set(row) for row in found] == [{"translation", "score"}] * 2
    assert run("inspect", artifact, "--json") == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["tensors"]]
    assert "model.shared.weight" in names
    assert "final_logits_bias" in names
    assert not any("positions" in name or "lm_head" in name for name in names)
    assert [row.to_json() for row in mp.open(artifact)(["dog sees cat", "man eats"])] == found


def test_it_is_measured(files, artifact, capsys):
    capsys.readouterr()
    assert run("measure", artifact, "--data", files / "dev.csv", "--repeats", "2", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    found = {row["name"]: row for row in rows}
    assert {"bleu", "chrf", "score", "weights_bytes", "latency_p50_ms", "peak_memory_bytes"} <= set(found)
    assert found["bleu"]["unit"] == "points"
    assert {row["context"]["batch_size"] for row in rows if row["name"] == "latency_p50_ms"} == {1, 32}
    assert found["latency_p50_ms"]["value"] > 0


def test_a_folder_of_a_marian_model_is_trained_and_teaches(files, artifact, tmp_path):
    folder = tmp_path / "marian"
    mp.load(artifact).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(open_artifact(artifact).tokenizer_json(), encoding="utf-8")
    own = ["--train", files / "train.csv", "--dev", files / "dev.csv", "--target", "text", "--max-length", "32"]
    short = ["--epochs", "1", "--max-train-rows", "8", "--learning-rate", "0"]
    assert run("train", folder, *own, *short, "-o", tmp_path / "same") == 0
    one, other = (open_artifact(place).dense_weights() for place in (artifact, tmp_path / "same"))
    assert one.keys() == other.keys()
    assert all(np.allclose(one[name], other[name], atol=1e-6) for name in one)
    taught = ["--method", "distillation", "--teacher", folder, *short, "-o", tmp_path / "taught"]
    assert run("train", folder, *own, *taught) == 0


def test_a_student_learns_from_translations_of_its_teacher(files, artifact, capsys):
    own = ["--train", files / "train.csv", "--dev", files / "dev.csv", "--target", "text", "--epochs", "1"]
    how = ["--method", "distillation:sequences=true,alpha=0", "--max-train-rows", "40", "--max-length", "32"]
    student = ["train", "transformer-l1-h64-v300", *own, *how, "--teacher", artifact, "-o", files / "student", "--json"]
    assert run(*student) == 0
    capsys.readouterr()
    facts = open_artifact(files / "student").facts
    assert facts["spec"]["methods"][0]["settings"]["sequences"] is True
    wrong = ["--method", "distillation:alpha=0.5", "--teacher", artifact, "-o", files / "other"]
    assert run("train", "transformer-l1-h32-v300", *own, "--max-train-rows", "9", *wrong) == 2
    assert "tokenizer" in capsys.readouterr().err


def test_the_stored_predictions_are_scored_again_on_samples(files, artifact):
    from multipress.measure import read_outcome, write_outputs
    from multipress.tasks import Task, load_rows

    task = Task.from_json(open_artifact(artifact).facts["task"])
    rows = load_rows(files / "dev.csv", task=task).split
    outputs = mp.open(artifact).outputs(rows.texts)
    attempt = files / "attempt"
    (attempt / "artifact").mkdir(parents=True)
    (attempt / "artifact" / "manifest.json").write_bytes((artifact / "manifest.json").read_bytes())
    write_outputs(attempt, task, outputs, rows.labels)
    outcome = read_outcome(attempt)
    import sacrebleu

    draws = np.array([np.arange(30), [3] * 30])
    expected = [sacrebleu.corpus_bleu(outputs[d].tolist(), [rows.labels[d].tolist()]).score / 100 for d in draws]
    np.testing.assert_allclose(outcome.score_on(draws), expected)


def test_stored_and_loaded_again_it_is_the_same(artifact):
    model = load_model(artifact)
    facts = open_artifact(artifact).facts
    again = save_model(
        artifact.parent / "again", model, tokenizer_json=open_artifact(artifact).tokenizer_json(), facts=facts
    )
    assert (again.folder / "model.safetensors").read_bytes() == (artifact / "model.safetensors").read_bytes()
    assert not (artifact / "graph.onnx.zst").exists()


def test_it_opens_in_the_auto_classes(artifact):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    import multipress.huggingface  # noqa: F401

    texts = ["dog sees cat", "man eats red ball", ""]
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    ours = TextEncoder(open_artifact(artifact).tokenizer_json(), 32)
    rows = [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    assert rows == [row.ids for row in ours.encode(texts)]
    model = AutoModelForSeq2SeqLM.from_pretrained(artifact).eval()
    written = {"decoder_input_ids": torch.tensor([[model.config.decoder_start_token_id, 7, 9]] * 3)}
    with torch.no_grad():
        logits, expected = model(**inputs, **written).logits, load_model(artifact).eval()(**inputs, **written).logits
    assert torch.allclose(logits, expected, atol=1e-4)
    greedy = model.generate(**inputs, num_beams=1, max_new_tokens=8)
    assert tokenizer.batch_decode(greedy, skip_special_tokens=True)[0]


def test_what_cannot_be_is_refused_in_one_line(files, artifact, capsys):
    with pytest.raises(ArtifactError, match=r"multipress\.open"):
        Predictor(artifact)
    with pytest.raises(ArtifactError, match="no graph"):
        open_artifact(artifact).graph()
    with pytest.raises(SettingError, match="precision"):
        mp.open(artifact, precision="int8")
    own = ["--train", str(files / "train.csv"), "--dev", str(files / "dev.csv")]
    assert run("train", "minilm-l3", *own, "--target", "text", "-o", files / "no") == 2
    assert "Take a translator" in capsys.readouterr().err
    assert run("train", "transformer-l1-h32", "--task", "banking77", "-o", files / "no") == 2
    assert "Take an encoder" in capsys.readouterr().err
    assert run("export", artifact, "--to", "onnx", "-o", files / "no") == 2
    assert "translator" in capsys.readouterr().err


def test_without_torch_predicting_names_the_extra(artifact):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from multipress.cli.main import main\n"
        f"sys.exit(main(['predict', {str(artifact)!r}, 'dog']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "multipress[train]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
