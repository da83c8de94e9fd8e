"""Queues between threads: order, policies, cameras in turn, closing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from rtseg.pipeline.frame_queue import CameraQueues, FrameQueue


def camera_queues(cameras: int) -> tuple[CameraQueues[int], list[tuple[int, int]]]:
    dropped: list[tuple[int, int]] = []
    return CameraQueues(cameras, 1, "latest", lambda camera, item: dropped.append((camera, item))), dropped


def test_latest_queue_returns_latest_item_and_reports_dropped() -> None:
    dropped: list[int] = []
    queue: FrameQueue[int] = FrameQueue(1, "latest", on_drop=dropped.append)
    assert all(queue.put(number) for number in range(5))
    assert queue.get() == 4
    assert dropped == [0, 1, 2, 3]


def test_block_queue_blocks_put_instead_of_dropping() -> None:
    dropped: list[int] = []
    queue: FrameQueue[int] = FrameQueue(3, on_drop=dropped.append)
    thread = threading.Thread(target=lambda: [queue.put(number) for number in range(9)])
    thread.start()
    thread.join(0.2)
    assert len(queue) == 3
    assert [queue.get() for _ in range(9)] == list(range(9))
    thread.join(60)
    assert dropped == []


def test_closed_queue_ends_after_its_last_item() -> None:
    queue: FrameQueue[int] = FrameQueue(3)
    queue.put(1)
    queue.close()
    assert not queue.put(2)
    assert (queue.ended, queue.get(), queue.ended, queue.get()) == (False, 1, True, None)


def test_close_with_discard_drops_waiting_items_and_unblocks_both_ends() -> None:
    dropped: list[int] = []
    full: FrameQueue[int] = FrameQueue(1, on_drop=dropped.append)
    empty: FrameQueue[int] = FrameQueue(1)
    full.put(1)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(full.put(2))),
        threading.Thread(target=lambda: results.append(empty.get())),
    ]
    for thread in threads:
        thread.start()
        thread.join(0.1)
    for queue in (full, empty):
        queue.close(discard=True)
    for thread in threads:
        thread.join(60)
    assert sorted(map(str, results)) == ["False", "None"]
    assert dropped == [1]


def test_cameras_are_served_in_turn_at_any_frame_rate() -> None:
    queues, _ = camera_queues(3)
    served = []
    for turn in range(6):
        for camera in (0, 0, 0, 1, 2):
            queues.put(camera, turn)
        taken = queues.take()
        assert taken is not None
        served.append(taken[0])
        queues.done(taken[0])
    assert served == [0, 1, 2, 0, 1, 2]


def test_take_skips_camera_with_frame_in_progress() -> None:
    queues, _ = camera_queues(2)
    queues.put(0, 10)
    assert queues.take() == (0, 10)
    queues.put(0, 11)
    queues.put(1, 20)
    assert queues.take() == (1, 20)
    more: list[object] = []
    thread = threading.Thread(target=lambda: more.append(queues.take()))
    thread.start()
    thread.join(0.2)
    assert not more, "taken while the previous frame was in progress"
    queues.done(0)
    thread.join(60)
    assert more == [(0, 11)]


def test_take_ends_when_all_cameras_are_closed() -> None:
    queues, dropped = camera_queues(2)
    queues.put(1, 5)
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.extend([queues.take(), queues.take()]))
    thread.start()
    queues.close(0)
    queues.close(discard=True)
    thread.join(60)
    assert ends in ([(1, 5), None], [None, None])
    assert (dropped == [(1, 5)]) == (ends[0] is None)
    assert not queues.put(0, 6)


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_take_misses_no_item_that_is_put_during_its_search() -> None:
    queues, _ = camera_queues(8)
    taken = threading.Semaphore(0)

    def take_all() -> None:
        while (entry := queues.take()) is not None:
            queues.done(entry[0])
            taken.release()

    thread = threading.Thread(target=take_all, daemon=True)
    thread.start()
    for number in range(5000):  # each is put while the search for the next one begins
        queues.put(number % 8, number)
        assert taken.acquire(timeout=60), f"item {number} was missed"
    queues.close()
    thread.join(60)
