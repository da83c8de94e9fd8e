"""The road as a whole: order, equality with the plain loop, and what happens when a stage fails or nobody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pipeline_doubles import DrawnSource, Keeper, by_brightness, overlay

from rtseg.core.frame import ClassMap, Frame, SegmentedFrame
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.stats import Histogram, Stats
from rtseg.io.outputs.null import NullSink
from rtseg.pipeline.pipeline import run
from rtseg.pipeline.prefetch import Prefetcher

pytestmark = pytest.mark.timeout(180)


def rtseg_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rtseg-")]


def go(source: DrawnSource, sink: Keeper, *, threads: bool = True, streams: int = 1) -> Stats:
    stats = Stats(CAMVID_CLASSES)
    run(source, by_brightness, overlay(), [sink, NullSink()], stats, threads=threads, streams=streams)
    return stats


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_threads_change_nothing_bit_for_bit(streams: int) -> None:
    plain, threaded = Keeper(), Keeper()
    go(DrawnSource(40), plain, threads=False)
    go(DrawnSource(40), threaded, streams=streams)
    assert len(plain.items) == len(threaded.items) == 40 + 14
    for one, other in zip(plain.items, threaded.items, strict=True):
        assert type(one) is type(other)
        if isinstance(one, SegmentedFrame) and isinstance(other, SegmentedFrame):
            assert one.frame.pts == other.frame.pts
            assert np.array_equal(one.classes, other.classes)
            for plane, same in zip(one.rendered.planes, other.rendered.planes, strict=True):
                assert np.array_equal(plane, same)


def test_frames_keep_their_order_where_later_ones_are_done_first() -> None:
    sink, waiting = Keeper(), threading.Barrier(3, timeout=60)

    def odd_ones_are_slow(frame: Frame) -> ClassMap:
        waiting.wait()  # three are in the model at the same time, or this breaks
        time.sleep(0.02 * (frame.index % 3 == 0))
        return by_brightness(frame)

    run(DrawnSource(30), odd_ones_are_slow, overlay(), [sink], Stats(CAMVID_CLASSES), streams=3)
    assert [item.frame.index for item in sink.items if isinstance(item, SegmentedFrame)] == list(range(30))


def test_packets_stay_between_the_frames_they_were_read_between() -> None:
    sink = Keeper()
    go(DrawnSource(7), sink)
    order = [item.frame.index if isinstance(item, SegmentedFrame) else item.packet for item in sink.items]
    assert order == [0, "packet 0", 1, 2, 3, "packet 3", 4, 5, 6, "packet 6"]


def test_statistics_count_every_frame_and_name_the_slow_stage() -> None:
    stats = Stats(CAMVID_CLASSES)

    def slow(frame: Frame) -> ClassMap:
        time.sleep(0.05)  # a busy machine makes the other stages slower too
        return by_brightness(frame)

    run(DrawnSource(20), slow, overlay(), [Keeper()], stats)
    told = stats.to_dict()
    assert told["frames"] == {"read": 20, "segmented": 20, "written": 20, "dropped": 0, "corrupt": 0}
    assert told["bottleneck"] == "infer"
    assert told["stages"]["infer"]["p50"] >= 10
    assert told["latency_ms"]["p50"] >= 10
    assert sum(told["classes"].values()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("threads", [True, False])
def test_a_failing_decoder_is_told_to_the_caller(threads: bool) -> None:
    sink = Keeper()
    with pytest.raises(RuntimeError, match="the decoder broke"):
        go(DrawnSource(20, fail_at=7), sink, threads=threads)
    assert sink.written == 7  # what was decoded before is not lost
    assert not rtseg_threads()


@pytest.mark.parametrize("streams", [1, 3])
def test_a_failing_model_is_told_to_the_caller(streams: int) -> None:
    def broken(frame: Frame) -> ClassMap:
        raise ValueError("the model broke")

    with pytest.raises(ValueError, match="the model broke"):
        run(DrawnSource(1000), broken, overlay(), [Keeper()], Stats(CAMVID_CLASSES), streams=streams)
    assert not rtseg_threads()


def test_a_failing_sink_stops_the_threads() -> None:
    with pytest.raises(OSError, match="the disk is full"):
        go(DrawnSource(100_000), Keeper(fail_at=5))
    assert not rtseg_threads()


def test_a_model_that_returns_a_wrong_shape_is_told() -> None:
    with pytest.raises(ValueError, match="class map"):
        run(DrawnSource(5), lambda frame: np.zeros(7, np.uint8), overlay(), [Keeper()], Stats(CAMVID_CLASSES))
    assert not rtseg_threads()


def test_a_source_that_blocks_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.pipeline.pipeline.JOIN_SECONDS", 0.2)
    source = DrawnSource(100, block_at=3)

    def until_it_blocks(frame: Frame) -> ClassMap:
        deadline = time.monotonic() + 60
        while frame.index == 2 and not source.blocked and time.monotonic() < deadline:
            time.sleep(0.001)
        return by_brightness(frame)

    with pytest.raises(OSError, match="full"):
        run(source, until_it_blocks, overlay(), [Keeper(fail_at=2)], Stats(CAMVID_CLASSES))
    assert source.blocked, "the run waited for it"
    source.close()


def test_ahead_makes_no_more_than_its_capacity() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = Prefetcher(count(), "count", capacity=3)
    assert next(ahead) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1  # one taken, three waiting, one in hand
    ahead.cancel()
    assert ahead.join(60)


def test_histogram_percentiles_are_within_one_percent() -> None:
    histogram = Histogram()
    values = np.random.default_rng(0).gamma(3.0, 0.005, 20_000)
    for value in values:
        histogram.add(float(value))
    for percent in (50, 95, 99):
        assert histogram.percentile_ms(percent) == pytest.approx(np.percentile(values, percent) * 1e3, rel=0.012)
    assert histogram.max_seconds == values.max()
