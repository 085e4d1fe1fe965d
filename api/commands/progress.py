"""A line that moves while something takes longer than two seconds (进度)."""

import sys
import threading
from time import monotonic
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 2.0


class Progress:
    """Shows what is being done, how far it is and for how long, once it takes its time.

    On a terminal the line is rewritten; elsewhere it is printed once at the end.
    """

    def __init__(self, title: str) -> None:
        self._title, self._done, self._total = title, 0, 0
        self._began = monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say how long it took."""
        self._stop.set()
        self._thread.join()
        took = monotonic() - self._began
        if took > PATIENCE_SECONDS and kind is None:
            start = "\r" if sys.stderr.isatty() else ""
            print(f"{start}{self._line()}, done", file=sys.stderr, flush=True)

    def at(self, done: int, total: int) -> None:
        """Say how far it is."""
        self._done, self._total = done, total

    def _line(self) -> str:
        far = f" {self._done}/{self._total}" if self._total else ""
        return f"{self._title}{far} ({monotonic() - self._began:.0f} s)"

    def _show(self) -> None:
        if self._stop.wait(PATIENCE_SECONDS) or not sys.stderr.isatty():
            return
        while not self._stop.wait(0.2):
            print(f"\r{self._line()}", end="", file=sys.stderr, flush=True)
