"""A pickle checkpoint to safetensors, for models whose makers published nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from multipress.durable import file_fact, is_free, move_folder, sync_folder
from multipress.errors import ModelError
from multipress.models import unpickle
from multipress.models.catalogue import MODEL_FILES, PICKLE_SUFFIXES, Source, find_model
from multipress.models.pretrained import identify
from multipress.models.tokenizer_files import inside
from multipress.plain_text import plain

__all__ = ["convert_pickle"]

# The child needs the file's tensors twice (as read, and each in memory of its own), and a third for the file written.
MEMORY_FACTOR = 3
MEMORY_BESIDE = 512 * 2**20
# Nothing else of the environment reaches the child.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")


def convert_pickle(model: str, out: Path, *, models_dir: Path | None = None, seconds: int = 600) -> Path:
    """Make a model folder with safetensors of one that holds only a pickle.

    The pickle is read in a child process that has no network, cannot start a program, and is ended at its limits of
    memory (three times the file, and 512 MiB) and time; see `unpickle`. What it wrote is then checked as any model is,
    and only a model that can be loaded appears at `out`.

    Args:
        model: A folder, a short name, or a hub id.
        out: Folder to make; must not exist yet or be empty.
        models_dir: Folder of model folders.
        seconds: Time limit.

    Returns:
        `out`.

    Raises:
        ModelError: nothing to convert, the pickle holds more than tensors or exceeds a limit, the tensors are not
            those that the config describes, `out` is taken, or this computer cannot confine a process.
    """
    if not unpickle.CAN_CONFINE:
        raise ModelError("A pickle is only converted on Linux on x86-64 or arm64, where its reader can be confined.")
    if not is_free(out):
        raise ModelError(f"{out} exists already and is not empty. Name another place, or remove it.")
    source = find_model(model, models_dir, pickled=True)
    checkpoint = _checkpoint(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as made:
        folder = Path(made) / "model"
        folder.mkdir()
        _run_child(checkpoint, folder / "model.safetensors", seconds)
        for name in MODEL_FILES:
            path = inside(source.folder, name)
            if name != "model.safetensors" and path.is_file():
                shutil.copyfile(path, folder / name)
        try:
            identify(str(folder))
        except ModelError as error:
            reason = str(error).replace(str(folder / "model.safetensors"), checkpoint.name).replace(str(folder), model)
            raise ModelError(f"What {checkpoint} holds is no model that can be used: {reason}") from None
        for path in folder.iterdir():
            file_fact(path, sync=True)
        sync_folder(folder)
        move_folder(folder, out)
    return out


def _checkpoint(source: Source) -> Path:
    folder = source.folder
    if (folder / "model.safetensors").is_file():
        raise ModelError(f"{source.name} holds model.safetensors already; there is nothing to convert.")
    found = sorted(path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    named = [path for path in found if path.name == "pytorch_model.bin"] or found
    if len(named) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise ModelError(f"{source.name}: one pickle is converted, such as pytorch_model.bin; found: {names}.")
    return inside(folder, named[0].name)


def _run_child(checkpoint: Path, target: Path, seconds: int) -> None:
    memory = MEMORY_FACTOR * checkpoint.stat().st_size + MEMORY_BESIDE
    # -P: a file named torch.py in the current folder is not imported.
    command = [sys.executable, "-P", unpickle.__file__]
    command += [str(checkpoint.resolve()), str(target), str(memory), str(seconds)]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=seconds,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{checkpoint} was not converted within {seconds} seconds; its reader was ended.") from None
    if done.returncode == 0:
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = plain(lines[-1][:300]) if lines else "it said nothing"
    if done.returncode == unpickle.REFUSED:
        raise ModelError(f"{checkpoint} was refused: {said.rstrip('.')}.")
    how = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"ended with code {done.returncode}"
    raise ModelError(f"The reader of {checkpoint} was {how}: {said}")
