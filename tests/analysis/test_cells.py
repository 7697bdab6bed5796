import pytest

from multipress.analysis import analyze_cells, group_cells, read_cells
from multipress.analysis.cells import MEAN_TASK

Q8 = {"quantization": 8}
P60 = {"pruning": 0.6}


def labels(rows):
    return [cell.label for cell in read_cells(rows)]


def test_labels_name_the_methods_and_their_levels_in_the_order_of_the_paper(row):
    levels = [{}, Q8, P60, {"pruning": 0.375}, {**P60, **Q8, "distillation": 2.0}]
    assert labels([row(levels=one) for one in levels]) == ["dense", "Q8", "P60", "P37.5", "Q8+KD+P60"]


def test_a_setting_that_differs_between_cells_is_in_the_label(row):
    rows = [row(levels={"distillation": value}) for value in (2.0, 4.0)]
    assert labels(rows) == ["KD[temperature=2.0]", "KD[temperature=4.0]"]
    assert labels(rows[:1]) == ["KD"]


def test_a_setting_that_an_older_version_did_not_have_tells_its_cells_apart(row):
    old, new = row(levels={"distillation": 2.0}), row(levels={"distillation": 2.0})
    new["settings"]["distillation"]["states"] = "text"
    assert labels([old, new]) == ["KD", "KD[states=text]"]


def test_an_unknown_method_keeps_its_own_name(row):
    cell = row()
    cell.update(methods=["quantization", "shrinking"], settings={"shrinking": {"layers": 3}})
    assert labels([cell]) == ["Q+shrinking"]


def test_cells_with_other_rows_or_training_are_never_taken_for_seeds(row):
    for changed in ({"data": {"task": "t", "max_train_rows": 5}}, {"training": {"epochs": 4}}):
        groups = group_cells(read_cells([row(), row(seed=1, **changed)]))
        assert [group.score.n for group in groups] == [1, 1]
        assert len({group.task for group in groups}) == 2


def test_a_learning_rate_that_differs_between_models_is_no_difference_but_two_for_one_model_are(row):
    rows = [row(model="a"), row(model="b", learning_rate=1e-3)]
    assert {cell.task for cell in read_cells(rows)} == {"t"}
    rows.append(row(model="a", seed=1, learning_rate=1e-3))
    assert len({cell.task for cell in read_cells(rows)}) == 2


def test_the_training_of_a_searchs_tries_is_in_the_label_and_their_task_is_one(row):
    tries = [
        row(levels=Q8, learning_rate=rate, training={"epochs": epochs}, studies=["search-1f"])
        for rate, epochs in ((3e-4, 1), (0.1 * 3e-3, 2), (1e-3, 1))
    ]
    dense = [row(learning_rate=rate, studies=["search-1f"]) for rate in (3e-4, 1e-3)]
    assert [cell.label for cell in read_cells(dense)] == ["dense[learning_rate=0.0003]", "dense[learning_rate=0.001]"]
    cells = read_cells(tries)
    assert {cell.task for cell in cells} == {"t"}
    assert [cell.label for cell in cells] == [
        "Q8+[epochs=1, learning_rate=0.0003]",
        "Q8+[epochs=2, learning_rate=0.0003]",
        "Q8+[epochs=1, learning_rate=0.001]",
    ]


def test_two_runs_of_one_spec_by_other_versions_are_told_apart_and_no_other_cell_is_touched(row):
    rows = [row(), row(levels=Q8, studies=["old"]), row(levels=Q8, studies=["new"]), row(task="u"), row(seed=1)]
    cells = read_cells(rows)
    assert [cell.task for cell in cells] == ["t", "t", "t", "u", "t"]
    assert [cell.label for cell in cells] == ["dense", "Q8[study old]", "Q8[study new]", "dense", "dense"]
    # In one study, which of them it is; the same for every seed.
    twice = read_cells([row(levels=Q8, seed=s) for s in (0, 1)] + [row(levels=Q8, seed=s) for s in (0, 1)])
    assert [cell.label for cell in twice] == ["Q8[run 1]", "Q8[run 1]", "Q8[run 2]", "Q8[run 2]"]
    assert [cell.task for cell in read_cells([row(), row()])] == ["t (run 1)", "t (run 2)"]


def test_runs_whose_folder_is_gone_are_counted_and_change_nothing_else(row):
    rows = [row(score=0.9), row(levels={"pruning": 0.6}, score=0.88)]
    lost = [row(model="", task="", seed=None, state="pending", data={}, training={}) for _ in range(2)]
    found, whole = analyze_cells([*rows, *lost]), analyze_cells(rows)
    assert found["states"] == {"done": 2, "pending": 2}
    assert [cell["label"] for cell in found["cells"]] == ["dense", "P60", "", ""]
    for part in ("groups", "frontier", "interactions", "priority", "multiplicativity"):
        assert found[part] == whole[part]


def test_a_task_with_the_name_of_the_mean_is_no_mean(row):
    found = analyze_cells([row(task=MEAN_TASK), row(task="t", score=0.8)])
    assert {group["task"] for group in found["groups"]} == {f"({MEAN_TASK})", "t"}
    scores = {point["task"]: point["score"] for point in found["frontier"]["weights_bytes"]}
    assert scores == pytest.approx({f"({MEAN_TASK})": 0.9, "t": 0.8, MEAN_TASK: 0.85})


def test_a_model_is_shown_without_its_folder(row):
    names = ["/home/me/my model", "./m", "google/bert", "minilm-l6"]
    assert [cell.model for cell in read_cells([row(model=name) for name in names])] == [
        "my model",
        "m",
        "google/bert",
        "minilm-l6",
    ]
