"""The toy's vocabulary, and which of its tokens may follow each other in UTF-8."""

from __future__ import annotations

import codecs
from functools import cache

__all__ = ["END", "LIKELY", "NUMBERS", "PIECES", "RARE", "continuing", "utf8_start"]

WORDS = (
    "the",
    " and",
    " of",
    " to",
    " a",
    " in",
    "th",
    "er",
    "on",
    "an",
    "ab",
    "aba",
    "ing",
    "\n\n",
    " =",
    ": ",
    ' "',
)
PIECES = (
    *(bytes([each]) for each in range(256)),
    *(word.encode() for word in WORDS),
    "é".encode(),
    "€".encode(),
    "😀".encode()[:2],
)
"""What the tokens stand for, by their numbers; one more token is the end."""
END = len(PIECES)
LIKELY = [each for each in range(END) if PIECES[each].isascii() and PIECES[each].decode().isprintable()] + [
    *range(256, END),
    *"\né€😀".encode(),
]
"""The tokens that it generates; all others hardly ever, but where a constraint demands them."""
RARE = dict.fromkeys(range(END), -12.0)
NUMBERS = {piece: number for number, piece in reversed([*enumerate(PIECES)])}
"""The tokens by what they stand for, each by its lowest number."""


def continuing(data: bytes) -> frozenset[int]:
    """The tokens that UTF-8 allows after what begins as UTF-8."""
    return _continuing(data[len((utf8_start(data) or "").encode()) :])


@cache
def _continuing(rest: bytes) -> frozenset[int]:
    found = {token for token in range(END) if utf8_start(rest + PIECES[token]) is not None}
    return frozenset(found if rest else {*found, END})


def utf8_start(data: bytes) -> str | None:
    """The whole characters of what begins as UTF-8; None where it doesn't."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return None
    rest = data[len(text.encode()) :]
    return None if b"\xed\xa0" <= rest < b"\xee" else text  # half a surrogate, which Python refuses later
