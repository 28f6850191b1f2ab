"""What crosses between the sandbox's processes: messages with a length, of plain data."""

from __future__ import annotations

import _pickle as pickle  # the module's half in C; the other takes longer to import than most programs take to run
import io
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MESSAGE_BYTES = 1 << 26
"""Longest message."""
PLAIN = (bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset)
_NAMED = (*PLAIN, range, iter)
"""What a message may name; the rest of plain data has a form of its own."""
_VIEWS = tuple(type(view) for view in ({}.keys(), {}.values(), {}.items()))


class Gone(BaseException):
    """The other process has ended, or talks nonsense."""


class _PlainPickler(pickle.Pickler):
    """Writes built-in values; what derives from them becomes one of them, an iterator one over a list."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) in (complex, range, bytearray) or any(value is one for one in _NAMED):
            return NotImplemented
        if getattr(value, "ndim", None) == 0:  # a number of numpy's
            value = value.item()
        for kind in PLAIN:
            if isinstance(value, kind):
                return kind, (kind(value) if kind not in (tuple, list) else kind(iter(value)),)
        if hasattr(value, "__next__") or isinstance(value, _VIEWS):
            return iter, (list(value),)
        raise TypeError(f"{type(value).__name__} is no plain data")


class _PlainUnpickler(pickle.Unpickler):
    """Reads what `_PlainPickler` writes: nothing it can name runs code or can be changed."""

    known = {one.__name__: one for one in _NAMED}

    def find_class(self, module: str, name: str) -> Any:
        if module != "builtins" or name not in self.known:
            raise Gone
        return self.known[name]


def plain_message(value: Any) -> bytes:
    """Return the value as a message.

    Raises:
        TypeError: something in it is no plain data.
    """
    buffer = io.BytesIO()
    _PlainPickler(buffer, 4).dump(value)
    return buffer.getvalue()


def plain_value(message: bytes) -> Any:
    """Return the value of a message from somebody who is not trusted.

    Raises:
        Gone: it is no plain data.
    """
    try:
        return _PlainUnpickler(io.BytesIO(message)).load()
    except (MemoryError, RecursionError):
        raise
    except Exception:
        raise Gone from None


def send(fd: int, message: bytes) -> None:
    """Write a message with its length.

    Raises:
        Gone: nobody reads it.
    """
    left = memoryview(struct.pack("Q", len(message)) + message)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        raise Gone from None


def receive(fd: int, most: int = MESSAGE_BYTES) -> bytes:
    """Return the next message, and not a byte more: what follows may be for another process.

    Raises:
        Gone: there is none, or it is too long.
    """
    (size,) = struct.unpack("Q", _exactly(fd, 8))
    if size > most:
        raise Gone
    return _exactly(fd, size)


def _exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            block = os.read(fd, min(size - len(data), 1 << 20))
        except OSError:
            block = b""
        if not block:
            raise Gone
        data += block
    return bytes(data)
