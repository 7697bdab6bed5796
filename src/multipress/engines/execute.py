"""One run from its spec to its result in the store. What runs of one process have in common is made once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from safetensors.torch import load_file as load_torch_file

from multipress.artifact import Artifact, open_artifact
from multipress.batches import Rows
from multipress.block_shapes import read_block_shapes
from multipress.checkpoint import load_model, save_model
from multipress.durable import write_bytes, write_json, write_text
from multipress.engines.identity import LIBRARIES, THREADS, artifact_sha256, identity_of
from multipress.engines.job import Outcome, Places, scratch_of, settle
from multipress.engines.log import TrainingLog
from multipress.engines.recover import fetch_encoder, fill_recovery
from multipress.engines.teaching import check_labels, check_tokenizers, made_rows
from multipress.errors import CheckpointError, DivergedError, MultipressError, RunError, SettingError, SpecError
from multipress.measure import measure_parts, measure_quality, measure_size, read_recalls, write_outputs
from multipress.methods import Context
from multipress.models import PretrainedModel, load_pretrained, read_first_token_only
from multipress.models.encoder import drop_positions
from multipress.models.pretrained import identify
from multipress.models.states import write_text_states
from multipress.models.structure import shaped_like
from multipress.models.vocabulary import words_to_keep
from multipress.numbers import Numbers
from multipress.precision import route
from multipress.recipe import Recipe
from multipress.records import Measurement
from multipress.report.card import Recalls, model_card
from multipress.report.command import made_by, shown_spec
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.runtime.tokenizer import TextEncoder
from multipress.shrink import shipped_text
from multipress.spec import TEACHING_KINDS, DataSpec, RunSpec
from multipress.store import Store
from multipress.tasks import TaskData, load_task
from multipress.train import Saving, train
from multipress.translator import Translator

__all__ = ["Executor", "OnStep", "read_measurements", "read_notes"]

TRANSLATIONS = "translations.json"
OnStep = Callable[[int, int, float], None]
LOOK_AGAIN_SECONDS = 1.0


class Executor:
    """Executes runs of a store, one after the other, in this process.

    Args:
        store: Where runs are claimed and committed.
        places: Where models and data are found.
    """

    def __init__(self, store: Store, places: Places) -> None:
        self._store = store
        self._places = places
        self._data: dict[DataSpec, TaskData] = {}
        self._rows: dict[tuple[str, str, int], Rows] = {}
        torch.set_num_threads(THREADS)

    def execute(self, run_id: str, spec: RunSpec, on_step: OnStep | None = None) -> None:
        """Claim a run, execute it, and commit it or say why it failed; a run that is done is left alone.

        While another process works on the run, this one waits: what needs the run needs its result, whoever made it.

        Raises:
            StoreError: the result, or that there is none, cannot be written.
        """
        attempt = self._store.claim(run_id)
        while attempt is None:
            if self._store.done(run_id) is not None:
                return
            time.sleep(LOOK_AGAIN_SECONDS)
            attempt = self._store.claim(run_id)
        try:
            settle(attempt, self.fill(run_id, spec, attempt.folder, on_step))
        finally:
            attempt.release()

    def fill(self, run_id: str, spec: RunSpec, folder: Path, on_step: OnStep | None = None) -> Outcome:
        """Do the work of a run.

        Args:
            run_id: The run.
            spec: What is asked.
            folder: The folder of an attempt at it, which is filled; what goes on after an interruption lies beside it.
            on_step: Called after each training step with the steps done, all steps, and the loss.
        """
        try:
            if spec.kind == "recover":
                fill_recovery(spec, folder)
            elif spec.kind in TEACHING_KINDS:
                self._label(run_id, spec, folder)
            else:
                self._train(run_id, spec, folder, on_step)
        except DivergedError as error:
            return Outcome("diverged", str(error))
        except (SettingError, SpecError) as error:
            return Outcome("refused", str(error))
        except MultipressError as error:  # a model, data or disk that may be mended
            return Outcome("failed", str(error), retryable=True)
        except Exception as error:  # noqa: BLE001 - any error of a library fails this run alone
            return Outcome("failed", f"{type(error).__name__}: {error}", retryable=True)
        return Outcome()

    def _train(self, run_id: str, spec: RunSpec, folder: Path, on_step: OnStep | None) -> None:
        """Train, store the artifact, open that again and measure it, all below the attempt's folder."""
        data = self._load_data(spec.data)
        fetch_encoder(spec.model, self._store)
        pretrained = load_pretrained(
            spec.model,
            label_names=data.task.labels,
            seed=spec.seed,
            dropout=spec.training.dropout,
            models_dir=self._places.models_dir,
            texts=data.written_texts,
        )
        _check_identity(run_id, spec, pretrained.sha256, data.sha256)
        drop_positions(pretrained.model, spec.training.max_length)
        recipe = Recipe.from_specs(spec.methods)
        rows = self._encode(pretrained, spec, data)
        if any("augment" in method.settings for method in recipe.label_specs(data.task.target)):
            rows = self._with_made(rows, pretrained, spec)
        if "teacher_translations" in recipe.needs(data.task.target):
            rows = self._with_translations(rows, pretrained, spec)
        context = self._context(spec, recipe, pretrained, rows, data)
        if pretrained.new_head and data.task.target == "number" and not spec.start:
            Numbers.of(data.train.labels).into(pretrained.model)
        scratch = scratch_of(folder)
        saving = Saving(scratch / "checkpoint.safetensors", run_id, kept=spec.kept)
        log = TrainingLog(scratch / "log.jsonl", on_step)
        try:
            model = train(
                read_first_token_only(pretrained.model),
                rows,
                recipe,
                spec.training,
                context,
                part=spec.part,
                rewound=spec.rewound,
                saving=saving,
                on_step=log,
            )
        except CheckpointError:
            # It was written by another version or cut off by a crash; the training starts anew without it.
            saving.path.unlink(missing_ok=True)
            self._train(run_id, spec, folder, on_step)
            return
        write_text(folder / "log.jsonl", log.text())
        artifact = save_model(
            folder / "artifact",
            model,
            tokenizer_json=pretrained.tokenizer_json,
            facts=_facts(run_id, spec, data),
        )
        cut = f"{rows.num_cut:,} training texts are longer than {spec.training.max_length} tokens and were cut."
        self._measure(artifact, data, pretrained, folder, [cut] if rows.num_cut else [])
        write_text(artifact.folder / "README.md", self._card(artifact, folder, spec))
        for share in spec.kept:
            path = saving.kept_path(share)
            write_bytes(folder / path.name, path.read_bytes())

    def _context(
        self, spec: RunSpec, recipe: Recipe, pretrained: PretrainedModel, rows: Rows, data: TaskData
    ) -> Context:
        """What the methods of a run are given; changes the model where the run starts from another one's weights."""
        target = data.task.target

        def words(general: bool) -> torch.Tensor:
            # What stands behind the cut in one text may stand before it in another.
            whole = data.train.every_text() if rows.num_cut else ()
            more = [*whole, *(shipped_text() if general else ())]
            return words_to_keep(pretrained.tokenizer_json, rows.encodings, more)

        context = Context(target, spec.seed, words=words)
        needs = recipe.needs(target)
        if "teacher_logits" in needs:
            context.teacher_logits = self._taught(spec.teacher, "logits", len(rows.encodings))
        if "teacher_states" in needs:
            context.teacher_states = self._taught(spec.teacher, "states", len(rows.encodings))
        if "teacher_model" in needs:
            context.teacher_model = self._teacher_of(spec.teacher, pretrained.tokenizer_json)
        if spec.start:
            context.held = self._start(pretrained.model, spec.start)
        if spec.mask_from:
            ranked = open_artifact(self._result_of(spec.mask_from, "What is pruned by") / "artifact").dense_weights()
            context.ranking = {name: torch.from_numpy(weight) for name, weight in ranked.items()}
        return context

    @torch.no_grad()
    def _start(self, model: torch.nn.Module, start: str) -> dict[str, torch.Tensor]:
        """Gives a model the weights of another run; returns where those that were pruned there are kept."""
        run_id, _, share = start.partition("@")
        done = self._result_of(run_id, "What this run starts from")
        pruned: dict[str, int] = {}
        if share:
            weights = load_file(done / f"kept-{share}.safetensors")
        else:
            artifact = open_artifact(done / "artifact")
            weights, pruned = artifact.dense_weights(), artifact.facts["pruned"]
            if not artifact.writes:
                shaped_like(model, artifact.config, read_block_shapes(artifact.config))
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
        return {name: torch.from_numpy(weights[name] != 0) for name, count in pruned.items() if count}

    def _measure(
        self, artifact: Artifact, data: TaskData, pretrained: PretrainedModel, folder: Path, notes: list[str]
    ) -> None:
        """Score and weigh a stored artifact; writes measurements, predictions and circumstances, notes in them."""
        quality, outputs = measure_quality(artifact, data.dev, data.task)
        parts = measure_parts(artifact, data.dev, outputs, data.dev_unseen, pretrained.tokenizer_json)
        measurements = [*quality, *parts, *measure_size(artifact)]
        lines = (json.dumps(row.to_json(), sort_keys=True) + "\n" for row in measurements)
        write_text(folder / "measurements.jsonl", "".join(lines))
        write_outputs(folder, data.task, outputs, data.dev.labels)
        notes = [*data.notes, *notes, *filter(None, [pretrained.note])]
        if data.task.target == "classes" and len(np.unique(outputs.argmax(axis=1))) == 1:
            notes.append(
                "The model gives one class for every row: it has learned nothing yet. Train for more steps, or with a "
                "higher learning rate."
            )
        if data.task.target == "number" and outputs.std() < 1e-3 * data.dev.labels.std():
            notes.append(
                "The model gives nearly one number for every row: it has learned nothing yet, or the texts are alike."
            )
        circumstances = {"computer": computer(), "data_sha256": data.sha256, "data": data.facts, "notes": notes}
        write_json(folder / "circumstances.json", circumstances)

    def _card(self, artifact: Artifact, attempt: Path, spec: RunSpec) -> str:
        """The model card, with the command that makes the artifact again, and before it the one for its teacher."""
        command = made_by(spec, artifact.facts["run_id"], self._spec_of)
        found = read_recalls(attempt)
        recalls = Recalls(found) if found else None
        return model_card(artifact, read_measurements(attempt), command, recalls, computer())

    def _spec_of(self, run_id: str) -> RunSpec:
        return RunSpec.from_json(self._store.run(run_id).spec)

    def _label(self, run_id: str, spec: RunSpec, folder: Path) -> None:
        """Write what a teacher says of the training rows, and of rows made of them where asked for.

        The logits (N, C), float32, are those of the stored model as it ships; the hidden states (N, L + 1, D), where
        asked for, come from torch. Of a translator its translations where asked for; its words are in each step.
        """
        data = self._load_data(spec.data)
        if spec.teacher:
            fetch_encoder(spec.model, self._store)
            of_model = identify(spec.model, self._places.models_dir).sha256
            _check_identity(run_id, spec, of_model, data.sha256)
        teacher = self._teacher_folder(run_id, spec)
        if data.task.target == "text":
            opened = Translator(teacher)
            if spec.kind == "generate":
                write_json(folder / TRANSLATIONS, opened.outputs(data.train.texts).tolist())
            return
        predictor = Predictor(teacher)
        check_labels(predictor.artifact, data.task)
        texts, pairs = data.train.texts, data.train.pairs
        wanted = {key: value for method in spec.methods for key, value in method.settings.items()}
        if "augment" in wanted:
            made = made_rows(predictor.artifact, data.train, wanted["augment"], wanted["replace"])
            write_json(folder / "made.json", {"texts": made[0], "pairs": made[1]})
            texts, pairs = texts + made[0], None if pairs is None else pairs + (made[1] or [])
        logits = predictor.logits(texts, pairs)
        write_bytes(folder / "logits.safetensors", save({"logits": logits}))
        if "states" in wanted:
            encoder = TextEncoder(predictor.artifact.tokenizer_json(), predictor.max_length)
            model = read_first_token_only(load_model(teacher))
            rows = encoder.encode(texts, pairs)
            write_text_states(folder / "states.safetensors", model, rows, encoder.pad_id)

    def _with_translations(self, rows: Rows, pretrained: PretrainedModel, spec: RunSpec) -> Rows:
        """The rows with the teacher's translations as what is to be written."""
        done = self._result_of(spec.teacher, "What the teacher wrote")
        texts = json.loads((done / TRANSLATIONS).read_text(encoding="utf-8"))
        encoder = TextEncoder(pretrained.tokenizer_json, spec.training.max_length, is_target=True)
        return replace(rows, targets=[row.ids for row in encoder.encode(texts)])

    def _with_made(self, rows: Rows, pretrained: PretrainedModel, spec: RunSpec) -> Rows:
        """The rows and those that the teacher's run made of them, without labels."""
        done = self._result_of(spec.teacher, "What the teacher made")
        made = json.loads((done / "made.json").read_text(encoding="utf-8"))
        encoder = TextEncoder(pretrained.tokenizer_json, spec.training.max_length)
        more = encoder.encode(made["texts"], made["pairs"])
        assert rows.labels is not None
        nothing = -1 if rows.labels.dtype == np.int64 else np.nan
        labels = np.concatenate([rows.labels, np.full(len(more), nothing, rows.labels.dtype)])
        return replace(rows, encodings=[*rows.encodings, *more], labels=labels, num_made=len(more))

    def _taught(self, run_id: str, what: str, num_rows: int) -> torch.Tensor:
        """The `logits` or `states` of a `label` run; the file is mapped: only what is looked at is in memory."""
        path = self._result_of(run_id, "What the teacher made") / f"{what}.safetensors"
        values = load_torch_file(path)[what]
        if len(values) != num_rows:
            raise RunError(f"Run {run_id} holds {what} of {len(values)} rows, not of {num_rows}.")
        return values

    def _teacher_of(self, run_id: str, tokenizer_json: str) -> torch.nn.Module:
        """The model whose logits a `label` run holds; it must read the same tokens as its student."""
        folder = self._teacher_folder(run_id, self._spec_of(run_id))
        check_tokenizers(folder.name, open_artifact(folder).tokenizer_json(), tokenizer_json)
        return load_model(folder)

    def _teacher_folder(self, run_id: str, label: RunSpec) -> Path:
        """The artifact that teaches in a `label` run: another run's, or one from elsewhere that is still the same."""
        if label.teacher:
            return self._result_of(label.teacher, "The teacher") / "artifact"
        folder = Path(label.model)
        _check_identity(run_id, label, artifact_sha256(folder), self._load_data(label.data).sha256)
        return folder

    def _result_of(self, run_id: str, what: str) -> Path:
        """The folder of a run that is done; `what` names it in the error where it is not."""
        done = self._store.done(run_id)
        if done is None:
            raise RunError(f"{what}, run {run_id}, is not done.")
        return done

    def _load_data(self, spec: DataSpec) -> TaskData:
        if spec not in self._data:
            self._data = {spec: load_task(spec, self._places.data_dir)}  # of one task at a time
        return self._data[spec]

    def _encode(self, pretrained: PretrainedModel, spec: RunSpec, data: TaskData) -> Rows:
        key = (pretrained.tokenizer_json, data.sha256, spec.training.max_length)
        if key not in self._rows:
            encoder = TextEncoder(pretrained.tokenizer_json, spec.training.max_length)
            encodings = encoder.encode(data.train.texts, data.train.pairs)
            num_cut = encoder.num_truncated
            if data.task.target == "text":
                writer = TextEncoder(pretrained.tokenizer_json, spec.training.max_length, is_target=True)
                targets = [row.ids for row in writer.encode(data.train.labels.tolist())]
                num_cut += writer.num_truncated
                self._rows = {key: Rows(encodings, None, encoder.pad_id, targets=targets, num_cut=num_cut)}
            else:
                self._rows = {key: Rows(encodings, data.train.labels, encoder.pad_id, num_cut=num_cut)}
        return self._rows[key]


def _check_identity(run_id: str, spec: RunSpec, model_sha256: str, data_sha256: str) -> None:
    """What is about to run must be what the run's name stands for."""
    if identity_of(spec, model_sha256=model_sha256, data_sha256=data_sha256) != run_id:
        raise RunError(
            f"The model, the rows or a library changed after run {run_id} was named. Start the same command again: it "
            "names what is there now."
        )


def _facts(run_id: str, spec: RunSpec, data: TaskData) -> dict[str, Any]:
    """What an artifact says of how it was made."""
    return {
        "run_id": run_id,
        "spec": shown_spec(spec).to_json(),
        "task": data.task.to_json(),
        "max_length": spec.training.max_length,
        "route": route(),
        "versions": library_versions("multipress", *LIBRARIES),
    }


def read_notes(folder: Path) -> tuple[str, ...]:
    """What a user should know of the rows and the model of an attempt."""
    return tuple(json.loads((folder / "circumstances.json").read_text(encoding="utf-8"))["notes"])


def read_measurements(folder: Path) -> list[Measurement]:
    """The measurements of an attempt."""
    lines = (folder / "measurements.jsonl").read_text(encoding="utf-8").splitlines()
    return [Measurement(**json.loads(line)) for line in lines]
