"""Every error a user may meet, as one tree.

MultipressError                 exit code 1
├── InputError                  exit code 2: wrong use or bad input
│   ├── SettingError            a setting of a method or a command
│   ├── SpecError               a study file, a run's description, an unknown name
│   ├── DataError               a data file or a task's rows
│   ├── ModelError              a model folder, hub id or its weights
│   └── ArtifactError           a stored artifact: damaged, foreign, or too new
├── MissingExtraError           an optional dependency is not installed (exit code 2)
├── StoreError                  a folder of runs cannot be read or written
│   ├── NoStoreError            there is none where one was named (an InputError too: exit code 2)
│   └── CheckpointError         a training cannot go on from its checkpoint
└── RunError                    a run failed
    └── DivergedError           the loss became NaN or infinite

Each message says what is wrong, what was found, and what to do. The command line prints it without a
traceback and exits with `exit_code`.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "DataError",
    "DivergedError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "MultipressError",
    "NoStoreError",
    "RunError",
    "SettingError",
    "SpecError",
    "StoreError",
]


class MultipressError(Exception):
    """Any error that multipress raises on purpose."""

    exit_code = 1


class InputError(MultipressError):
    """Wrong use or bad input."""

    exit_code = 2


class SettingError(InputError):
    """A setting has a value that cannot be used, or is unknown."""


class SpecError(InputError):
    """A study file or a name in it cannot be used."""


class DataError(InputError):
    """A data file or its rows cannot be used."""


class ModelError(InputError):
    """A model folder, hub id or its weights cannot be used."""


class ArtifactError(InputError):
    """A stored artifact is damaged, foreign or of a newer format."""


class MissingExtraError(MultipressError):
    """Something optional is not installed; the message names the command that installs it."""

    exit_code = 2


class StoreError(MultipressError):
    """A folder of runs cannot be read or written."""


class NoStoreError(StoreError, InputError):
    """There is no folder of runs where one was named."""


class CheckpointError(StoreError):
    """A checkpoint is damaged, incomplete, or of another run."""


class RunError(MultipressError):
    """A run failed; the same run may succeed when tried again."""


class DivergedError(RunError):
    """The loss became NaN or infinite.

    Args:
        step: Optimizer step, counted from 0, at which it happened.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"The loss is not a number at step {step}. Lower the learning rate or change the seed.")
        self.step = step
