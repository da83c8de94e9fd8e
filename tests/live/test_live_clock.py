"""Timestamps of live sources: clock jumps, wrong and missing timestamps, gaps."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from live_server import RtspServer, TcpServer, encode_rtp, encode_ts, paced
from media import number_of
from test_live_sources import OpenRtsp, reconnecting, rising, take

from rtseg.io.inputs.live_clock import TIME_BASE, LiveClock


def test_pts_rise_after_stream_clock_is_set_back() -> None:
    chunks = [*encode_ts(20, start_seconds=100), *encode_ts(20, first=20, start_seconds=3)]
    with TcpServer(lambda _: paced(chunks, 2)) as server:
        source = reconnecting(server, [])
        frames = take(source, 40)
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert rising(frames)
    assert frames[0].pts == 0
    assert frames[-1].pts_seconds < 10
    assert source.warnings == (source.warnings[0],)
    size = float(source.warnings[0].partition("jumped once (")[2].partition(" s)")[0])
    assert size == pytest.approx(3 - 100 - 20 / 30, abs=2), "size of the jump"


@pytest.mark.parametrize("size", [-991.6, -2000.0, 30.0])
def test_rtsp_clock_set_back_is_reported_with_size(size: float) -> None:
    """RTP timestamps have 32 bits: FFmpeg treats a clock that is set far back as a wrap."""
    step = 90_000 // 30

    def stamp_of(number: int) -> int:
        return 3000 * 90_000 + number * step + (round(size * 90_000) if number >= 20 else 0)

    chunks = encode_rtp(40, stamp_of=stamp_of)
    with RtspServer(lambda _: paced(chunks, 2)) as server:
        source = reconnecting(server, [])
        frames = take(source, 40)
    assert rising(frames)
    assert frames[-1].pts_seconds < 10
    assert [warning.partition("once (")[2].partition(")")[0] for warning in source.warnings] == [f"{size:+.1f} s"]


def test_live_clock() -> None:
    clock = LiveClock()
    second = 1_000_000_000
    assert clock.place(Fraction(7), 10 * second) == 0
    assert clock.place(Fraction(15, 2), 10 * second + second // 2) == 45_000
    assert clock.place(None, 11 * second) == 90_000
    assert clock.place(Fraction(0), 12 * second) == 180_000, "set back: continued by the time that passed"
    assert clock.place(Fraction(-1, 10), 12 * second) == 180_001, "slightly back: one tick later"
    assert clock.place(Fraction(5000), 13 * second) == 180_001 + 90_000, "far ahead: continued by the time that passed"
    assert clock.place(Fraction(5000) + Fraction(1, 30), 13 * second) == 180_001 + 93_000
    assert clock.jumps == pytest.approx([-9.0, 4999.1], abs=0.01)
    clock.restart()
    assert clock.place(Fraction(77), 15 * second) == 273_001 + 2 * 90_000
    late = clock.place(Fraction(77) + Fraction(1, 30), 20 * second)
    assert late == 273_001 + 2 * 90_000 + 3000, "a delayed frame keeps the interval of the stream"


def place_at_30_fps(stamps: list[float | None]) -> tuple[list[float], LiveClock]:
    """Return the live timestamps in seconds of frames that arrive at 30 FPS with these stream timestamps."""
    clock = LiveClock()
    placed = [
        clock.place(None if stamp is None else Fraction(stamp).limit_denominator(90_000), index * 1_000_000_000 // 30)
        for index, stamp in enumerate(stamps)
    ]
    return [float(ticks * TIME_BASE) for ticks in placed], clock


@pytest.mark.parametrize("outlier", [-500.0, -3.0, 5.0, 40.0, 95_000.0])
@pytest.mark.parametrize("at", [0, 1, 15, 29])
def test_single_wrong_timestamp_is_ignored(outlier: float, at: int) -> None:
    stamps: list[float | None] = [7 + index / 30 for index in range(30)]
    stamps[at] = 7 + at / 30 + outlier
    placed, clock = place_at_30_fps(stamps)
    assert placed == pytest.approx([index / 30 for index in range(30)], abs=0.001)
    assert clock.jumps == []


@pytest.mark.parametrize("size", [-20.0, -2.0, 60.0])
def test_permanent_clock_jump_is_counted_once_with_its_size(size: float) -> None:
    stamps: list[float | None] = [7 + index / 30 + (size if index >= 15 else 0) for index in range(30)]
    placed, clock = place_at_30_fps(stamps)
    assert placed == pytest.approx([index / 30 for index in range(30)], abs=0.001)
    assert clock.jumps == pytest.approx([size], abs=0.001)


def test_lost_frames_are_a_gap_and_not_a_clock_jump() -> None:
    stamps: list[float | None] = [index / 30 + (5 if index >= 15 else 0) for index in range(30)]
    placed, clock = place_at_30_fps(stamps)
    assert placed[-1] == pytest.approx(29 / 30 + 5, abs=0.001), "the interval of the stream is kept"
    assert clock.jumps == []


def test_late_frames_do_not_hide_the_gap_behind_them() -> None:
    """The last 4 frames before a silence arrive behind it, one with each new frame, as from an encoder with B-frames."""
    clock, second = LiveClock(), 1_000_000_000
    stamps = [*range(30), *range(90, 120)]
    placed = [
        clock.place(Fraction(stamp, 30), (index if index < 26 else 64 + index) * second // 30)
        for index, stamp in enumerate(stamps)
    ]
    assert [float(ticks * TIME_BASE) for ticks in placed] == pytest.approx([stamp / 30 for stamp in stamps])
    assert clock.jumps == []


def test_frames_after_a_stall_keep_the_intervals_of_the_stream() -> None:
    """The network holds 3 s of frames, which then arrive in a burst; later the sender's clock jumps."""
    clock, second = LiveClock(), 1_000_000_000
    arrivals = [max(index / 30, 4 + index / 300) if index >= 30 else index / 30 for index in range(300)]
    placed = [clock.place(Fraction(index, 30), int(at * second)) for index, at in enumerate(arrivals)]
    assert [float(ticks * TIME_BASE) for ticks in placed] == pytest.approx([index / 30 for index in range(300)])
    jumped = [clock.place(Fraction(9000 + index, 30), (300 + index) * second // 30) for index in range(5)]
    assert float(jumped[-1] * TIME_BASE) == pytest.approx(304 / 30, abs=0.01)


def test_missing_timestamps_are_not_clock_jumps() -> None:
    stamps: list[float | None] = [None if index % 5 == 0 else 900 + index / 30 for index in range(30)]
    placed, clock = place_at_30_fps(stamps)
    assert placed == pytest.approx([index / 30 for index in range(30)], abs=0.001)
    assert clock.jumps == []


def test_rtsp_stream_without_clock_jump_has_no_warning() -> None:
    chunks = encode_rtp(40, size=(320, 192))
    with OpenRtsp(lambda _: paced(chunks)) as server:
        source = reconnecting(server, [])
        frames = take(source, 30)
    assert source.warnings == ()
    assert rising(frames)
    steps = [after.pts_seconds - before.pts_seconds for before, after in itertools.pairwise(frames)]
    assert steps == pytest.approx([1 / 30] * 29, abs=0.001)
