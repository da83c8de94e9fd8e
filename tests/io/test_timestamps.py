"""Repair of timestamps, and the time span of a part of a video."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rtseg.io.inputs.timestamps import FrameTimes, Span


def repair(stamps: list[int | None], step: int = 40) -> tuple[list[int], FrameTimes[int]]:
    """Return the repaired timestamps, and the `FrameTimes` that counted the repairs."""
    times: FrameTimes[int] = FrameTimes(step)
    ready = [item for number, stamp in enumerate(stamps) for item in times.put(number, stamp)]
    ready += times.flush()
    assert [number for number, _ in ready] == list(range(len(stamps)))
    return [stamp for _, stamp in ready], times


def test_rising_timestamps_are_kept() -> None:
    stamps, times = repair([-80, 0, 1, 2000, 1 << 50])
    assert stamps == [-80, 0, 1, 2000, 1 << 50]
    assert (times.missing, times.wrong) == (0, 0)


def test_missing_timestamps_are_interpolated_or_extrapolated() -> None:
    assert repair([None, None, 100, None, None, 190, None])[0] == [20, 60, 100, 130, 160, 190, 230]
    stamps, times = repair([None, None, None])
    assert stamps == [0, 40, 80]
    assert times.missing == 3


def test_frames_without_any_timestamp_are_returned_immediately() -> None:
    times: FrameTimes[int] = FrameTimes(40, timed=False)
    assert [list(times.put(number, None)) for number in range(3)] == [[(0, 0)], [(1, 40)], [(2, 80)]]


def test_single_wrong_timestamp_is_interpolated() -> None:
    for wrong in (-5000, 30, 40, 5000):
        stamps, times = repair([0, 40, wrong, 120, 160])
        assert stamps == [0, 40, 80, 120, 160]
        assert times.wrong == 1
    assert repair([9000, 40, 80, 120])[0] == [0, 40, 80, 120]
    assert repair([0, 40, 80, 20])[0] == [0, 40, 80, 120]


@given(st.lists(st.one_of(st.none(), st.integers(-(1 << 40), 1 << 40)), max_size=60))
def test_timestamps_always_rise(stamps: list[int | None]) -> None:
    result, _ = repair(stamps)
    assert all(later > earlier for earlier, later in pairwise(result))


def test_span_is_the_same_for_all_time_bases() -> None:
    span = Span(Fraction(1), Fraction(1, 2), origin=Fraction(1, 10))
    assert not span.whole
    for unit in (Fraction(1, 25), Fraction(1, 1000), Fraction(1, 48_000), Fraction(1001, 30_000)):
        inside = [stamp for stamp in range(int(3 / unit)) if span.contains(stamp, unit)]
        assert Fraction(11, 10) <= inside[0] * unit < Fraction(11, 10) + unit
        assert Fraction(16, 10) - unit <= inside[-1] * unit < Fraction(16, 10)
        assert span.ended(inside[-1] + 1, unit)


def test_chapters_are_cut_to_the_span() -> None:
    span = Span(Fraction(1), Fraction(2))
    unit = Fraction(1, 1000)
    assert span.clip(0, 900, unit) is None
    assert span.clip(0, 1500, unit) == (0, 500)
    assert span.clip(2500, 9000, unit) == (1500, 2000)
    assert span.clip(3000, 4000, unit) is None
    assert Span(Fraction(0), None).clip(5, 9, unit) == (5, 9)
