"""Kubernetes quantities."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askos.model.errors import InvalidError
from askos.plan.quantities import canonical, parse, to_bytes, to_milli


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        ("+1", 1),
        ("-1", -1),
        ("007", 7),
        ("1.", 1),
        (".5", Fraction(1, 2)),
        ("1.5", Fraction(3, 2)),
        ("500m", Fraction(1, 2)),
        ("100u", Fraction(1, 10_000)),
        ("100n", Fraction(1, 10_000_000)),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Ki", 1536),
        ("64Mi", 64 << 20),
        ("1G", 10**9),
        ("2Ti", 2 << 40),
        ("1P", 10**15),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        ("1E3", 1000),
        ("1e3", 1000),
        ("12.5e1", 125),
        ("1e+2", 100),
        ("5e-1", Fraction(1, 2)),
        ("1E-2", Fraction(1, 100)),
        ("0e9999", 0),
        ("1e-9999", Fraction(1, 10**9)),
        ("0.1n", Fraction(1, 10**9)),
        ("-0.1n", Fraction(-1, 10**9)),
    ],
)
def test_value(text: str, value: Fraction | int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", " 1", ".", "+", "m", "Mi", "1.2.3", "1K", "1mi", "1Mib", "1e", "1e1.5", "1ee3", "0x10", "1,5",
     "--1", "1e3Mi", "٣", "1" * 65, "inf", "nan", "1\n", "1_000", "1e99999"],
)  # fmt: skip
def test_not_a_quantity(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(text)
    assert repr(text)[1:20].rstrip("'") in caught.value.message


@pytest.mark.parametrize("text", ["10E", "8Ei", "1e19", "9223372036854775808", "1e9999", "-10E"])
def test_too_large(text: str) -> None:
    with pytest.raises(InvalidError, match="too large"):
        parse(text)


def test_largest() -> None:
    assert to_bytes("9223372036854775807") == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "milli"), [("1", 1000), ("500m", 500), ("0.1", 100), ("1u", 1), ("1001u", 2), ("0", 0)]
)
def test_cpus_are_rounded_up(text: str, milli: int) -> None:
    assert to_milli(text) == milli


@pytest.mark.parametrize(
    ("text", "count"), [("1.5", 2), ("100m", 1), ("128Mi", 128 << 20), ("1e3", 1000), ("0.1Ki", 103)]
)
def test_bytes_are_rounded_up(text: str, count: int) -> None:
    assert to_bytes(text) == count


@pytest.mark.parametrize("read", [to_milli, to_bytes])
def test_amounts_are_not_negative(read: object) -> None:
    with pytest.raises(InvalidError, match="'-1m' is negative"):
        read("-1m")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0", "0"),
        ("0Mi", "0"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Mi", "1Gi"),
        ("0.5Gi", "512Mi"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("1.1Mi", "1153433600m"),
        ("1536Mi", "1536Mi"),
        ("-1024Ki", "-1Mi"),
        ("1e3", "1e3"),
        ("1e0", "1"),
        ("15e-1", "1500e-3"),
        ("12E4", "120e3"),
        ("100000k", "100M"),
        ("1u", "1u"),
        ("0.5n", "1n"),
    ],
)
def test_canonical(text: str, written: str) -> None:
    assert canonical(text) == written


_TEXTS = st.builds(
    lambda sign, whole, part, suffix: f"{sign}{whole}{part}{suffix}",
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 999_999_999),
    st.sampled_from(["", ".", ".5", ".000000001", ".123456789123"]),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-3", "e0", "e-12"]),
)


@given(_TEXTS)
def test_canonical_is_the_same_value_and_settled(text: str) -> None:
    written = canonical(text)
    assert parse(written) == parse(text)
    assert canonical(written) == written
    assert "." not in written


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        canonical(text)
    except InvalidError:
        return
    assert parse(text).denominator <= 10**9
