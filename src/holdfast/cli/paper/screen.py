"""Where the story appears: a live view on a terminal, plain lines anywhere else, nothing under `--json`."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from holdfast.cli.paper.story import CHAPTERS, Line, Story

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_SHOWN_LINES = 22
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
    """The last lines, the figures and the chapters, redrawn in place; the lines stay when it ends."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console()
        self._lines: deque[Line] = deque(maxlen=_SHOWN_LINES)
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
        for line in self._lines:
            self._console.print(
                str(line), style=_STYLES[line.tone], markup=False, highlight=False, soft_wrap=True
            )

    def show(self, line: Line, story: Story) -> None:
        """Add *line* and redraw."""
        self._lines.append(line)
        if self._live is not None:
            self._live.update(self._drawn(story))

    def heading(self, text: str) -> None:
        """Print *text* above the view."""
        self._console.print(text, markup=False, highlight=False)

    def _drawn(self, story: Story) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        figures = Table.grid(padding=(0, 3))
        orders = story.orders
        breaker = story.breaker[-1]["to"] if story.breaker else "closed"
        figures.add_row(
            Text(f"breaker {breaker}", style="green" if breaker == "closed" else "bold red"),
            f"decisions {story.decisions}",
            f"sent {orders['submitted']}",
            f"filled {orders['filled']}",
            f"refused {orders['denied']}",
            f"unknown now {story.unknown_now}",
        )
        chapters = Text()
        for chapter in CHAPTERS:
            done = chapter in story.proven
            chapters.append(f" {'●' if done else '○'} {chapter} ", style="green" if done else "dim")
        body = Text("\n").join(
            Text(str(line), style=_STYLES[line.tone], no_wrap=True) for line in self._lines
        )
        return Group(Panel(Group(figures, chapters), title="holdfast paper", title_align="left"), body)


def choose_screen(*, json: bool, terminal: bool) -> Screen:
    """The live view on a terminal, plain lines otherwise, silence under `--json`."""
    if json:
        return SilentScreen()
    return LiveScreen() if terminal else PlainScreen()
