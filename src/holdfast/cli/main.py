"""`holdfast VERB …`: finds the verb, runs it, and turns whatever happens into a message and an exit code.

Promise: `--help` imports no verb and no third-party package; a verb's module is imported when it is asked
for. A `TradingError` becomes its message, a `hint:` line where it has one, and its own exit code; nothing on
stderr carries a secret, with `--debug` neither. Ctrl-C and a closed pipe end quietly.

Exit codes: 0 fine; 1 user error; 2 usage; 3 integrity failure; 4 cannot act now; 5 venue or runtime
unreachable; 130 and 141, as a shell would report them, after Ctrl-C and when the reader of stdout went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from holdfast import __version__
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_OK, EXIT_USAGE, EXIT_USER_ERROR, TradingError

VERBS: dict[str, str] = {
    "paper": "trade a seeded market or a recording, without keys or money",
    "exchange": "run the paper exchange alone: Kalshi's protocol on a local port",
    "submit": "trade signals read as JSON Lines from standard input",
    "settle": "say what an ended option paid that the broker did not tell",
    "audit": "append to, read, search, check and repair an audit log",
    "lake": "bring the log into Delta tables, keep them small, ask them",
}
"""Every verb and its line in `--help`; the module is `holdfast.cli.<verb>`."""

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141


class Verb(Protocol):
    """What a module of this folder offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Describe the verb's own arguments, its examples in the parser's epilog."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    Args:
        argv: The words after the program's name; None takes them from the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _open_missing_streams()
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
        return _flushed(stop.code if isinstance(stop.code, int) else EXIT_USAGE)
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  the task ends here; what went wrong becomes an exit code
        return _report(error, debug=debug)
    return code


def _open_missing_streams() -> None:
    """A closed standard stream becomes an empty one: else the next file opened would take its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  for the process's life


def _dispatch(words: list[str]) -> int:
    name = next((word for word in words if not word.startswith("-")), None)
    before = words[: words.index(name)] if name is not None else words
    parser = _top_parser()
    parser.parse_args(before)  # --help and --version end here; an unknown option is a usage error
    if name is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if name not in VERBS:
        import difflib

        close = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
        parser.error(
            f"unknown verb {name!r}"
            + (f"; did you mean {close[0]!r}?" if close else f"; one of: {', '.join(VERBS)}")
        )
    import importlib

    module = f"holdfast.cli.{name}"
    try:
        verb = cast("Verb", importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise TradingError(
            f"verb {name!r} cannot start: module {error.name!r} is not installed",
            hint="install holdfast with its dependencies: make setup",
        ) from error
    from holdfast.cli.output import HelpText

    own = _Parser(
        prog=f"holdfast {name}",
        description=VERBS[name][0].upper() + VERBS[name][1:] + ".",
        formatter_class=HelpText,
        allow_abbrev=False,
    )
    own.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    verb.add_arguments(own)
    args, unknown = own.parse_known_args(words[words.index(name) + 1 :])
    if unknown:
        _refuse_option(getattr(args, "parser", own), unknown)
    return verb.run(args)


class _Parser(argparse.ArgumentParser):
    """A parser that says of a wrong word what it resembles, in a person's words; its subcommands' are such too."""

    def error(self, message: str) -> NoReturn:
        import difflib
        import re

        chosen = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
        if chosen is not None:
            word, known = chosen[1], [one.strip("'") for one in chosen[2].split(", ")]
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            what = "unknown verb" if "argument VERB" in message else message[: chosen.start()].rstrip(": ")
            message = f"{what} {word!r}" + (
                f"; did you mean {close[0]!r}?" if close else f"; one of: {', '.join(known)}"
            )
        super().error(re.sub(r"invalid int value: ('.*')$", r"\1 is not a whole number", message))


def _refuse_option(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """End with a usage error that names what the first unknown option resembles."""
    import difflib
    import re

    option = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
    known = set(re.findall(r"--[a-z-]+", parser.format_usage()))
    close = difflib.get_close_matches(option, sorted(known), n=1, cutoff=0.5) if option else []
    suggestion = f"; did you mean {close[0]}?" if close else ""
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{suggestion}")


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    listed = "\n".join(f"  {name:<{width}}  {line}" for name, line in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="holdfast",
        usage="holdfast [--version] [--debug] VERB …",
        description="Decides whether an order may leave, proves afterwards what happened, never sends one twice.",
        epilog=f"verbs:\n{listed}\n\n'holdfast VERB --help' shows a verb's arguments and examples.\n"
        "exit codes: 0 fine · 1 user error · 2 usage · 3 integrity failure · 4 cannot act now · 5 unreachable",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"holdfast {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error (secrets removed)"
    )
    return parser


def _report(error: Exception, *, debug: bool) -> int:
    """Say what went wrong on stderr; the exit code."""
    from holdfast.audit.redact import redact_text
    from holdfast.cli.output import printable

    if debug:
        import traceback

        _complain(redact_text("".join(traceback.format_exception(error))).rstrip())
    if isinstance(error, TradingError):
        # Some messages have several lines; none moves the cursor, and no path in a hint adds a line.
        _complain("\n".join(map(printable, redact_text(f"holdfast: {error}").split("\n"))))
        if error.hint:
            _complain(printable(redact_text(f"hint: {error.hint}")))
        return error.exit_code
    if isinstance(error, OSError):
        return _report_os_error(error)
    _complain(printable(redact_text(f"holdfast: internal error: {type(error).__name__}: {error}")))
    if not debug:
        _complain("hint: this is a bug in holdfast; run again with --debug and report what it prints")
    return EXIT_USER_ERROR


def _report_os_error(error: OSError) -> int:
    """What the operating system refused, named, with what to do; the exit code."""
    import errno

    from holdfast.audit.redact import redact_text
    from holdfast.cli.output import printable

    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    # Redacted before it is written small: a secret is known by its letters.
    reason = redact_text(error.strerror or str(error)).lower()
    _complain(printable(f"holdfast: {redact_text(named)}{reason}"))
    if full:
        _complain("hint: free space on that volume, then start again; nothing acknowledged is lost")
    elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        _complain("hint: give this user the right to read and write there, or choose another place")
    elif error.errno in {errno.ENOENT, errno.ENOTDIR}:
        _complain("hint: check the path, each part of it; only the last one is made where it is missing")
    else:
        _complain("hint: check the path, and the disk it is on")
    return EXIT_CANNOT_ACT if full else EXIT_USER_ERROR


def _complain(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # stderr is gone too; the exit code still tells
        return


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_PIPE_CLOSED
    return code


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout has no descriptor (a test's buffer): nothing to silence
        return


def run_and_exit() -> NoReturn:
    """The console script: `main()` with the process's own words and exit."""
    sys.exit(main())


if __name__ == "__main__":
    run_and_exit()

__all__ = ["EXIT_OK", "VERBS", "Verb", "main", "run_and_exit"]
