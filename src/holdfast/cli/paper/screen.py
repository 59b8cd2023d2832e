"""Where the story appears: lines above live figures on a terminal, plain lines anywhere else, nothing under `--json`."""

from __future__ import annotations

import textwrap
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from holdfast.cli.paper.story import Line, Story

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_TEXT_AT = 20
"""The column where a line's text begins, after its time and who speaks."""
_STYLES = {"bad": "red", "good": "green", "state": "bold cyan", "": ""}


class Screen(Protocol):
    """Takes the story line by line."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def show(self, line: Line, story: Story) -> None:
        """Add one line; *story* is the state after it."""
        ...

    def heading(self, text: str) -> None:
        """Say something that is not from the journal: what is about to happen."""
        ...


class PlainScreen:
    """One line each, flushed, for pipes and logs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        return None

    def show(self, line: Line, story: Story) -> None:
        """Print *line*."""
        del story
        print(line, flush=True)

    def heading(self, text: str) -> None:
        """Print *text*."""
        print(text, flush=True)


class SilentScreen(PlainScreen):
    """Says nothing; the summary speaks."""

    def show(self, line: Line, story: Story) -> None:
        """Say nothing."""

    def heading(self, text: str) -> None:
        """Say nothing."""


class LiveScreen:
    """The story scrolls by and stays; below it the figures, redrawn in place until the run ends.

    A line too long for the terminal goes on below its own text, so that no line is cut and none looks like two.
    """

    def __init__(self, console: Console | None = None, *, chapters: bool = True) -> None:
        from rich.console import Console

        self._console = console or Console()
        self._chapters = chapters
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, at)
            self._live = None

    def show(self, line: Line, story: Story) -> None:
        """Print *line* above the figures and bring those up to date."""
        self.print(hanging(str(line), _TEXT_AT, self._console.width), _STYLES[line.tone])
        if self._live is not None:
            self._live.update(self._drawn(line.time, story))

    def heading(self, text: str) -> None:
        """Print *text* above the view."""
        self.print(text)

    def print(self, text: str, style: str = "") -> None:
        """Print *text* as it is."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _drawn(self, time: str, story: Story) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        orders = story.orders
        breaker = story.breaker[-1]["to"] if story.breaker else "closed"
        figures = Text(f"breaker {breaker}", style="green" if breaker == "closed" else "bold red")
        counts = (
            f"  decided {story.decisions}  sent {orders['submitted']}  filled {orders['filled']}"
            f"  refused {orders['denied']}  unknown {story.unknown_now}"
        )
        figures.append(counts, style="default")
        rows = [figures]
        if self._chapters:
            rows.append(Text("shown so far: "))
            for chapter in story.chapters:
                done = chapter in story.proven
                rows[-1].append(f" {'●' if done else '○'} {chapter} ", style="green" if done else "dim")
        title = f"holdfast paper, market time {time} UTC"
        return Panel(Group(*rows), title=title, title_align="left")


TOGETHER = "\N{NO-BREAK SPACE}"
"""Joins words that `hanging` keeps on one line."""


def hanging(text: str, indent: int, width: int) -> str:
    """*text* in lines of at most *width* columns, all but the first starting at column *indent*.

    What a no-break space joins stays on one line, and is printed with a plain one.
    """
    if len(text) <= width or width < 2 * indent:
        return text.replace(TOGETHER, " ")
    # The times and the names stand in columns, whose blanks must stay.
    head, rest = text[:indent], text[indent:]
    parts = textwrap.wrap(rest, width - indent, break_on_hyphens=False, drop_whitespace=True)
    return (head + f"\n{' ' * indent}".join(parts)).replace(TOGETHER, " ")


def choose_screen(*, json: bool, terminal: bool, chapters: bool = True) -> Screen:
    """The live view on a terminal, plain lines otherwise, silence under `--json`.

    Args:
        json: Whether a program reads the output.
        terminal: Whether a person does, on a terminal.
        chapters: Whether this run is to show every chapter of the story.
    """
    if json:
        return SilentScreen()
    return LiveScreen(chapters=chapters) if terminal else PlainScreen()
