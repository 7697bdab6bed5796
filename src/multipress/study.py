"""A study: run what is not done of its tree of runs, keep going on failure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from multipress.engines.job import ANYWHERE, Job, Places
from multipress.engines.local import LocalEngine
from multipress.engines.recover import fetch_encoder
from multipress.engines.schedule import Engine, is_to_do, run_what_is_left
from multipress.errors import ModelError
from multipress.models.catalogue import SHRUNK_FROM, shrunk_folder
from multipress.plan import Plan, expand_chains
from multipress.records import Run
from multipress.spec import DataSpec, StudySpec
from multipress.store import Store, cell_row
from multipress.tracking import Tracking

__all__ = ["choose_rates", "run_study"]


def run_study(  # noqa: PLR0913 - what to run and where, and three ways to look on
    study: StudySpec,
    folder: Path,
    *,
    places: Places = ANYWHERE,
    engine: Engine | None = None,
    num_workers: int = 0,
    on_begin: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Run, int, int], None] = lambda run, ended, total: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[Run]:
    """Run what is not done yet of a study; the same call goes on where an earlier one was stopped.

    Runs that are done are left alone; those that failed in a way that may pass are tried again.

    Args:
        study: What is asked.
        folder: The store.
        places: Where models and data are found.
        engine: What executes the runs; None: workers on this computer. It is left running.
        num_workers: Workers on this computer, where no engine is given; 0: one a core.
        on_begin: Called when a run begins.
        on_end: Called when a run has ended, with how many have ended and how many there are.
        on_note: Called with what a user should know of the rows and of cells that cannot be run.

    Returns:
        The cells of the grid, in order, each with its state.

    Raises:
        InputError: the study, a model or a task cannot be used; nothing was run.
        StoreError: the folder cannot be written to; nothing was run.
    """
    store = Store(folder)
    if engine is None:
        with closing(LocalEngine(store, places, num_workers)) as local:
            return run_study(
                study, folder, places=places, engine=local, on_begin=on_begin, on_end=on_end, on_note=on_note
            )
    store.check_writable()
    tracking = Tracking(study.report_to, store, on_note)

    def tell(run: Run, ended: int, total: int) -> None:
        tracking.log(run)
        on_end(run, ended, total)

    expand_chains(study)  # what is wrong with the study shows before a model is made
    plan = Plan(study, places)
    if plan.recoveries():
        Plan(study, places, only_counts=True).check()  # bad input shows before a model is made
    _make_models(plan, store, engine, on_begin, tell, on_note)
    plan.check()
    for data in study.data:
        for note in plan.data(data).notes:
            on_note(f"{data.name}: {note}")
    candidates = plan.rate_jobs()
    dense = plan.with_needs(job for by_rate in candidates.values() for job in by_rate.values())
    run_what_is_left(dense, store, engine, on_begin=on_begin, on_end=tell)
    rates = choose_rates(plan, candidates, store)
    for model, data in candidates:
        if (model, data) not in rates:
            on_note(f"{data.name}: no learning rate could be chosen for {model}; see its dense runs.")
    cells = plan.cells(rates)
    store.save_study(study.name, {"cells": [cell.run_id for cell in cells], "spec": asdict(study)})
    run_what_is_left(plan.with_needs(cells), store, engine, on_begin=on_begin, on_end=tell)
    runs = {run.run_id: run for run in store.runs()}
    for job in plan.with_needs(cells) if study.report_to else []:  # also what an earlier call has made
        tracking.log(runs[job.run_id])
    return [runs[cell.run_id] for cell in cells]


def _make_models(
    plan: Plan,
    store: Store,
    engine: Engine,
    on_begin: Callable[[Job], None],
    on_end: Callable[[Run, int, int], None],
    on_note: Callable[[str], None],
) -> None:
    """Run what makes models that the study names, so that their weights, and with them all identities, are known."""
    jobs = plan.recoveries()
    for job in jobs:
        if not shrunk_folder(job.spec.model).is_dir() and store.done(job.run_id) is None:
            on_note(f"{job.spec.model} is made from {SHRUNK_FROM} first, once: about 5 to 10 minutes.")
    run_what_is_left(jobs, store, engine, on_begin=on_begin, on_end=on_end)
    for job in jobs:
        run = store.run(job.run_id)
        if run.state != "done":
            raise ModelError(f"{job.spec.model} could not be made: {run.why}")
        fetch_encoder(job.spec.model, store)


def choose_rates(
    plan: Plan, candidates: dict[tuple[str, DataSpec], dict[float, Job]], store: Store
) -> dict[tuple[str, DataSpec], float]:
    """The learning rate of each (model, task): the one whose dense run scored best, the smaller one of equals.

    Left out are those whose dense runs all diverged or were refused, and those with a run that may still end well
    when tried again: what is chosen must not depend on what crashed.
    """
    if not candidates:
        only = plan.study.learning_rates[0]
        return {(model, data): only for model in plan.trained_models() for data in plan.study.data}
    chosen = {}
    for key, by_rate in candidates.items():
        runs = {rate: store.run(job.run_id) for rate, job in by_rate.items()}
        scores = {rate: _score(store, run.run_id) for rate, run in runs.items()}
        good = {rate: score for rate, score in scores.items() if score is not None}
        if good and not any(is_to_do(run) for run in runs.values()):
            chosen[key] = max(sorted(good), key=lambda rate: good[rate])
    return chosen


def _score(store: Store, run_id: str) -> float | None:
    score = cell_row(store.run(run_id), store.done(run_id))["score"]
    return None if score is None else float(score)
