"""Tests of thread priorities."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

import pytest
from command import MODEL
from media import info, item, numbered_frame, video_sink

from rtseg.core.cpu import run_with_low_priority, without_real_time_priority
from rtseg.inference import open_backend

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has per-thread priorities")


def niceness(thread: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread or threading.get_native_id())


def niceness_of_all_threads() -> dict[int, int]:
    result = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            result[int(task.name)] = niceness(int(task.name))
    return result


@linux
def test_function_and_its_threads_run_with_low_priority() -> None:
    before, observed = niceness(), []

    def work(text: str) -> str:
        observed.append(niceness())
        thread = threading.Thread(target=lambda: observed.append(niceness()))
        thread.start()
        thread.join()
        return text.upper()

    assert run_with_low_priority(work, "done") == "DONE"
    assert observed == [min(19, before + 5)] * 2
    assert niceness() == before


def test_exception_of_the_function_is_raised_to_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_with_low_priority(lambda: 1 // 0)


@linux
def test_function_runs_if_changing_the_priority_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert run_with_low_priority(str.upper, "done") == "DONE"


def test_function_is_called_directly_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run_with_low_priority(threading.get_ident) == threading.get_ident()


@linux
@pytest.mark.parametrize("streams", [1, 2])
def test_openvino_has_low_priority_with_several_streams(streams: int) -> None:
    before = niceness_of_all_threads()
    backend = open_backend("openvino", MODEL, size=(64, 48), streams=streams)
    new = [nice for thread, nice in niceness_of_all_threads().items() if thread not in before]
    backend.close()
    assert any(nice > niceness() for nice in new) == (streams > 1)
    assert niceness() == before[threading.get_native_id()]


# Real-time priority


def real_time_threads() -> list[int]:
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    return [task for task in tasks if os.sched_getscheduler(task) != os.SCHED_OTHER]


@linux
def test_real_time_priority_set_by_a_library_is_reset() -> None:
    """Check the calling thread and threads that were started in the block."""
    stop, threads = threading.Event(), []

    def library() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        threads.append(threading.Thread(target=stop.wait, args=(60,)))
        threads[0].start()

    try:
        with without_real_time_priority():
            library()
            assert len(real_time_threads()) == 2
    except PermissionError:
        pytest.skip("this user may not set real-time priority, so no library can either")
    remaining = real_time_threads()
    stop.set()
    threads[0].join()
    assert remaining == []


@linux
def test_svt_av1_encodes_without_real_time_priority(tmp_path: Path) -> None:
    """As root, SVT-AV1 would give real-time priority to all threads and child processes that are started later."""
    sink = video_sink(tmp_path / "out.mp4", info(), size=(96, 64), codec="libsvtav1", preset="12")
    sink.write(item(numbered_frame(0)))
    remaining = real_time_threads()
    sink.close()
    assert remaining == []
