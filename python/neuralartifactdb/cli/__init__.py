"""The command `nadb`: parses arguments, calls the API, turns errors into exit codes (design section 7).

Thin on purpose: what a subcommand does is in a module of its own, imported only when it is called, so that
`nadb info` needs neither torch nor the demo's data. Answers go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence

from neuralartifactdb.errors import Error, FormatError
from neuralartifactdb.storage.directory import MissingDatabaseError

__all__ = ["DAMAGED", "ERROR", "INTERRUPTED", "OK", "USAGE", "build_parser", "main"]

OK, ERROR, USAGE, DAMAGED, INTERRUPTED = 0, 1, 2, 3, 130

_EXIT_CODES = """\
exit codes:
  0    the answer is on stdout
  1    an error: what was wrong, and what to do, is on stderr
  2    wrong usage
  3    the database is damaged, or it is not one that this version reads
  130  interrupted with Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command, its subcommands included."""
    import neuralartifactdb

    parser = argparse.ArgumentParser(
        prog="nadb",
        description="The database for what a neural network computes.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nadb {neuralartifactdb.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = _command(
        commands,
        "info",
        "show what a database holds",
        "Show the facts of each layer, of the models, and of the attributes.",
    )
    info.add_argument("database", metavar="DB", help="the database's directory")
    info.add_argument("--json", action="store_true", help="machine-readable, one JSON object")

    verify = _command(
        commands,
        "verify",
        "check every byte of a database",
        "Read every byte against its checksum, and check that what the indexes say of themselves agrees with what they "
        "hold.",
    )
    verify.add_argument("database", metavar="DB", help="the database's directory")
    verify.add_argument("--json", action="store_true", help="machine-readable, one JSON object")

    demo = _command(
        commands,
        "demo",
        "index a small network over handwritten digits and ask why it errs",
        "Trains a small network on handwritten digits, indexes three of its layers, asks why it misreads one of them, "
        "checks every answer against brute force, and writes the walk as one HTML page. A second run reuses what the "
        "first one left.",
    )
    demo.add_argument("--out", default="demo-out", metavar="DIR", help="where to write (default: %(default)s)")
    demo.add_argument(
        "--inputs", type=_AtLeast(200), default=10_000, metavar="N", help="inputs to index (default: %(default)s)"
    )
    demo.add_argument(
        "--epochs", type=_AtLeast(1), default=3, metavar="N", help="passes of training (default: %(default)s)"
    )
    demo.add_argument(
        "--storage",
        type=_fraction,
        default=0.2,
        metavar="F",
        help="share of float32 that an index may use (default: %(default)s)",
    )
    demo.add_argument(
        "--seed", type=_AtLeast(0), default=0, metavar="N", help="of data and weights (default: %(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit code, one of the constants of this module.
    """
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has said why, on stderr
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        code = _run(options)
        sys.stdout.flush()
    except FormatError as error:
        return _failed(error, DAMAGED)
    except BrokenPipeError:  # the reader of our output went away, as `nadb info DB | head -1` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except MissingDatabaseError:
        return _failed(
            f"no database at {options.database!r}: check the path. Databases are made in Python, with "
            "neuralartifactdb.open(path); `nadb demo` makes one to look at",
            ERROR,
        )
    except (Error, OSError) as error:
        return _failed(error, ERROR)
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    return code


def _run(options: argparse.Namespace) -> int:
    if options.command == "info":
        from neuralartifactdb.cli.info import describe

        described = describe(options.database)
        sys.stdout.write(described.to_json() if options.json else described.to_text())
        return OK
    if options.command == "verify":
        from neuralartifactdb.cli.verify import verify

        report = verify(options.database)
        sys.stdout.write(report.to_json() if options.json else report.to_text())
        for problem in report.problems:
            sys.stderr.write(f"nadb: {problem}\n")
        return OK if report.intact else DAMAGED
    from neuralartifactdb.demo import run_demo

    demo = run_demo(
        options.out,
        n_inputs=options.inputs,
        epochs=options.epochs,
        storage=options.storage,
        seed=options.seed,
        say=_say,
    )
    sys.stdout.write(demo.to_text())
    return OK if demo.all_equal else ERROR


def _say(line: str) -> None:
    """Progress in words, at once, beside the answer."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _failed(error: object, code: int) -> int:
    sys.stderr.write(f"nadb: {error}\n")
    return code


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=short,
        description=textwrap.fill(long, 80),
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class _AtLeast:
    """A whole number with a least value, for argparse, which shows `__name__` in its errors."""

    def __init__(self, least: int) -> None:
        self.least = least
        self.__name__ = f"whole number of at least {least}"

    def __call__(self, text: str) -> int:
        value = int(text)
        if value < self.least:
            raise argparse.ArgumentTypeError(f"must be at least {self.least}, got {value}")
        return value


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a fraction in (0, 1], such as 0.2, got {text!r}")
    return value
