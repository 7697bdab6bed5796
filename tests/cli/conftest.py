"""The program as a function: its exit code, and what it printed and complained."""

import pytest

from multipress.cli.main import main


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
