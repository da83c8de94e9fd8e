"""Latest-frame queue: order, dropped frames, closing."""

from __future__ import annotations

import threading

import pytest
from live_doubles import INFO, frame

from rtseg.pipeline.frame_queue import MAX_WAITING_FRAMES, CapturedFrame, LatestFrameQueue

pytestmark = pytest.mark.timeout(180)


def test_queue_returns_latest_frame_and_counts_dropped() -> None:
    queue = LatestFrameQueue(1)
    for index in range(5):
        assert queue.put(CapturedFrame(0, frame(index), INFO))
    taken = queue.take()
    assert taken is not None
    assert taken.frame.index == 4
    assert (queue.captured, queue.counts(0)) == ([5], (0, 4))


def test_cameras_are_served_in_turn_at_any_frame_rate() -> None:
    queue = LatestFrameQueue(3)
    served = []
    for turn in range(6):
        for camera in (0, 0, 0, 1, 2):
            queue.put(CapturedFrame(camera, frame(turn), INFO))
        taken = queue.take()
        assert taken is not None
        served.append(taken.camera)
        queue.done(taken)
    assert served == [0, 1, 2, 0, 1, 2]


def test_every_frame_blocks_put_instead_of_dropping() -> None:
    queue = LatestFrameQueue(1, every_frame=True)
    more = MAX_WAITING_FRAMES + 5
    thread = threading.Thread(target=lambda: [queue.put(CapturedFrame(0, frame(i), INFO)) for i in range(more)])
    thread.start()
    seen = []
    for _ in range(more):
        taken = queue.take()
        assert taken is not None
        seen.append(taken.frame.index)
        queue.done(taken)
    thread.join(60)
    assert seen == list(range(more))
    assert queue.counts(0) == (0, more)


def test_take_skips_camera_with_frame_in_progress() -> None:
    queue = LatestFrameQueue(2)
    queue.put(CapturedFrame(0, frame(0), INFO))
    first = queue.take()
    queue.put(CapturedFrame(0, frame(1), INFO))
    queue.put(CapturedFrame(1, frame(0), INFO))
    other = queue.take()
    assert first is not None
    assert other is not None
    assert other.camera == 1
    more: list[CapturedFrame | None] = []
    thread = threading.Thread(target=lambda: more.append(queue.take()))
    thread.start()
    thread.join(0.2)
    assert not more, "taken while the previous frame was in progress"
    queue.done(first)
    thread.join(60)
    assert more[0] is not None
    assert (more[0].camera, more[0].frame.index) == (0, 1)


def test_close_unblocks_take_and_rejects_put() -> None:
    queue = LatestFrameQueue(2)
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.append(queue.take()))
    thread.start()
    queue.close()
    thread.join(60)
    assert ends == [None]
    assert not queue.put(CapturedFrame(0, frame(0), INFO))
    assert queue.captured == [0, 0]
    assert queue.counts(0) == queue.counts(1) == (0, 0)
