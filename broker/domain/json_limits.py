"""What a message may not contain although it is valid JSON: readers could not decode it. Whoever reads a log
gets pages of it, so one such message would keep them from all others of its page (RFC 8259, 9)."""

import re

MAX_DEPTH = 100
"""The deepest nesting of arrays and objects in a content. JSON decoders are recursive, also our own."""

# Possessive quantifiers: no backtracking, so the time is linear in whatever a client sends.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

MAX_DIGITS = 1000
"""The most digits in a row of a number. Some decoders have a limit: that of Python is 4,300 for integers."""

_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


def is_too_deep(document: bytes) -> bool:
    """Whether valid JSON is nested deeper than `MAX_DEPTH`. Without recursion, whatever the depth."""
    # Only the brackets remain, all of one kind. Each pass removes the innermost level.
    brackets = _STRING.sub(b"", document).translate(_ALL_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def is_too_long(document: bytes) -> bool:
    """Whether valid JSON has a number of more than `MAX_DIGITS` digits."""
    if len(document) <= MAX_DIGITS or _LONG_NUMBER.search(document) is None:
        return False
    return _LONG_NUMBER.search(_STRING.sub(b"", document)) is not None  # it may have been in a string
