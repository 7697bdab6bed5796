"""`multipress train` as a user types it, on files and models it has never seen."""

import csv
import json
import shlex
import shutil
import subprocess
import sys

import pytest

from multipress.cli.main import main
from multipress.cli.train import parse_method
from multipress.errors import SettingError
from multipress.plain_text import megabytes
from multipress.spec import MethodSpec
from multipress.store import Store

QUICK = ["--epochs", "1", "--batch-size", "8", "--max-length", "16", "--learning-rate", "0.003"]


@pytest.fixture
def files(tmp_path):
    """Train and dev files of a task of our own."""
    rows = [
        (f"my card is {word} number {i}", label) for i in range(12) for word, label in (("lost", "no"), ("here", "yes"))
    ]
    for name, part in (("train.csv", rows[:16]), ("dev.csv", rows[16:])):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["review", "sentiment"])
            writer.writerows(part)
    return [
        "--train",
        str(tmp_path / "train.csv"),
        "--dev",
        str(tmp_path / "dev.csv"),
        "--text",
        "review",
        "--label",
        "sentiment",
    ]


def test_own_files_are_trained_stored_measured_and_predicted(files, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    methods = ["--method", "quantization:bits=4", "--method", "pruning:sparsity=0.6,updates=2"]
    assert main(["train", str(tiny_folder), *files, *QUICK, *methods, "-o", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    trained = {row["name"]: row["value"] for row in printed["measurements"]}
    assert main(["evaluate", str(out), "--data", files[3], "--text", "review", "--label", "sentiment", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["rows"] == 8
    assert evaluated["score"] == trained["score"]
    assert main(["predict", str(out), "my card is lost", "--json"]) == 0
    (prediction,) = json.loads(capsys.readouterr().out)
    assert set(prediction["scores"]) == {"no", "yes"}
    assert main(["inspect", str(out), "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["weights_bytes"] == trained["weights_bytes"]
    assert {t["bits"] for t in inspected["tensors"] if t["name"].endswith("query.weight")} == {4}
    assert "model-index" in (out / "README.md").read_text()
    assert not (tmp_path / "out.partial").exists()


def test_training_texts_that_were_cut_are_counted(files, tiny_folder, tmp_path, capsys):
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(tmp_path / "whole")]) == 0
    assert "were cut" not in capsys.readouterr().err
    assert main(["train", str(tiny_folder), *files, *QUICK, "--max-length", "5", "-o", str(tmp_path / "cut")]) == 0
    assert "16 training texts are longer than 5 tokens and were cut." in capsys.readouterr().err


def test_distillation_without_a_teacher_fine_tunes_the_model_itself_first(files, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", str(tiny_folder), *files, *QUICK, "--method", "distillation", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert "score" in printed.out
    assert f"The teacher, {tiny_folder}, is fine-tuned first" in printed.err
    assert "The teacher's score is" in printed.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["facts"]["spec"]["teacher"]


def test_the_cards_commands_make_the_distilled_model_again(files, tiny_folder, tmp_path, monkeypatch):
    """The teacher's command first, then the model's: the same weights come out."""
    monkeypatch.chdir(tmp_path)
    command = ["train", str(tiny_folder), *files, *QUICK, "--method", "distillation", "-o", "out"]
    assert main(command) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    commands = [line for line in card.splitlines() if line.startswith("multipress train")]
    assert len(commands) == 2
    shutil.copytree(tiny_folder, tmp_path / tiny_folder.name)
    for line in commands:
        assert main(shlex.split(line)[1:]) == 0
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "OUT"))
    assert first == again


def test_an_unfinished_training_with_other_settings_is_kept(files, tiny_folder, tmp_path, capsys):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    (partial / "0123456789ab").mkdir(parents=True)
    (partial / "0123456789ab" / "checkpoint.safetensors").write_bytes(b"work of an hour")
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(out)]) == 2
    assert "unfinished training with other settings" in capsys.readouterr().err
    assert (partial / "0123456789ab" / "checkpoint.safetensors").read_bytes() == b"work of an hour"


def test_a_teacher_with_another_tokenizer_is_refused_before_it_is_trained(files, tiny_folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"card"', '"kard"'))
    before = sorted(tmp_path.iterdir())
    hidden = ["--method", "distillation:hidden=1,states=token", "--teacher", str(other)]
    assert main(["train", str(tiny_folder), *files, *QUICK, *hidden, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "another tokenizer" in said
    assert "fine-tuned first" not in said
    assert [path for path in sorted(tmp_path.iterdir()) if path not in before] == []


def test_a_diverged_training_may_be_tried_with_other_settings(files, tiny_folder, tmp_path):
    """What our own advice says after a divergence: the same place, a lower rate."""
    store = Store(tmp_path / "out.partial")
    store.check_writable()
    store.register("0123456789ab", {})
    store.claim("0123456789ab").fail("diverged", "The loss is not a number.", retryable=False)
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(tmp_path / "out")]) == 0


def test_a_users_file_in_the_way_is_kept(files, tiny_folder, tmp_path, capsys):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "notes.txt").write_text("mine")
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(tmp_path / "out")]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "out.partial" / "notes.txt").read_text() == "mine"


