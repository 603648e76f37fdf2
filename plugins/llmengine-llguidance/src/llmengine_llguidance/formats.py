"""The string formats of JSON Schema that a regular expression can spell, exactly or more strictly."""

from __future__ import annotations

from functools import cache
from typing import Final

from llmengine_llguidance.patterns import Flavour, translate

__all__ = ["ANNOTATIONS", "PATTERNS", "format_pattern"]

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = (
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_DAYS = "(?:[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?)"
_HOURS = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = f"{_LABEL}(?:[.]{_LABEL}){{0,3}}"
_WORD = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = f"{_OCTET}(?:[.]{_OCTET}){{3}}"
_QUAD = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [
        f"(?:{_QUAD}:){{7}}{_QUAD}",
        f"(?:{_QUAD}:){{1,7}}:",
        *(f"(?:{_QUAD}:){{1,{7 - n}}}(?::{_QUAD}){{1,{n}}}" for n in range(1, 7)),
        f":(?:(?::{_QUAD}){{1,7}}|:)",
    ]
)
_SEGMENT = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_AUTHORITY = (
    f"(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{{2}})*@)?(?:{_HOSTNAME}|{_IPV4})(?::[0-9]{{1,5}})?"
)
_URI = (
    f"[A-Za-z][A-Za-z0-9+.-]*:(?://{_AUTHORITY}(?:/{_SEGMENT}*)*|/(?:{_SEGMENT}+(?:/{_SEGMENT}*)*)?"
    rf"|{_SEGMENT}+(?:/{_SEGMENT}*)*)(?:\?(?:{_SEGMENT}|[/?])*)?(?:#(?:{_SEGMENT}|[/?])*)?"
)

PATTERNS: Final = {
    "date": _DATE,
    "date-time": f"{_DATE}T{_TIME}",
    "time": _TIME,
    "duration": f"P(?:{_DAYS}(?:{_HOURS})?|{_HOURS}|[0-9]+W)",
    "email": f"{_WORD}(?:[.]{_WORD})*@{_HOSTNAME}",
    "hostname": _HOSTNAME,
    "ipv4": _IPV4,
    "ipv6": f"(?:{_IPV6})",
    "json-pointer": "(?:/(?:[^~/]|~[01])*)*",
    "uri": _URI,
    "uuid": "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}
"""What the whole string matches. No leap seconds, no year 0, no more than four labels of a host's name."""

ANNOTATIONS: Final = frozenset({"binary", "password"})
"""Formats that tell a form how to show a string and ask nothing of it."""


@cache
def format_pattern(name: str) -> str:
    """One of ``PATTERNS`` as Rust source."""
    return translate(PATTERNS[name], Flavour.WHOLE)
