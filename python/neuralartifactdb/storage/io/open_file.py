"""What everything that holds a file of its own open shares: one descriptor, closed once."""

from __future__ import annotations

import os

__all__ = ["OpenFile"]


class OpenFile:
    """The descriptor of a file, closed by `close` or with the object; -1 before it is open and after.

    Args:
        path: of the file, for messages.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def close(self) -> None:
        """Close the descriptor of this process; harmless when closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()
