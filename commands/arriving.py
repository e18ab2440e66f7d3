"""The bytes of one request while they arrive, and whether all of it is there.

Owns where a request ends: at its empty line, after `Content-Length`, or after the last chunk. Does not own what the bytes mean:
gunicorn's parser reads them again and has the last word, so what makes no sense here counts as whole and is refused there.
Source: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

import re
from typing import Literal

MOST_HEAD_BYTES = 64 * 1024
"""Longest request line with its fields, and longest trailer of a chunked body."""
MOST_LINE_BYTES = 8190
"""Longest line that begins a chunk: gunicorn refuses a longer one."""

State = Literal["head", "body", "whole", "long head", "long body"]
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)


class Arriving:
    """One request: `add` what came and look at `state`. A body of more than `most_bytes` ends it as "long body".

    What comes after its end (a next request, sent without waiting) stays in `content` as well.
    """

    def __init__(self, most_bytes: int) -> None:
        self.content = bytearray()
        self.state: State = "head"
        self.waits_to_continue = False
        """Whether the client waits for "100 Continue" before it sends the body."""
        self._most_bytes = most_bytes
        self._head_bytes = 0
        self._end: int | None = None
        self._chunk = 0

    def add(self, content: bytes) -> State:
        """Add what came; return the state after it."""
        searched = max(0, len(self.content) - 3)
        self.content += content
        if self.state == "head":
            self.state = self._after_head(searched)
        if self.state == "body":
            self.state = self._after_chunks() if self._end is None else self._after_length(self._end)
        return self.state

    def _after_head(self, searched: int) -> State:
        found = self.content.find(b"\r\n\r\n", searched)
        if found < 0 or found > MOST_HEAD_BYTES:
            return "head" if len(self.content) <= MOST_HEAD_BYTES else "long head"
        self._head_bytes = self._chunk = found + 4
        fields = _FIELD.findall(self.content, 0, self._head_bytes)
        lengths = [value for name, value in fields if name.lower() == b"content-length"]
        if not any(name.lower() == b"transfer-encoding" for name, _ in fields):
            # Two lengths, or one that is no number: gunicorn refuses them without reading on. Of one that is, however many
            # digits it has, it waits for as much as it says.
            simple = len(lengths) == 1 and lengths[0].isdigit()
            self._end = self._head_bytes + (_length(lengths[0]) if simple else 0)
        expecting = any(name.lower() == b"expect" and value.lower() == b"100-continue" for name, value in fields)
        self.waits_to_continue = expecting and len(self.content) == self._head_bytes
        return "body"

    def _after_length(self, end: int) -> State:
        if end - self._head_bytes > self._most_bytes:
            return "long body"
        return "whole" if len(self.content) >= end else "body"

    def _after_chunks(self) -> State:
        while self._chunk <= len(self.content):
            if self._chunk - self._head_bytes > self._most_bytes:
                return "long body"
            line_end = self.content.find(b"\r\n", self._chunk)
            if line_end < 0:
                return "body" if len(self.content) - self._chunk <= MOST_LINE_BYTES else "whole"
            digits = self.content[self._chunk : line_end].partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]+", digits):
                return "whole"
            size = int(digits, 16)
            if size == 0:
                return self._after_trailer(line_end)
            self._chunk = line_end + 2 + size + 2
        return "body" if self._chunk - self._head_bytes <= self._most_bytes else "long body"

    def _after_trailer(self, line_end: int) -> State:
        """Tell whether the empty line is there that ends the trailer; the line of the last chunk ends at `line_end`."""
        if self.content.find(b"\r\n\r\n", line_end) >= 0:
            return "whole"
        return "body" if len(self.content) - line_end <= MOST_HEAD_BYTES else "long body"

    def without_expectation(self) -> bytes:
        """Return all bytes, without the field `Expect`, for which "100 Continue" was sent already."""
        head = re.sub(rb"\r\nexpect:[^\r\n]*", b"", self.content[: self._head_bytes], flags=re.IGNORECASE)
        return bytes(head + self.content[self._head_bytes :])

    def closing(self) -> bytes:
        """Return all bytes with the field `Connection: close` before all others: nothing follows one that was cut off."""
        line, ended, rest = self.without_expectation().partition(b"\r\n")
        return line + ended + b"Connection: close" + ended + rest


def _length(digits: bytes) -> int:
    """Return a length in decimal digits; one so long that nobody takes it stands for all of them."""
    return int(digits.lstrip(b"0")[:20] or b"0")