def test_what_a_crash_left_of_the_stores_own_writing_is_in_nobodys_way(files, tiny_folder, tmp_path):
    (tmp_path / "out.partial").mkdir()
    for name in (".writable-4711", ".0123456789abcdef.tmp"):
        (tmp_path / "out.partial" / name).write_text("")
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(tmp_path / "out")]) == 0


def test_a_users_file_beside_a_finished_artifact_is_kept(files, tiny_folder, tmp_path, capsys):
    command = ["train", str(tiny_folder), *files, *QUICK, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "notes.txt").write_text("mine")
    assert main(command) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "out.partial" / "notes.txt").read_text() == "mine"


def test_a_refused_training_leaves_nothing_behind(files, tiny_folder, tmp_path, capsys):
    numbers = ["--target", "number", "--train", str(tmp_path / "n.csv"), "--dev", str(tmp_path / "n.csv")]
    (tmp_path / "n.csv").write_text("text,label\n" + "".join(f"my card {i},{i}.5\n" for i in range(8)))
    (tmp_path / "d.csv").write_text("text,label\n" + "".join(f"my lost card {i},{i}.5\n" for i in range(8)))
    numbers[-1] = str(tmp_path / "d.csv")
    before = sorted(tmp_path.iterdir())
    wrong = ["--method", "pruning:sparsity=0.00001"]
    assert main(["train", str(tiny_folder), *numbers, *QUICK, *wrong, "-o", str(tmp_path / "out")]) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_an_artifact_and_a_classifier_folder_can_teach(files, tiny_folder, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification

    first = tmp_path / "first"
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(first)]) == 0
    classifier = tmp_path / "classifier"
    labels = {0: "no", 1: "yes"}
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_folder, num_labels=2, id2label=labels, label2id={v: k for k, v in labels.items()}
    )
    model.save_pretrained(classifier)
    shutil.copy(tiny_folder / "tokenizer.json", classifier)
    for teacher in (first, classifier):
        out = tmp_path / f"student-of-{teacher.name}"
        command = ["train", str(tiny_folder), *files, *QUICK, "--method", "distillation:alpha=0.5,hidden=1"]
        assert main([*command, "--teacher", str(teacher), "-o", str(out)]) == 0
        spec = json.loads((out / "manifest.json").read_text())["facts"]["spec"]
        assert spec["methods"][0]["settings"]["alpha"] == 0.5
        assert spec["methods"][0]["settings"]["hidden"] == 1.0
    assert "MB" in capsys.readouterr().out


