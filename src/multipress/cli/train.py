"""`multipress train`: one model, one recipe, one artifact."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multipress.errors import RunError, SettingError
from multipress.plain_text import megabytes, plain
from multipress.spec import TRAINING_OPTIONS, DataSpec, MethodSpec, RunSpec, default_training

if TYPE_CHECKING:
    from multipress.engines.single import Trained

__all__ = ["parse_method", "train"]


def parse_method(text: str) -> MethodSpec:
    """A method as the command line writes it: `pruning` or `pruning:sparsity=0.6,scope=matrix`.

    Raises:
        SettingError: a setting without a value, or given twice.
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise SettingError(f"{part!r} in --method {text} is no setting. Write --method {name}:name=value.")
        if key in settings:
            raise SettingError(f"--method {text} gives {key} twice.")
        settings[key.strip()] = value.strip()
    return MethodSpec(name, settings)


def _default(help_text: str, name: str) -> str:
    """The help of an option, with its default, and that of a new translator where it is another."""
    usual, translator = (getattr(default_training(model), name) for model in ("", "transformer-tiny"))
    return f"{help_text} [default: {usual}{f'; new translators: {translator}' * (usual != translator)}]"


def train(
    model: Annotated[str, typer.Argument(help="Short name, folder or hub id of an encoder or translator.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to make: the artifact. Needed unless --dry-run.")
    ] = None,
    task: Annotated[str, typer.Option(help="A registered task, such as sst2 (see `list tasks`).")] = "",
    train_file: Annotated[str, typer.Option("--train", help="Training rows: CSV, TSV, JSON lines or Parquet.")] = "",
    dev_file: Annotated[str, typer.Option("--dev", help="Validation rows.")] = "",
    text: Annotated[list[str] | None, typer.Option(help="Text column; give it twice for pairs.")] = None,
    label: Annotated[str, typer.Option(help="Label column.")] = "",
    target: Annotated[
        str, typer.Option(help="classes, number, or text (to translate); classes or a number are found if left out.")
    ] = "",
    metric: Annotated[str, typer.Option(help="The metric that is the score, such as macro_f1.")] = "",
    method: Annotated[list[str] | None, typer.Option(help="NAME or NAME:key=value,... Repeatable.")] = None,
    teacher: Annotated[str, typer.Option(help="For distillation: an artifact or a model.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the head, the order of rows and dropout.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help=_default("Passes over the rows.", "epochs"))] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help=_default("Highest learning rate.", "learning_rate"))
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help=_default("Rows a step.", "batch_size"))] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=0, help=_default("Tokens a step in place of rows; 0: rows.", "batch_tokens"))
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=3, help=_default("Tokens kept of a row.", "max_length"))] = None,
    warmup: Annotated[
        float | None, typer.Option(help=_default("Share of the steps in which the rate rises.", "warmup"))
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help=_default("How it falls: linear or inverse_sqrt.", "schedule"))
    ] = None,
    dropout: Annotated[float | None, typer.Option(help=_default("Dropout.", "dropout"))] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help=_default("Share of a label spread over all.", "label_smoothing"))
    ] = None,
    max_train_rows: Annotated[int, typer.Option(min=0, help="Train on a seeded sample; 0: all.")] = 0,
    max_eval_rows: Annotated[int, typer.Option(min=0, help="Score on a seeded sample; 0: all.")] = 0,
    max_mb: Annotated[
        float | None,
        typer.Option(help="Fail if the whole package is larger, before the training where it can be told."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how large it will be, and train nothing.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with glue/<task>/<split>.parquet.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model folders.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fine-tune an encoder, or train a translator, under compression methods and store what comes out."""
    from multipress.cli.progress import Steps
    from multipress.engines.job import Places
    from multipress.engines.single import check_given_teacher, train_artifact
    from multipress.shrink import make_named, projection_of
    from multipress.size_ahead import check_limit, size_before_training

    values = (
        epochs, learning_rate, batch_size, batch_tokens, max_length, warmup, schedule, dropout, label_smoothing,
    )  # fmt: skip
    chosen: dict[str, Any] = dict(zip(TRAINING_OPTIONS, values, strict=True))
    spec = RunSpec(
        kind="train",
        model=model,
        data=DataSpec(
            task=task,
            train=train_file,
            dev=dev_file,
            text=tuple(text or ()),
            label=label,
            target=target,
            metric=metric,
            max_train_rows=max_train_rows,
            max_eval_rows=max_eval_rows,
        ),
        training=replace(default_training(model), **{key: value for key, value in chosen.items() if value is not None}),
        methods=tuple(parse_method(item) for item in method or ()),
        seed=seed,
    )
    places = Places(data_dir, models_dir)
    out = _checked_place(out, dry_run, max_mb)
    with Steps() as steps:
        if dry_run or max_mb is not None:
            if not dry_run:  # an encoder that its name stands for must be there to be weighed
                make_named(model, on_step=steps, on_note=steps.note)
            with projection_of(model) as folder, projection_of(teacher) as teachers:  # of encoders not made yet
                weighed = replace(spec, model=folder)
                check_given_teacher(weighed, teachers, places)
                ahead = size_before_training(weighed, places)
            if max_mb is not None:
                check_limit(spec, max_mb, ahead)
                if ahead.is_lower_limit or ahead.package_bytes * (1 + ahead.tolerance) > max_mb * 1e6:
                    steps.note(f"It will have {ahead.text()}: perhaps more than the limit of {max_mb:g} MB.")
        if out is None:
            typer.echo(json.dumps(asdict(ahead), indent=2) if as_json else f"The artifact will have {ahead.text()}.")
            return
        if any(method.settings.get("rate") for method in spec.methods):
            steps.note("The loss counts the price of the bits too: it rises until they are as few as is asked for.")
        trained = train_artifact(spec, out, teacher=teacher, places=places, on_step=steps, on_note=steps.note)
    for note in trained.notes:
        typer.echo(plain(note), err=True)
    if as_json:
        rows = [row.to_json() for row in trained.measurements]
        typer.echo(json.dumps({"artifact": str(out), "measurements": rows}, indent=2))
    else:
        _print_summary(trained, out)
    size = trained.artifact.package_bytes
    if max_mb is not None and size > max_mb * 1e6:
        raise RunError(
            f"{out} has {megabytes(size)}, {megabytes(size - max_mb * 1e6)} above the limit of {max_mb:g} MB. It is "
            "whole; for a smaller one take other settings and another place."
        )


def _checked_place(out: Path | None, dry_run: bool, max_mb: float | None) -> Path | None:
    """Where the artifact goes, after a look at both options; None: nothing is trained."""
    if out is None and not dry_run:
        raise SettingError("--out, the folder to make, is not given. Only --dry-run needs none.")
    if max_mb is not None and not 0 < max_mb < math.inf:
        raise SettingError(f"--max-mb is {max_mb}, but must be above 0.")
    return None if dry_run else out


def _print_summary(trained: Trained, out: Path) -> None:
    values = {row.name: row.value for row in trained.measurements}
    if "score_unseen" in values:
        typer.echo(f"score {values['score_unseen']:.4f} without the rows that are also in train")
    lost = next((row for row in trained.measurements if row.name == "score_dropped_words"), None)
    if lost is not None:
        typer.echo(
            f"score {lost.value:.4f} on the {lost.context['rows']} of {lost.context['of']} rows with words that were "
            "dropped"
        )
    rows_scored = next(row.context["rows"] for row in trained.measurements if row.name == "score")
    scored_by = plain(trained.artifact.facts["task"]["score"])
    typer.echo(
        f"{out}: score {values['score']:.4f} ({scored_by}) on {rows_scored} rows, "
        f"weights {megabytes(values['weights_bytes'])}, whole package {megabytes(values['package_bytes'])} "
        f"({values['dense_bytes'] / values['package_bytes']:.1f} times smaller than all of its weights as float32)"
    )
