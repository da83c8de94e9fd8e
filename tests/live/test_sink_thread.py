"""Sink threads: dropped frames, failed sinks, blocking."""

from __future__ import annotations

import numpy as np
import pytest
from live_doubles import INFO, CollectingSink, frame, wait_until

from rtseg.core.frame import ProcessedFrame
from rtseg.live.sink_thread import SinkThread


def item(index: int) -> ProcessedFrame:
    return ProcessedFrame(frame(index), np.zeros((2, 2), np.uint8), frame(index), INFO)


def test_slow_sink_gets_latest_frame_and_counts_dropped() -> None:
    sink = CollectingSink(blocks=True)
    sink_thread = SinkThread(sink)
    results: list[float | None] = []
    sink_thread.offer(item(0), results.append)
    wait_until(lambda: not sink_thread._queue)
    for index in range(1, 10):
        sink_thread.offer(item(index), results.append)
    sink.go.set()
    sink_thread.finish()
    assert sink_thread.join(60)
    assert [each.frame.index for each in sink.items] == [0, 9]
    assert (sink_thread.written, sink_thread.dropped, len(results)) == (2, 8, 10)
    assert sink.ended == "closed"


def test_failed_sink_is_aborted_and_its_frames_count_as_dropped(caplog: pytest.LogCaptureFixture) -> None:
    sink = CollectingSink(fail_at=1)
    sink_thread = SinkThread(sink, capacity=100)
    results: list[float | None] = []
    for index in range(5):
        sink_thread.offer(item(index), results.append)
    assert sink_thread.join(60)
    sink_thread.offer(item(9), results.append)
    assert (sink_thread.written, sink_thread.dropped) == (1, 5)
    assert [seconds is None for seconds in results].count(True) == 5
    assert caplog.messages == ["sink has failed and gets no more frames: no space left on device"]
    assert sink_thread.failure == "sink: no space left on device"
    assert sink.ended == "aborted"


def test_blocking_offer_waits_for_space_but_not_for_failed_sink() -> None:
    sink = CollectingSink(fail_at=6)
    sink_thread = SinkThread(sink, capacity=2, block_when_full=True)
    for index in range(12):
        sink_thread.offer(item(index), lambda _: None)
    assert sink_thread.join(60)
    assert [each.frame.index for each in sink.items] == list(range(6))
    assert (sink_thread.written, sink_thread.dropped) == (6, 6)
