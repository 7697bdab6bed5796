"""The training log: whole after a crash, and it says where a training went on."""

import json

from multipress.engines.log import TrainingLog


def lines_of(log):
    return [json.loads(line) for line in log.text().splitlines()]


def test_a_log_cut_off_by_a_crash_loses_the_cut_line_and_no_other(tmp_path):
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path)
    for done in range(1, 31):
        log(done, 60, 1 / done)
    text = path.read_text()
    path.write_text(text[: text.rindex("loss")])  # the line of step 30 was being written
    seen = []
    again = TrainingLog(path, lambda done, total, loss: seen.append((done, total)))
    for done in range(21, 61):  # from the checkpoint of step 20
        again(done, 60, 2 / done)
    *steps, total = lines_of(again)
    assert [line["step"] for line in steps] == [10, 20, 30, 40, 50, 60]
    assert [line["loss"] for line in steps] == [1 / 10, 1 / 20, 2 / 30, 2 / 40, 2 / 50, 2 / 60]
    assert total["resumed_after"] == [20]
    assert total["training_seconds"] >= 0
    assert seen[0] == (21, 60)


def test_a_training_that_was_never_interrupted_says_nothing_of_it(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    for done in range(1, 13):
        log(done, 12, 0.5)
    assert [line.get("step") for line in lines_of(log)] == [10, 12, None]
    assert "resumed_after" not in lines_of(log)[-1]
    begun_anew = TrainingLog(tmp_path / "log.jsonl")
    begun_anew(1, 12, 0.25)
    assert "resumed_after" not in lines_of(begun_anew)[-1]
