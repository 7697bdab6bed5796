"""Pickle checkpoints: converted in a process that can do nothing else, or refused."""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import BertForPreTraining

from multipress.cli.main import main
from multipress.errors import ModelError
from multipress.models import load_pretrained, unpickle
from multipress.models.convert import convert_pickle
from tiny import bert_config, word_piece

pytestmark = pytest.mark.skipif(not unpickle.CAN_CONFINE, reason="this computer cannot confine a process")


class OrderedPair:
    """What a plain pickle may name."""


@pytest.fixture
def pickled(tmp_path):
    """A folder as the makers of old models published them: a pickle, a config, a word list."""
    torch.manual_seed(0)
    model = BertForPreTraining(bert_config(20))
    folder = tmp_path / "old"
    folder.mkdir()
    model.config.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(word_piece([f"w{i}" for i in range(20)]))
    state = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in model.state_dict().items()
    }
    torch.save(state, folder / "pytorch_model.bin")
    return folder, model


def test_a_converted_model_holds_the_very_tensors(pickled, tmp_path, capsys):
    folder, model = pickled
    out = tmp_path / "new" / "model"
    assert main(["convert", str(folder), "-o", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    loaded = load_pretrained(str(out), label_names=("a", "b"), seed=0).model.bert.state_dict()
    expected = model.bert.state_dict()
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert [path.name for path in out.parent.iterdir()] == ["model"]  # nothing else is left behind


def test_the_refusal_of_a_pickle_names_the_command_that_works(pickled, tmp_path):
    folder, _ = pickled
    with pytest.raises(ModelError, match=rf"multipress convert {folder} -o"):
        load_pretrained(str(folder), label_names=("a", "b"), seed=0)


class Evil:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_pickle_is_never_run(pickled, tmp_path):
    folder, model = pickled
    torch.save({**model.state_dict(), "x": Evil(f"touch {tmp_path}/ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"more than tensors: it names (posix|os|nt)\.system"):
        convert_pickle(str(folder), tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def write(content):
    def change(folder, model):
        if isinstance(content, bytes):
            (folder / "pytorch_model.bin").write_bytes(content)
        else:
            torch.save(content(model.state_dict()), folder / "pytorch_model.bin")

    return change


def without_pickle(folder, model):
    (folder / "pytorch_model.bin").unlink()


def with_safetensors(folder, model):
    (folder / "model.safetensors").write_bytes(b"anything")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (write(lambda state: {"model": dict(state)}), r"'model' is a dict, not a tensor"),
        (write(b"no pickle at all"), r"or is no checkpoint of PyTorch\.$"),
        (write(b"hello world, this is a text"), r"is no checkpoint of PyTorch\.$"),
        (write(pickle.dumps(OrderedPair)), r"holds more than tensors[^.]*$|is no checkpoint of PyTorch"),
        (write(lambda state: {key: state[key] for key in list(state)[5:]}), r"missing: bert\.embeddings"),
        (without_pickle, "found: none"),
        (with_safetensors, "nothing to convert"),
    ],
    ids=["nested", "text", "garbage", "a class", "missing", "no pickle", "safetensors there"],
)
def test_what_is_no_checkpoint_of_the_model_is_refused(pickled, tmp_path, change, message):
    folder, model = pickled
    change(folder, model)
    with pytest.raises(ModelError, match=message):
        convert_pickle(str(folder), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_a_place_that_is_taken_is_kept(pickled, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ModelError, match="not empty"):
        convert_pickle(str(pickled[0]), tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_the_time_limit_ends_the_child(pickled, tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text("while True: pass")
    monkeypatch.setattr(unpickle, "__file__", str(tmp_path / "endless.py"))
    started = os.times().elapsed
    with pytest.raises(ModelError, match="within 1 seconds"):
        convert_pickle(str(pickled[0]), tmp_path / "out", seconds=1)
    assert os.times().elapsed - started < 30
    assert not (tmp_path / "out").exists()


CONFINED = """
    import os, socket, sys, threading
    sys.path.insert(0, sys.argv[1])
    from unpickle import confine
    confine(200 * 2**20, 2)

    def fails(action, kind):
        try:
            action()
        except kind:
            return True
        return False

    assert fails(lambda: socket.socket(), PermissionError), "socket"
    assert fails(lambda: socket.socketpair(), PermissionError), "socketpair"
    assert fails(lambda: os.execv("/bin/true", ["true"]), PermissionError), "exec"
    assert fails(lambda: os.fork(), PermissionError), "fork"
    thread = threading.Thread(target=lambda: None)
    thread.start()  # a thread is allowed
    thread.join()
    assert fails(lambda: bytearray(400 * 2**20), MemoryError), "memory"
    assert bytearray(50 * 2**20), "some memory is left"
    print("confined", flush=True)  # before it is killed
    while True:
        pass
"""


def test_the_child_has_no_network_no_programs_and_its_limits():
    """Each door is tried from the inside; the last, the processor time, ends the process."""
    room = Path(unpickle.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CONFINED), room],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "confined", done.stderr
    assert done.returncode < 0
