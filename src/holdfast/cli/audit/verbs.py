"""How a module of this folder describes its subcommands."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from holdfast.cli.output import HelpText, add_json_argument
from holdfast.core.errors import BadInput

Handler = Callable[[argparse.Namespace], int]
"""Runs a subcommand; returns its exit code."""


class _Subparsers(Protocol):
    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser: ...


class Verbs:
    """The subcommands of `holdfast audit`."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers: _Subparsers = parser.add_subparsers(
            dest="audit_verb", metavar="VERB", required=True
        )

    def add(self, name: str, line: str, examples: str, handler: Handler) -> argparse.ArgumentParser:
        """A subcommand's parser, `--json` and `--debug` in it; *line* is its help, *handler* runs it."""
        child = self._subparsers.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            epilog=examples,
            formatter_class=HelpText,
            allow_abbrev=False,
        )
        child.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        add_json_argument(child)
        child.set_defaults(handler=handler, parser=child)
        return child


def path_argument(text: str) -> Path:
    """A path that was named; a variable that the shell found empty is not the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("no path is named: the word is empty")
    return Path(text)


def refuse_folder_of_logs(directory: Path) -> None:
    """Name the log where somebody gave the folder around it.

    Raises:
        BadInput: *directory* is no log, but holds one.
    """
    from holdfast.audit.head import HEAD_NAME

    if (directory / HEAD_NAME).exists() or any(directory.glob("audit_*")):
        return
    inside = min((path.parent for path in directory.glob(f"*/{HEAD_NAME}")), default=None)
    if inside is not None:
        raise BadInput(f"{str(directory)!r} is not a log itself", hint=f"it holds one: {inside}")


def require_log(directory: Path) -> None:
    """Refuse what is no log's directory: an answer about nothing is not an empty answer.

    What cannot be looked at passes: whoever opens it says why.

    Raises:
        BadInput: *directory* is missing, no directory, a link, holds nothing that a log is made of, or a log of a
            newer format.
    """
    from holdfast.audit.holder import holds_log
    from holdfast.audit.logfiles import refuse_newer
    from holdfast.audit.storage import LocalStorage

    try:
        mode = directory.lstat().st_mode
        names = set(os.listdir(directory)) if stat.S_ISDIR(mode) else set[str]()  # noqa: PTH208  names are wanted
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"no audit log at {str(directory)!r}", hint=_NAME_IT) from None
    except OSError:
        return
    if not stat.S_ISDIR(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "not a directory"
        raise BadInput(f"no audit log at {str(directory)!r}: it is {kind}", hint=_NAME_IT)
    refuse_folder_of_logs(directory)
    if not holds_log(names):
        holds = "it is empty" if not names else f"it holds other things, such as {min(names)!r}"
        raise BadInput(f"no audit log at {str(directory)!r}: {holds}", hint=_NAME_IT)
    opened = LocalStorage().directory(directory, create=False)
    try:
        refuse_newer(opened)
    finally:
        opened.close()


_NAME_IT = "name the directory that holds audit_….log"
