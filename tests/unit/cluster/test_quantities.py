"""Quantities are written as Kubernetes writes them, so that what was applied is what is found."""

from __future__ import annotations

from fractions import Fraction

import pytest
from heteroserve.cluster.quantities import canonical, cores, memory, value
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        # As the Kubernetes API documents them (resource.Quantity), and as the operator was seen to write them.
        ("1024Mi", "1Gi"),
        ("1000m", "1"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("0.5", "500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1023Ki", "1023Ki"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1500Mi", "1500Mi"),
        ("2e3", "2e3"),
        ("8", "8"),
        ("0", "0"),
        ("0Mi", "0"),
        ("+2", "2"),
        (".25", "250m"),
        ("128e6", "128e6"),
        ("129M", "129M"),
        ("0.0000000001", "1n"),
    ],
)
def test_as_kubernetes_writes_it(written: str, kept: str) -> None:
    assert canonical(written) == kept


@pytest.mark.parametrize("written", ["", "Gi", "1 Gi", "1gb", "1KiB", "one", "1.2.3", "--1"])
def test_what_is_no_quantity_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity: write it as"):
        canonical(written)


SUFFIXES = st.sampled_from(["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E6"])


@given(st.integers(0, 10**7), st.integers(0, 999), SUFFIXES)
def test_nothing_is_lost_and_the_second_time_changes_nothing(whole: int, part: int, suffix: str) -> None:
    written = f"{whole}.{part:03}{suffix}"
    kept = canonical(written)
    assert canonical(kept) == kept
    exact = value(written)
    assert (
        value(kept) == exact if (exact * 10**9).denominator == 1 else exact <= value(kept) < exact + Fraction(1, 10**9)
    )


@given(st.integers(1, 2**50))
def test_memory_is_enough_and_less_than_a_mib_too_much(size: int) -> None:
    assert size <= value(memory(size)) < size + 2**20


@given(st.integers(1, 10**6))
def test_cores_are_thousandths(thousandths: int) -> None:
    assert value(cores(thousandths / 1000)) * 1000 - thousandths in (0, 1)