def test_a_head_for_other_labels_is_drawn_anew_and_the_user_is_told(files, tiny_folder, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification

    classifier = tmp_path / "classifier"
    AutoModelForSequenceClassification.from_pretrained(tiny_folder, num_labels=3).save_pretrained(classifier)
    (classifier / "tokenizer.json").write_bytes((tiny_folder / "tokenizer.json").read_bytes())
    assert main(["train", str(classifier), *files, *QUICK, "-o", str(tmp_path / "out")]) == 0
    assert "LABEL_0, LABEL_1, LABEL_2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "pruninng"], "there are: structured, vocabulary, pruning"),
        (["--method", "pruning:sparsity=60"], "write 0.6"),
        (["--method", "pruning:sparse=0.6"], "its settings are"),
        (["--method", "pruning:sparsity"], "is no setting"),
        (["--method", "pruning", "--method", "pruning"], "twice"),
        (["--teacher", "minilm-l6"], "--method distillation"),
        (["--learning-rate", "2"], "learning_rate"),
        (["--text", "no_such_column"], "review"),
        (["--label", "sentiment", "--label", "review"], "several labels a row are not supported"),
        (["--method", "distillation:sequences=true"], "sequences is for translators"),
        (["--method", "distillation", "--teacher", "nowhere"], "nowhere"),
        (["--method", "distillation", "--teacher", "transformer-tiny"], "transformer-tiny writes text"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(files, tiny_folder, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    chosen = files if "--text" not in arguments else files[:4]
    for place in (["-o", str(out)], ["--dry-run"]):
        assert main(["train", str(tiny_folder), *chosen, *QUICK, *arguments, *place]) == 2
        said = capsys.readouterr().err.strip()
        assert message in said
        assert len(said.splitlines()) == 1
        assert not out.exists()
        assert not (tmp_path / "out.partial").exists()


def test_a_teacher_of_another_task_is_refused_before_anything_is_trained(files, tiny_folder, tmp_path, capsys):
    (tmp_path / "n.csv").write_text("text,label\n" + "".join(f"my card {i},{i}.5\n" for i in range(16)))
    (tmp_path / "m.csv").write_text("text,label\n" + "".join(f"my lost card {i},{i}.5\n" for i in range(16)))
    numbers = ["--train", str(tmp_path / "n.csv"), "--dev", str(tmp_path / "m.csv")]
    teacher = tmp_path / "teacher"
    assert main(["train", str(tiny_folder), *numbers, *QUICK, "-o", str(teacher)]) == 0
    capsys.readouterr()
    for place in (["-o", str(tmp_path / "out")], ["--dry-run"]):
        command = ["train", str(tiny_folder), *files, *QUICK, "--method", "distillation", "--teacher", str(teacher)]
        assert main([*command, *place]) == 2
        assert "The teacher teacher gives number, but text is classes" in capsys.readouterr().err
    kl = ["--method", "distillation:loss=kl"]
    assert main(["train", str(tiny_folder), *numbers, *QUICK, *kl, "-o", str(tmp_path / "out")]) == 2
    assert "fine-tuned first" not in capsys.readouterr().err
    assert not (tmp_path / "out.partial").exists()


def test_a_place_that_is_taken_is_refused_and_kept(files, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert main(["train", str(tiny_folder), *files, *QUICK, "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (out / "precious.txt").read_text() == "mine"


@pytest.mark.slow
def test_ctrl_c_stops_with_130_and_the_same_command_goes_on(files, tiny_folder, tmp_path):
    import signal
    import time

    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "multipress",
        "train",
        str(tiny_folder),
        *files,
        *QUICK[2:],
        "--epochs",
        "400",
        "-o",
        str(out),
    ]
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 400"):
            break
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert "goes on" in said
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "step 160 of" not in done.stderr
    assert out.is_dir()


def test_methods_are_parsed_from_text():
    assert parse_method("pruning") == MethodSpec("pruning", {})
    assert parse_method("pruning:sparsity=0.6,scope=matrix") == MethodSpec(
        "pruning", {"sparsity": "0.6", "scope": "matrix"}
    )
    with pytest.raises(SettingError, match="twice"):
        parse_method("pruning:sparsity=0.6,sparsity=0.5")


@pytest.mark.parametrize(
    "methods",
    [
        [],
        ["quantization"],
        ["quantization:activation_bits=8,activation_scale=static"],
        ["quantization:bits=3", "pruning:sparsity=0.6,updates=2"],
        ["pruning", "vocabulary"],
    ],
    ids=str,
)
def test_the_size_is_known_before_the_training(methods, files, tiny_folder, tmp_path, capsys):
    """Of pre-trained encoders to one in a thousand (docs/log.md); this one's biases are zero before it is trained."""
    out = tmp_path / "out"
    command = ["train", str(tiny_folder), *files, *QUICK]
    command += [part for method in methods for part in ("--method", method)]
    assert main([*command, "--dry-run", "--json"]) == 0
    ahead = json.loads(capsys.readouterr().out)
    assert main([*command, "-o", str(out), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ahead
    assert not out.exists()
    assert main(command) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*command, "-o", str(out), "--json"]) == 0
    measured = {row["name"]: row["value"] for row in json.loads(capsys.readouterr().out)["measurements"]}
    assert ahead["weights_bytes"] == pytest.approx(measured["weights_bytes"], rel=0.1)
    assert ahead["package_bytes"] == pytest.approx(measured["package_bytes"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "within"),
    [
        (["quantization"], 0.01),
        (["quantization:bits=3,group=32", "pruning:sparsity=0.6,updates=2"], 0.01),
        (["quantization:rate=1.5,steps=tensor"], 0.1),
        (["quantization:rate=1,steps=tensor", "vocabulary:general=false"], 0.1),
    ],
    ids=str,
)
def test_the_size_of_a_real_encoder_is_known_as_exactly_as_is_said(methods, within, tmp_path, capsys):
    rows = ["--task", "banking77", "--max-train-rows", "800", "--max-eval-rows", "20", "--max-length", "32"]
    command = ["train", "minilm-l3", *rows, "--epochs", "4", "--batch-size", "16", "--json"]
    command += [part for method in methods for part in ("--method", method)]
    assert main([*command, "--dry-run"]) == 0
    ahead = json.loads(capsys.readouterr().out)
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    measured = {row["name"]: row["value"] for row in json.loads(capsys.readouterr().out)["measurements"]}
    for name in ("weights_bytes", "package_bytes"):
        assert measured[name] <= (1 + within) * ahead[name], name
        # In so few steps (200) a rate falls below what was asked for: by 13 % here (docs/log.md).
        assert measured[name] >= (1 - (within if within < 0.1 else 0.2)) * ahead[name], name


def test_a_limit_that_cannot_be_kept_is_refused_before_the_training(files, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["train", str(tiny_folder), *files, *QUICK, "-o", str(out)]
    assert main([*command, "--max-mb", "0.01"]) == 2
    assert "above the limit of 0.01 MB. Nothing was trained" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.csv", "train.csv"]
    for wrong in ("0", "-1", "nan", "inf"):
        assert main([*command, "--max-mb", wrong]) == 2


def test_a_limit_that_may_not_be_kept_is_told_before_the_training(files, tiny_folder, tmp_path, capsys):
    command = ["train", str(tiny_folder), *files, *QUICK]
    assert main([*command, "--dry-run", "--json"]) == 0
    ahead = json.loads(capsys.readouterr().out)["package_bytes"]
    assert main([*command, "--dry-run"]) == 0
    assert "MB (to 2%), " in capsys.readouterr().out
    assert main([*command, "--max-mb", str(0.995 * ahead / 1e6), "-o", str(tmp_path / "out")]) in (0, 1)
    assert "perhaps more than the limit of" in capsys.readouterr().err


def test_a_model_above_the_limit_fails_at_the_end_and_is_kept(files, tiny_folder, tmp_path, capsys):
    """A price for each bit: what will come of it nobody knows before."""
    out = tmp_path / "out"
    priced = ["--method", "quantization:rate_weight=0.001,steps=tensor", "--max-mb", "0.01"]
    command = ["train", str(tiny_folder), *files, *QUICK, *priced, "-o", str(out)]
    assert main(command) == 1
    said = capsys.readouterr()
    size = sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md")
    assert f"{megabytes(size)}, {megabytes(size - 10_000)} above the limit of 0.01 MB" in said.err
    assert "score" in said.out
    assert main(["evaluate", str(out), "--data", files[3], "--text", "review", "--label", "sentiment"]) == 0
    assert main([*command[:-4], "--max-mb", "1", "-o", str(out)]) == 0  # it is there already, and small enough
