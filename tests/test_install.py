"""The package as a stranger gets it: the wheel, its core in an empty environment, a prediction there."""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from multipress.artifact import open_artifact
from tiny import bert_config, word_piece

ROOT = Path(__file__).parents[1]
TEXTS = ["my card has not arrived", "top up", "my my my"]
LABELS = ["card", "money", "other"]


def run(*command: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **settings)


def give_up(reason: str) -> NoReturn:
    """Skip the test; where the environment says `CI=true`, fail it, because nobody would see that it was skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment that holds the core and nothing else."""
    folder = tmp_path_factory.mktemp("core") / "env"
    done = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert done.returncode == 0, done.stderr
    python = folder / "bin" / "python"
    install = ["install", "--python", python, wheel]
    # The cache first: it needs no network. pip comes last: it is slow, but it reads pip's own settings.
    ways = [[sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel]]
    if importlib.util.find_spec("uv") is not None:
        uv = [sys.executable, "-m", "uv", "pip"]
        ways = [[*uv, "--offline", *install], [*uv, *install], *ways]
    said = []
    for way in ways:
        done = run(*way)
        if done.returncode == 0:
            return folder / "bin"
        said.append(done.stderr.strip()[-300:])
    give_up(f"neither a cache nor an index has the core's needs: {said}")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer classifier with its own small vocabulary, stored."""
    import torch
    from transformers import BertForSequenceClassification

    from multipress.checkpoint import save_model

    words = sorted({word for text in TEXTS for word in text.split()})
    torch.manual_seed(0)
    config = bert_config(len(words), num_labels=len(LABELS), initializer_range=0.5)
    folder = tmp_path_factory.mktemp("artifact") / "out"
    task = {
        "name": "text",
        "target": "classes",
        "labels": LABELS,
        "metrics": ["accuracy"],
        "score": "accuracy",
    }
    facts = {"run_id": "", "spec": {}, "task": task, "max_length": 16, "versions": {}, "computer": {}}
    model = BertForSequenceClassification(config).eval()
    save_model(folder, model, tokenizer_json=word_piece(words), facts=facts)
    return folder


@pytest.fixture(scope="module")
def clean() -> dict[str, str]:
    """The environment without anything that leads Python to another installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.mark.parametrize(("setting", "outcome"), [("true", pytest.fail), ("false", pytest.skip), ("", pytest.skip)])
def test_a_core_that_cannot_be_installed_fails_in_ci_and_is_skipped_elsewhere(
    setting: str, outcome: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", setting)
    with pytest.raises(outcome.Exception, match="no index"):  # type: ignore[attr-defined]
        give_up("no index")


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"multipress"}
    source = ROOT / "src" / "multipress"
    files = {
        path.relative_to(source.parent).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == {name for name in names if name.startswith("multipress/")}
    assert "multipress/py.typed" in files
    assert "multipress/tasks/data/banking77/train.csv" in files


def test_the_core_installs_no_torch(core: Path, clean: dict[str, str]) -> None:
    script = (
        "import importlib.util, json\n"
        "names = ['torch', 'transformers', 'pyarrow', 'datasets', 'onnx', 'scipy', 'pandas', 'sklearn']\n"
        "print(json.dumps([name for name in names if importlib.util.find_spec(name)]))"
    )
    done = run(core / "python", "-c", script, env=clean)
    assert json.loads(done.stdout) == [], done.stderr


def test_the_core_predicts_what_the_full_install_predicts(
    core: Path, artifact: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    from multipress.checkpoint import load_model
    from multipress.runtime import Predictor

    script = (
        "import json, sys\n"
        "import multipress\n"
        "predictor = multipress.open(sys.argv[1])\n"
        "print(json.dumps(predictor.logits(json.loads(sys.argv[2])).tolist()))"
    )
    done = run(core / "python", "-c", script, artifact, json.dumps(TEXTS), env=clean, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout))
    assert np.ptp(found) > 0.01  # the model tells texts apart, so agreement says something
    np.testing.assert_allclose(found, Predictor(artifact).logits(TEXTS), rtol=0, atol=1e-5)
    model = load_model(artifact)
    import torch

    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_str(open_artifact(artifact).tokenizer_json())
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits[0]
        np.testing.assert_allclose(row, logits.numpy(), rtol=0, atol=1e-4)


def test_the_commands_of_the_core_work_there(core: Path, artifact: Path, clean: dict[str, str], tmp_path: Path) -> None:
    program = core / "multipress"

    def answer(*arguments: str | Path) -> str:
        done = run(program, *arguments, env=clean, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "predict" in answer("--help")
    inspected = json.loads(answer("inspect", artifact, "--json"))
    assert inspected["weights_bytes"] == (artifact / "model.safetensors").stat().st_size
    predictions = json.loads(answer("predict", artifact, *TEXTS, "--json"))
    assert [set(prediction) for prediction in predictions] == [{"label", "score", "scores"}] * len(TEXTS)
    assert all(prediction["label"] in LABELS for prediction in predictions)
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\nmy card,card\ntop up,money\n", encoding="utf-8")
    assert json.loads(answer("evaluate", artifact, "--data", rows, "--json"))["rows"] == 2
    assert "banking77" in answer("list", "tasks")


def test_a_command_that_needs_torch_names_the_extra(core: Path, clean: dict[str, str], tmp_path: Path) -> None:
    for arguments in (["list", "methods"], ["train", "minilm-l3", "--task", "banking77", "-o", "out"]):
        done = run(core / "multipress", *arguments, env=clean, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert 'pip install "multipress[train]"' in done.stderr
    assert not (tmp_path / "out").exists()


INTERVALS = """
import sys
blocked = set(sys.argv[1].split(","))
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, *more):
    return None if name.partition(".")[0] in blocked else find(name, *more)
PathFinder.find_spec = staticmethod(find_spec)
import numpy as np
from multipress.dissect.jackknife import intervals
from multipress.dissect.probes import _mean
assert intervals({"it": 1.0}, [{"it": 1.0 + i} for i in range(10)], {})["it"][0] < 1
assert _mean(np.arange(10.0), np.arange(10), 0.0)[1] < 4.5
"""


def test_dissections_need_no_more_than_the_extra_for_training():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    found = set()
    while wanted:
        name = re.match(r"[\w.-]+", wanted.pop())[0].lower().replace("_", "-")
        if name not in found:
            found.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):  # of another system or Python
                wanted += [one for one in metadata.requires(name) or () if "extra ==" not in one]
    blocked = [
        module
        for module, owners in metadata.packages_distributions().items()
        if module.isidentifier() and not {one.lower().replace("_", "-") for one in owners} & {*found, "multipress"}
    ]
    assert "statsmodels" in blocked
    done = run(sys.executable, "-c", INTERVALS, ",".join(blocked))
    assert done.returncode == 0, done.stderr
