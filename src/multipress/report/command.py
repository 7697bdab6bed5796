"""The command that makes a run's artifact again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from multipress.spec import TRAINING_OPTIONS, MethodSpec, RunSpec, default_training

__all__ = ["command_for", "made_by", "shown_spec"]


def made_by(spec: RunSpec, run_id: str, spec_of: Callable[[str], RunSpec]) -> str:
    """The commands that make a run's artifact again, its teacher's before it, one a line.

    Args:
        spec: The run.
        run_id: Its id.
        spec_of: Gives the run of an id.
    """
    if spec.start or spec.mask_from:
        text = f"multipress study run STUDY.toml  # one of its runs, {run_id}"
        return f"{text}; it goes on from run {spec.start or spec.mask_from}"
    commands, teacher = [], ""
    if spec.teacher:
        label = spec_of(spec.teacher)
        teacher = Path(label.model).name
        if label.teacher:
            teacher = "TEACHER"
            commands.append(command_for(shown_spec(spec_of(label.teacher)), out=teacher))
    commands.append(command_for(shown_spec(spec), teacher))
    return "\n".join(commands)


def shown_spec(spec: RunSpec) -> RunSpec:
    """The run with the names of files and model folders, without where they lie."""
    named = replace(spec.data, train=Path(spec.data.train).name, dev=Path(spec.data.dev).name)
    return replace(spec, model=Path(spec.model).name if Path(spec.model).exists() else spec.model, data=named)


def command_for(spec: RunSpec, teacher: str = "", out: str = "OUT") -> str:
    """The `multipress train` command that trains this run again; what is at its default is left out.

    Args:
        spec: The run.
        teacher: Folder of the artifact that teaches; empty for none.
        out: Where the command puts its artifact.
    """
    data, training = spec.data, spec.training
    words = ["multipress", "train", spec.model]
    words += ["--task", data.task] if data.task else ["--train", data.train, "--dev", data.dev]
    for column in data.text:
        words += ["--text", column]
    for option, value in (("label", data.label), ("target", data.target), ("metric", data.metric)):
        words += [f"--{option}", value] if value else []
    for name in ("max_train_rows", "max_eval_rows"):
        words += [f"--{name.replace('_', '-')}", str(getattr(data, name))] if getattr(data, name) else []
    for name in TRAINING_OPTIONS:
        if getattr(training, name) != getattr(default_training(spec.model), name):
            words += [f"--{name.replace('_', '-')}", str(getattr(training, name))]
    for method in spec.methods:
        words += ["--method", _method_text(method)]
    words += ["--teacher", teacher] if teacher else []
    words += ["--seed", str(spec.seed), "-o", out]
    return shlex.join(words)


def _method_text(method: MethodSpec) -> str:
    settings = ",".join(f"{key}={str(value).lower()}" for key, value in sorted(method.settings.items()))
    return f"{method.name}:{settings}"
