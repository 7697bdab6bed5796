"""Budgets that cannot be are refused before anything is read."""

import math

import pytest

from multipress.budget.limits import Budget
from multipress.cli.main import main
from multipress.errors import SettingError


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "No limit is given"),
        ({"max_mb": 0.0}, "max-mb is 0"),
        ({"max_mb": math.nan}, "max-mb is nan"),
        ({"max_ms": -1.0}, "max-ms is -1"),
        ({"max_mb": 1.0, "minutes": math.inf}, "time-limit is inf"),
        ({"max_drop": 1.5}, "For 1.5 points, write 0.015"),
        ({"min_score": 90.0}, "For 90 %, write 0.9"),
        ({"min_score": 0.9, "max_drop": 0.01}, "Give one"),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_refused(limits, said):
    with pytest.raises(SettingError, match=said):
        Budget(**limits)


def test_the_least_score_follows_from_the_drop_or_is_given():
    assert Budget(max_drop=0.02).least_score(0.9) == pytest.approx(0.88)
    assert Budget(min_score=0.7).least_score(0.9) == 0.7
    assert Budget(max_mb=3).least_score(0.9) is None
    assert Budget(max_mb=3).max_bytes == 3e6
    assert Budget(max_drop=0.1).max_bytes == math.inf


def test_the_command_says_so_before_it_reads_anything(capsys, tmp_path):
    command = ["compress", "nobody", "--train", "no.csv", "--dev", "no.csv", "-o", str(tmp_path / "out")]
    assert main(command) == 2
    assert "No limit is given" in capsys.readouterr().err
    assert main([*command, "--max-mb", "1"]) == 2
    assert list(tmp_path.iterdir()) == []
