"""Time stamps that rise, and the part of a recording that was asked for."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rtseg.sources.timeline import Span, Timeline


def placed(stamps: list[int | None], guesses: list[int | None] | None = None) -> tuple[list[int], Timeline]:
    timeline = Timeline(nominal=40, second=1000)
    return [
        timeline.place(stamp, guess) for stamp, guess in zip(stamps, guesses or [None] * len(stamps), strict=True)
    ], timeline


def test_rising_stamps_are_kept() -> None:
    stamps, timeline = placed([-80, 0, 1, 2000, 1 << 50])
    assert stamps == [-80, 0, 1, 2000, 1 << 50]
    assert timeline.warnings("frames") == ()


def test_missing_stamps_come_from_the_guess_or_the_rate() -> None:
    stamps, timeline = placed([None, None, None, 200], [10, 50, None, None])
    assert stamps == [10, 50, 90, 200]
    assert timeline.warnings("frames") == ("frames without a time stamp: 1, set from the rate",)


def test_small_steps_backwards_move_one_stamp_and_not_the_rest() -> None:
    stamps, timeline = placed([0, 40, 40, 30, 120])
    assert stamps == [0, 40, 41, 42, 120]
    assert timeline.backwards == 2
    assert "2, moved just behind" in timeline.warnings("frames")[0]


def test_a_clock_set_back_moves_all_that_follows() -> None:
    stamps, timeline = placed([5000, 5040, 0, 40, 100])
    assert stamps == [5000, 5040, 5080, 5120, 5180]
    assert timeline.jumps == 1


@given(st.lists(st.one_of(st.none(), st.integers(-(1 << 40), 1 << 40)), max_size=60))
def test_stamps_always_rise(stamps: list[int | None]) -> None:
    result, _ = placed(stamps)
    assert all(later > earlier for earlier, later in pairwise(result))


def test_a_span_is_the_same_for_all_streams() -> None:
    span = Span(Fraction(1), Fraction(1, 2), origin=Fraction(1, 10))
    assert not span.whole
    for unit in (Fraction(1, 25), Fraction(1, 1000), Fraction(1, 48_000), Fraction(1001, 30_000)):
        inside = [stamp for stamp in range(int(3 / unit)) if span.holds(stamp, unit)]
        assert abs(inside[0] * unit - Fraction(11, 10)) <= unit / 2
        assert abs(inside[-1] * unit + unit - Fraction(16, 10)) <= unit / 2
        assert span.ended(inside[-1] + 1, unit)


def test_chapters_are_cut_to_the_span() -> None:
    span = Span(Fraction(1), Fraction(2))
    unit = Fraction(1, 1000)
    assert span.clip(0, 900, unit) is None
    assert span.clip(0, 1500, unit) == (0, 500)
    assert span.clip(2500, 9000, unit) == (1500, 2000)
    assert span.clip(3000, 4000, unit) is None
    assert Span(Fraction(0), None).clip(5, 9, unit) == (5, 9)
