"""Threads that give way to the others of the process."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

import pytest
from media import info, item, made_frame

from rtseg.core.cpu import run_with_low_priority, without_real_time_priority
from rtseg.inference import open_backend
from rtseg.io.outputs.video import VideoSink

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")


def niceness(thread: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread or threading.get_native_id())


def of_all_threads() -> dict[int, int]:
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            found[int(task.name)] = niceness(int(task.name))
    return found


@linux
def test_what_is_called_and_the_threads_it_starts_give_way_and_nobody_else() -> None:
    before, seen = niceness(), []

    def work(text: str) -> str:
        seen.append(niceness())
        thread = threading.Thread(target=lambda: seen.append(niceness()))
        thread.start()
        thread.join()
        return text.upper()

    assert run_with_low_priority(work, "done") == "DONE"
    assert seen == [min(19, before + 5)] * 2
    assert niceness() == before


def test_what_it_raises_comes_to_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_with_low_priority(lambda: 1 // 0)


@linux
def test_where_priorities_are_forbidden_it_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert run_with_low_priority(str.upper, "done") == "DONE"


def test_another_system_just_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run_with_low_priority(threading.get_ident) == threading.get_ident()


@linux
@pytest.mark.parametrize("streams", [1, 2])
def test_openvino_gives_way_where_it_computes_several_pictures_at_once(streams: int) -> None:
    before = of_all_threads()
    backend = open_backend("openvino", MODEL, size=(64, 48), streams=streams)
    new = [nice for thread, nice in of_all_threads().items() if thread not in before]
    backend.close()
    assert any(nice > niceness() for nice in new) == (streams > 1)
    assert niceness() == before[threading.get_native_id()]


# Real-time priority


def of_real_time() -> list[int]:
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    return [task for task in tasks if os.sched_getscheduler(task) != os.SCHED_OTHER]


@linux
def test_real_time_priority_that_a_library_takes_is_undone() -> None:
    """For the calling thread and for threads that were started meanwhile."""
    go, threads = threading.Event(), []

    def library() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        threads.append(threading.Thread(target=go.wait, args=(60,)))
        threads[0].start()

    try:
        with without_real_time_priority():
            library()
            assert len(of_real_time()) == 2
    except PermissionError:
        pytest.skip("this user may not set real-time priority, so no library can either")
    left = of_real_time()
    go.set()
    threads[0].join()
    assert left == []


@linux
def test_svt_av1_computes_without_real_time_priority(tmp_path: Path) -> None:
    """As root, SVT-AV1 would put every thread that is started after it, and every child process, above all others."""
    sink = VideoSink(tmp_path / "out.mp4", info(), size=(96, 64), codec="libsvtav1", preset="12")
    sink.write(item(made_frame(0)))
    left = of_real_time()
    sink.close()
    assert left == []
