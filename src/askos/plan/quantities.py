"""Kubernetes quantities: "500m", "1.5", "64Mi", "12e6".

A number, then a suffix: of ten (n, u, m, k, M, G, T, P, E), of two (Ki to Ei), or an exponent (e3, E-2). "1E" is
exa, "1E3" a thousand. What is finer than a billionth is rounded up; what does not fit 63 bits is refused, where
Kubernetes cuts it off in silence.
"""

from __future__ import annotations

import re
from fractions import Fraction

from askos.model.errors import InvalidError

_TEN = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWO = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,4}))?",
    re.ASCII,
)
_LONGEST = 64
_LARGEST = (1 << 63) - 1
_FINEST = 10**9
"""Parts of one that are told apart."""


def parse(text: str) -> Fraction:
    """The exact value, rounded up (away from zero) to whole billionths. Raises InvalidError naming the text."""
    return _read(text)[0]


def to_milli(text: str) -> int:
    """Thousandths of a CPU, rounded up. Raises InvalidError, also when negative."""
    return _whole(_amount(text) * 1000)


def to_bytes(text: str) -> int:
    """Bytes, rounded up. Raises InvalidError, also when negative."""
    return _whole(_amount(text))


def canonical(text: str) -> str:
    """The one way to write this value in its own family of suffixes: no fraction, the largest suffix that loses
    nothing. "1.5" is "1500m", "1024Mi" is "1Gi", "1000" is "1k". Raises InvalidError."""
    value, family = _read(text)
    if value == 0:
        return "0"
    if family == "two" and abs(value) >= 1024 and value.denominator == 1:
        return _in_twos(value.numerator)
    digits = value.numerator * (_FINEST // value.denominator)
    power = -9
    while digits % 1000 == 0 and power < 18:
        digits //= 1000
        power += 3
    if family == "exponent":
        return f"{digits}e{power}" if power else str(digits)
    return str(digits) + next(suffix for suffix, known in _TEN.items() if known == power)


def _amount(text: str) -> Fraction:
    value = parse(text)
    if value < 0:
        raise InvalidError(f"The quantity {text!r} is negative: an amount cannot be.")
    return value


def _read(text: str) -> tuple[Fraction, str]:
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
        raise InvalidError(
            f'{shown!r} is not a quantity: write a number and perhaps a suffix, such as "500m", "2", "64Mi" or "1.5G".'
        )
    value = Fraction(found["number"].rstrip("."))
    suffix, family = found["suffix"] or "", "ten"
    if found["exponent"] is not None:
        value, family = value * Fraction(10) ** int(found["exponent"]), "exponent"
    elif suffix in _TWO:
        value, family = value * (1 << _TWO[suffix]), "two"
    else:
        value *= Fraction(10) ** _TEN[suffix]
    value = Fraction(_whole(value * _FINEST), _FINEST)
    if value > _LARGEST:
        raise InvalidError(f"The quantity {text!r} is too large: at most {_LARGEST} can be counted.")
    return (-value if found["sign"] == "-" else value), family


def _in_twos(number: int) -> str:
    shown = ""
    for suffix in _TWO:
        if number % 1024:
            break
        number //= 1024
        shown = suffix
    return f"{number}{shown}"


def _whole(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
