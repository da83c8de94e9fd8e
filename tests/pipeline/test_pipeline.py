"""The whole pipeline: order, independence of the number of threads, and failing or blocked stages."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from media import run_script
from pipeline_doubles import CollectingSink, NoiseSource, classes_by_brightness, processor

from rtseg.core.frame import ClassMap, Frame, ProcessedFrame
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.stats import Histogram, Stats
from rtseg.pipeline.pipeline import run


def rtseg_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rtseg-")]


def run_pipeline(source: NoiseSource, sink: CollectingSink, *, streams: int = 1) -> Stats:
    stats = Stats(CAMVID_CLASSES)
    run(source, processor(streams=streams), [sink, CollectingSink()], stats)
    return stats


@pytest.mark.parametrize("streams", [2, 5])
def test_result_does_not_depend_on_the_number_of_threads(streams: int) -> None:
    plain, threaded = CollectingSink(), CollectingSink()
    run_pipeline(NoiseSource(40), plain)
    run_pipeline(NoiseSource(40), threaded, streams=streams)
    assert len(plain.items) == len(threaded.items) == 40 + 14
    for one, other in zip(plain.items, threaded.items, strict=True):
        assert type(one) is type(other)
        if isinstance(one, ProcessedFrame) and isinstance(other, ProcessedFrame):
            assert one.frame.pts == other.frame.pts
            assert np.array_equal(one.classes, other.classes)
            for plane, expected in zip(one.rendered.planes, other.rendered.planes, strict=True):
                assert np.array_equal(plane, expected)


def test_frames_stay_in_order_when_later_ones_finish_first() -> None:
    sink, barrier = CollectingSink(), threading.Barrier(3, timeout=60)

    def slow_for_every_third(frame: Frame) -> ClassMap:
        barrier.wait()  # fails unless three frames are in the model at the same time
        time.sleep(0.02 * (frame.index % 3 == 0))
        return classes_by_brightness(frame)

    run(NoiseSource(30), processor(slow_for_every_third, 3), [sink], Stats(CAMVID_CLASSES))
    assert [item.frame.index for item in sink.items if isinstance(item, ProcessedFrame)] == list(range(30))


def test_packets_keep_their_position_between_frames() -> None:
    sink = CollectingSink()
    run_pipeline(NoiseSource(7), sink)
    order = [item.frame.index if isinstance(item, ProcessedFrame) else item.packet for item in sink.items]
    assert order == [0, "packet 0", 1, 2, 3, "packet 3", 4, 5, 6, "packet 6"]


def test_statistics_count_every_frame_and_name_the_slowest_stage() -> None:
    stats = Stats(CAMVID_CLASSES)

    def slow(frame: Frame) -> ClassMap:
        time.sleep(0.05)  # a busy machine makes the other stages slower too
        return classes_by_brightness(frame)

    run(NoiseSource(20), processor(slow), [CollectingSink()], stats)
    report = stats.report().to_dict()
    assert report["frames"] == {"read": 20, "segmented": 20, "written": 20, "dropped": 0, "corrupt": 0}
    assert report["bottleneck"] == "infer"
    assert report["stages"]["infer"]["p50"] >= 10
    assert report["latency_ms"]["p50"] >= 10
    assert sum(report["classes"].values()) == pytest.approx(1.0, abs=0.01)


def test_decoder_error_is_raised_in_the_caller() -> None:
    sink = CollectingSink()
    with pytest.raises(RuntimeError, match="the decoder broke"):
        run_pipeline(NoiseSource(20, fail_at=7), sink)
    assert sink.written == 7  # frames decoded before the error are written
    assert not rtseg_threads()


@pytest.mark.parametrize("streams", [1, 3])
def test_model_error_is_raised_in_the_caller(streams: int) -> None:
    def broken(frame: Frame) -> ClassMap:
        raise ValueError("the model broke")

    with pytest.raises(ValueError, match="the model broke"):
        run(NoiseSource(1000), processor(broken, streams), [CollectingSink()], Stats(CAMVID_CLASSES))
    assert not rtseg_threads()


def test_sink_error_stops_the_threads() -> None:
    with pytest.raises(OSError, match="the disk is full"):
        run_pipeline(NoiseSource(100_000), CollectingSink(fail_at=5))
    assert not rtseg_threads()


INTERRUPTED_RUN = """
import signal, time
from pipeline_doubles import CollectingSink, NoiseSource, processor
from rtseg.core import interrupts
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.core.stats import Stats
from rtseg.pipeline.pipeline import run

class InterruptedSink(CollectingSink):
    def write(self, item):
        if item.frame.index == 3:
            for _ in range(int(sys.argv[1])):
                signal.raise_signal(signal.SIGINT)
            time.sleep(float(sys.argv[2]))
        super().write(item)

signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.LONGEST_SECONDS = 0.5
sink = InterruptedSink()
try:
    run(NoiseSource(9), processor(), [sink], Stats(CAMVID_CLASSES))
except KeyboardInterrupt:
    print(sink.written, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize(("signals", "blocked_seconds", "written"), [(1, 0, 4), (2, 0, 3), (1, 100, 3)])
def test_interrupt_takes_effect_after_the_frame_is_written(signals: int, blocked_seconds: int, written: int) -> None:
    """An encoded packet is not lost between encoder and file; a blocked output is not waited for, or until a second Ctrl-C."""
    result = run_script(INTERRUPTED_RUN, signals, blocked_seconds)
    assert result.stdout.decode().split() == [str(written), "True"], result.stderr


def test_class_map_of_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="class map"):
        run(NoiseSource(5), processor(lambda frame: np.zeros(7, np.uint8)), [CollectingSink()], Stats(CAMVID_CLASSES))
    assert not rtseg_threads()


def test_blocked_source_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.pipeline.pipeline.JOIN_SECONDS", 0.2)
    source = NoiseSource(100, block_at=3)

    def wait_until_blocked(frame: Frame) -> ClassMap:
        deadline = time.monotonic() + 60
        while frame.index == 2 and not source.blocked and time.monotonic() < deadline:
            time.sleep(0.001)
        return classes_by_brightness(frame)

    with pytest.raises(OSError, match="full"):
        run(source, processor(wait_until_blocked), [CollectingSink(fail_at=2)], Stats(CAMVID_CLASSES))
    assert source.blocked, "the run waited for the source"
    source.close()


def test_decoder_is_ahead_of_a_blocked_sink_by_a_bounded_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.pipeline.pipeline.QUEUE_FRAMES", range(3, 4))
    stats = Stats(CAMVID_CLASSES)

    class BlockedSink(CollectingSink):
        def write(self, item: ProcessedFrame) -> None:
            time.sleep(0.2)  # frames that are read in this time are too many
            decoded.append(stats.frames.decoded)
            super().write(item)

    decoded: list[int] = []
    run(NoiseSource(10), processor(), [BlockedSink()], stats)
    assert decoded[0] <= 1 + 3 + 1  # one written, three waiting, one being put


def test_histogram_percentiles_are_within_one_percent() -> None:
    histogram = Histogram()
    values = np.random.default_rng(0).gamma(3.0, 0.005, 20_000)
    for value in values:
        histogram.add(float(value))
    for percent in (50, 95, 99):
        assert histogram.percentile_ms(percent) == pytest.approx(np.percentile(values, percent) * 1e3, rel=0.012)
    assert histogram.max_seconds == values.max()
