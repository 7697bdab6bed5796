"""The program as a user meets it: help, errors in one line, exit codes."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from multipress import errors
from multipress.cli import main as program

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "onnxruntime",
    "pyarrow",
    "scipy",
    "tokenizers",
    "constriction",
    "rich",
)


def run_program(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multipress", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)


@pytest.fixture
def command_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes `multipress act` raise the given exception."""

    def install(error: BaseException) -> None:
        app = typer.Typer(rich_markup_mode=None)

        @app.callback()
        def program_() -> None: ...

        @app.command()
        def act() -> None:
            raise error

        monkeypatch.setattr(program, "app", app)

    return install


def test_help_names_every_command() -> None:
    done = run_program("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in ("train", "study", "analyze", "report", "measure", "evaluate", "predict", "inspect", "list"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("group", ["study", "list"])
def test_a_group_without_a_command_prints_its_help_and_exits_with_2(group: str) -> None:
    done = run_program(group)
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from multipress.cli.main import main\n"
        "code = main(['--help'])\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.split("\n")[0] == "0 []"


@pytest.mark.parametrize(
    "line",
    [
        "train", "study run", "study status", "study verify", "study measure", "analyze", "report", "measure",
        "evaluate", "predict", "inspect", "list methods", "list models", "list tasks",
    ],
)  # fmt: skip
def test_every_command_has_help(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([*line.split(), "--help"]) == 0
    assert f"Usage: multipress {line} " in capsys.readouterr().out


def test_version_is_the_package_version() -> None:
    from importlib.metadata import version

    assert run_program("--version").stdout == f"multipress {version('multipress')}\n"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["study", "no-such-command"]])
def test_wrong_use_exits_with_2_and_says_why_on_standard_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "No such" in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "DivergedError"])
def test_an_error_is_one_line_and_its_exit_code(
    name: str, command_that: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    error = getattr(errors, name)("It is wrong.\nIt was 3.")
    command_that(error)
    assert program.main(["act"]) == error.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "multipress: It is wrong. It was 3.\n"


@pytest.mark.parametrize("arguments", [["--debug", "act"], ["act", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    arguments: list[str], command_that: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(errors.DataError("It is wrong."))
    assert program.main(arguments) == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("multipress: It is wrong.\n")


def test_debug_after_two_dashes_is_a_text() -> None:
    arguments = ["--debug", "predict", "--", "--debug"]
    assert program._take_debug(arguments)
    assert arguments == ["predict", "--", "--debug"]
    assert not program._take_debug(arguments)
    assert arguments == ["predict", "--", "--debug"]


def test_an_unexpected_error_is_one_line_and_names_debug(
    command_that: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(ValueError("odd"))
    assert program.main(["act"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "ValueError: odd" in printed
    assert "--debug" in printed


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("transformers.models", "train"), ("ray", "ray")])
def test_a_missing_optional_package_names_its_extra(
    package: str,
    extra: str,
    command_that: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_that(ModuleNotFoundError(f"No module named {package!r}", name=package))
    assert program.main(["act"]) == 2
    assert f'pip install "multipress[{extra}]"' in capsys.readouterr().err


def test_a_missing_package_that_is_not_optional_is_unexpected(
    command_that: Callable[[BaseException], None],
) -> None:
    command_that(ModuleNotFoundError("No module named 'nowhere'", name="nowhere"))
    assert program.main(["act"]) == 1


@pytest.mark.parametrize(("message", "shown"), [("", "Stopped."), ("Stopped; to go on, run it again.", None)])
def test_an_interrupt_exits_with_130_and_one_line(
    message: str,
    shown: str | None,
    command_that: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_that(KeyboardInterrupt(message))
    assert program.main(["act"]) == 130
    assert capsys.readouterr().err == f"multipress: {shown or message}\n"


def test_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "multipress", "--help"],
            stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "multipress", "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_standard_output_may_be_closed() -> None:
    done = subprocess.run(
        f'"{sys.executable}" -m multipress --version >&-',
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
