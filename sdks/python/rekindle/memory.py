"""What was found a moment ago, by what was asked."""

from __future__ import annotations

import contextlib
from time import monotonic, time
from typing import Generic, TypeVar

T = TypeVar("T")

_BELIEVED_FOR = 0.5
"""For how many seconds it is believed."""


class Memory(Generic[T]):
    """Bounded, and forgotten as a whole whenever anything ends."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, tuple[float, T]] = {}

    def get(self, asked: str) -> T | None:
        known = self._known.get(asked)
        return known[1] if known is not None and monotonic() < known[0] else None

    def set(self, asked: str, found: T, expires_at: float) -> None:
        """expires_at: as `time.time` counts."""
        now = monotonic()
        self._known.pop(asked, None)
        # The oldest come first. They hold tokens: none stays for longer than it is of use. Another thread may be at it, too.
        with contextlib.suppress(StopIteration, RuntimeError, KeyError):
            while self._known[oldest := next(iter(self._known))][0] <= now or len(self._known) >= self._most:
                self._known.pop(oldest, None)
        self._known[asked] = (now + min(_BELIEVED_FOR, expires_at - time()), found)

    def forget(self, asked: str) -> None:
        self._known.pop(asked, None)

    def clear(self) -> None:
        self._known.clear()
