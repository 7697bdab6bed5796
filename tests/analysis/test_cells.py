from multipress.analysis import group_cells, read_cells

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


def test_two_runs_of_one_spec_by_other_versions_are_told_apart_by_their_study(row):
    cells = read_cells([row(studies=["old"]), row(studies=["new"])])
    assert [cell.task for cell in cells] == ["t (study old)", "t (study new)"]


def test_a_model_is_shown_without_its_folder(row):
    names = ["/home/me/my model", "./m", "google/bert", "minilm-l6"]
    assert [cell.model for cell in read_cells([row(model=name) for name in names])] == [
        "my model",
        "m",
        "google/bert",
        "minilm-l6",
    ]
