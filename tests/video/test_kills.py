"""Kills of running processes: a small number here; `make proofs` kills `rtseg video` and `rtseg live` 100 times each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kill_runs import Kind, kill_live, kill_video, segment_order
from kills import shares, table

pytestmark = pytest.mark.timeout(900)


def test_killed_video_is_playable_and_the_next_run_completes(tmp_path: Path) -> None:
    kind = Kind("video mp4", ".mp4", audio=True)
    kill_video(kind, 2, tmp_path, np.random.default_rng(1))
    assert kind.problems == []
    assert (kind.runs, kind.playable, kind.incomplete_finals, kind.resumed) == (2, 2, 0, True)


def test_killed_recording_keeps_its_complete_segments(tmp_path: Path) -> None:
    kind = Kind("live mkv segments", ".mkv", segments=True)
    kill_live(kind, 1, tmp_path, np.random.default_rng(1))
    assert kind.problems == []
    assert (kind.runs, kind.playable, kind.incomplete_finals, kind.resumed) == (1, 1, 0, True)


def test_segments_are_sorted_by_recording_time() -> None:
    names = ["out-20261122T144013Z.partial.mp4", "out-20261122T144012Z-2.mp4", "out-20261122T144012Z.mp4"]
    assert [path.name for path in sorted(map(Path, names), key=segment_order)] == names[::-1]


def test_kills_are_distributed_evenly() -> None:
    assert list(shares(100, 8)) == [13, 13, 13, 13, 12, 12, 12, 12]


def test_table_shows_failures() -> None:
    kind = Kind("video ts", ".ts", runs=3, playable=2, lost=[0.5, 1.0, 3.0], incomplete_finals=1)
    assert table([kind]).splitlines()[1].split() == ["video", "ts", "3", "2", "1.0", "3.0", "none", "1", "FAILS"]
