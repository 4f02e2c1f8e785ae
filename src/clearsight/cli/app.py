"""The command line.  Everything heavy is imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from clearsight.cli.attack import attack
from clearsight.cli.audit import audit
from clearsight.cli.compare import compare
from clearsight.cli.data import data_app
from clearsight.cli.demo import demo
from clearsight.cli.explain import explain
from clearsight.cli.export import export
from clearsight.cli.features import features
from clearsight.cli.inspect import inspect
from clearsight.cli.methods import methods
from clearsight.cli.output import printable
from clearsight.cli.serve import serve
from clearsight.cli.steal import steal
from clearsight.cli.train import train
from clearsight.cli.tune import tune
from clearsight.cli.usage import Verb, first_paragraph
from clearsight.core import deadline
from clearsight.core.memory import reuse_memory
from clearsight.errors import Notice, Refused

app = typer.Typer(
    name="clearsight",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: with Rich --help takes nearly twice as long
)
VERBS = (audit, explain, features, attack, steal, inspect, train, compare, tune, export, serve, demo, methods)
for verb in VERBS:  # as --help lists them
    app.command(cls=Verb, short_help=first_paragraph(verb))(verb)
app.add_typer(data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        from clearsight._version import __version__

        print(f"clearsight {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Can I trust this image classifier, and why does it decide so?"""


def verbs() -> list[tuple[str, ...]]:
    """Every command as its words: ("audit",), ("data", "check"), ..."""
    commands: list[tuple[str, ...]] = [(c.name or c.callback.__name__,) for c in app.registered_commands if c.callback]
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands if group.typer_instance else []
        commands += [(str(group.name), c.name or c.callback.__name__) for c in inner if c.callback]
    return commands


def main() -> None:
    """Run the command line.  Exit status: 0 done, 1 a bar of the gate failed, 2 it could not be done."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _spin_briefly()
    reuse_memory()
    gc.set_threshold(700, 10, 100)  # the libraries' half million objects stay: looking through all of them is time lost
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold anything
            stream.reconfigure(errors="backslashreplace")
    _notices()
    try:
        with deadline.command():
            status = typer.main.get_command(app).main(prog_name="clearsight", standalone_mode=False)
    except Refused as e:
        _fail(str(e))
    except KeyboardInterrupt:
        _fail("stopped")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(2)
    except Exception as e:
        usage = getattr(e, "format_message", None)
        if usage is not None:
            if not usage():  # no command at all: the help has been shown
                sys.exit(2)
            _fail(f"{usage()} (see clearsight --help)")
        _fail(f"{type(e).__name__}: {e} (this is a defect of Clearsight: please report the command and this line)")
    sys.exit(status if isinstance(status, int) else 0)


def _spin_briefly() -> None:
    """Let threads that wait for others spin a little, and then sleep, unless the user says otherwise.

    On an idle machine gradients take as long as with libgomp's own number of turns, 300,000; beside two busy processes
    on two cores two thirds of it.  Threads that always sleep take a quarter to twice longer on the idle machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _notices() -> None:
    """Print each Notice once, as a plain line; hide the warnings of other libraries."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", Notice)
    shown: set[str] = set()  # the filter "once" forgets whenever a library touches the filters

    def show(message: Warning | str, *about: Any, **more: Any) -> None:
        line = printable(str(message))
        if isinstance(message, Notice) and line not in shown:
            shown.add(line)
            print(line, file=sys.stderr)

    warnings.showwarning = show


def _fail(sentence: str) -> NoReturn:
    print(f"clearsight: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)
