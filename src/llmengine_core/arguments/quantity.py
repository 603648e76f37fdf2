"""Amounts of memory and storage, written as Kubernetes writes them: "24Gi", "512Mi", 2e9."""

from __future__ import annotations

import re
from numbers import Integral, Real

from llmengine_core.arguments.checks import MOST, integer, real, refuse

__all__ = ["quantity", "quantity_bytes"]

ALLOWED = 'a positive amount of bytes as Kubernetes writes them, such as "24Gi", "512Mi" or 2e9'
QUANTITY = re.compile(
    r"\+?(?P<whole>\d{0,20})(?:\.(?P<part>\d{0,20}))?"
    r"(?:(?P<binary>[KMGTPE])i|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(field: str, value: object) -> str:
    """An amount as text; what was given as a text is kept as it was written."""
    if isinstance(value, Integral):
        value = str(integer(field, value, 1, ALLOWED))
    elif isinstance(value, Real):
        value = repr(real(field, value, 0.0, MOST, ALLOWED))
    if not isinstance(value, str):
        refuse(field, value, ALLOWED)
    amount = quantity_bytes(value)
    if amount is None or not 0 < amount <= MOST:
        refuse(field, value, ALLOWED)
    return str.__str__(value)


def quantity_bytes(written: str) -> int | None:
    """How many bytes an amount is, rounded up; None where it isn't one."""
    found = QUANTITY.fullmatch(written)
    if not found or not (found["whole"] or found["part"]):
        return None
    part = found["part"] or ""
    power = int(found["exponent"] or DECIMAL.get(found["decimal"] or "", 0)) - len(part)
    amount = int((found["whole"] or "") + part)
    if found["binary"]:
        amount *= 1024 ** ("KMGTPE".index(found["binary"]) + 1)
    scale: int = 10 ** abs(power)
    return amount * scale if power >= 0 else -(-amount // scale)
