"""The program: puts the commands together and turns errors into one line and an exit code.

Exit codes: 0 done, 1 a failure, 2 wrong use or bad input, 130 Ctrl-C, 141 the reader of a pipe went away.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from multipress import __version__
from multipress.cli.analyze import analyze
from multipress.cli.compress import compress
from multipress.cli.convert import convert
from multipress.cli.dissect import dissect
from multipress.cli.evaluate import evaluate
from multipress.cli.export import export
from multipress.cli.inspect import inspect
from multipress.cli.list import app as list_app
from multipress.cli.measure import measure
from multipress.cli.predict import predict
from multipress.cli.report import report
from multipress.cli.shrink import shrink
from multipress.cli.study import run
from multipress.cli.study_state import measure as measure_runs
from multipress.cli.study_state import status, verify
from multipress.cli.train import train
from multipress.errors import MissingExtraError, MultipressError, SettingError
from multipress.plain_text import plain

__all__ = ["app", "main"]

# Optional package -> the extra that installs it.
_EXTRAS = {
    "datasets": "train",
    "huggingface_hub": "train",
    "onnx": "train",
    "openvino": "openvino",
    "pyarrow": "train",
    "ray": "ray",
    "torch": "train",
    "transformers": "train",
}


class OneLabel(TyperCommand):
    """A command that refuses a second `--label`: tables with a column for each label have several labels a row.

    Of other options the last counts, as ever.
    """

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        """As click does it, after a look at the options."""
        given: list[Any] = self.make_parser(context).parse_args(args=list(arguments))[2]
        if sum("--label" in option.opts for option in given) > 1:
            raise SettingError("--label is given more than once, but several labels a row are not supported.")
        return super().parse_args(context, arguments)


# Plain help: rich would double the time of `--help`.
app = typer.Typer(
    name="multipress",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"multipress {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Compress text encoders by pruning, quantization and distillation, and measure what is stored."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: What follows the program's name; `sys.argv[1:]` by default. `--debug` may stand anywhere.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = _take_debug(arguments)
    try:
        exit_code = _invoke(arguments)
        if sys.stdout is not None:  # it is None when the shell closed it
            sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort) as stop:
        return _fail(debug, str(stop) or "Stopped.", 130)
    except BrokenPipeError:
        _drop_output()
        return 141
    except MultipressError as error:
        return _fail(debug, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        missing = _missing_extra(error)
        if missing is None:
            return _fail(debug, _unexpected(error), 1)
        return _fail(debug, str(missing), missing.exit_code)
    except Exception as error:  # noqa: BLE001 (the last place where it can become one line)
        if _is_usage_error(error):
            return _show_usage(error)
        if isinstance(error, OSError):
            _drop_output()
        return _fail(debug, _unexpected(error), 1)
    return exit_code


def _invoke(arguments: list[str]) -> int:
    """Run one command without typer's own handling of errors and interrupts; gives its exit code."""
    command = get_command(app)
    try:
        with command.make_context("multipress", arguments) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def _take_debug(arguments: list[str]) -> bool:
    """Remove `--debug` from `arguments`, wherever it stands before `--`; says whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    found = len(kept) < end
    arguments[:end] = kept
    return found


def _fail(debug: bool, message: str, exit_code: int) -> int:
    if debug:
        for line in traceback.format_exc().splitlines():
            typer.echo(plain(line), err=True)
    one_line = " ".join(message.split())
    typer.echo(f"multipress: {plain(one_line)}", err=True)
    return exit_code


def _unexpected(error: Exception) -> str:
    return f"unexpected error: {type(error).__name__}: {error}. To see where, run it again with --debug."


def _is_usage_error(error: Exception) -> bool:
    # typer carries its own copy of click; the class is reached through the one name that both make public.
    return isinstance(error, typer.BadParameter.__mro__[2])


def _show_usage(error: Exception) -> int:
    error.show()  # type: ignore[attr-defined]
    return int(error.exit_code)  # type: ignore[attr-defined]


def _missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    name = (error.name or "").partition(".")[0]
    if name not in _EXTRAS:
        return None
    extra = _EXTRAS[name]
    return MissingExtraError(f'This needs {name}, which is not installed. Run: pip install "multipress[{extra}]"')


def _drop_output() -> None:
    """Point standard output at nothing, so that Python does not complain about it again when it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)


study_app = typer.Typer(help="Run a grid of runs, and look at it.", no_args_is_help=True, rich_markup_mode=None)
study_app.command(cls=OneLabel)(run)
study_app.command(cls=OneLabel)(status)
study_app.command(cls=OneLabel)(verify)
study_app.command(name="measure", cls=OneLabel)(measure_runs)

app.command(cls=OneLabel)(compress)
app.command(cls=OneLabel)(train)
app.add_typer(study_app, name="study")
for command in (analyze, report, measure, dissect, evaluate, predict, inspect, export, convert, shrink):
    app.command(cls=OneLabel)(command)
app.add_typer(list_app, name="list")
