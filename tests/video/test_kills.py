"""A few kills in the suite; `make proofs` does 100 of `rtseg video` and 100 of `rtseg live`, and ends with a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kill_runs import Kind, kill_live, kill_video, segment_order
from kills import shares, table

pytestmark = pytest.mark.timeout(900)


def test_a_killed_video_leaves_a_playable_rest_and_the_next_run_completes(tmp_path: Path) -> None:
    kind = Kind("video mp4", ".mp4", audio=True)
    kill_video(kind, 2, tmp_path, np.random.default_rng(1))
    assert kind.problems == []
    assert (kind.runs, kind.playable, kind.incomplete_finals, kind.resumed) == (2, 2, 0, True)


def test_a_killed_recording_keeps_its_complete_segments(tmp_path: Path) -> None:
    kind = Kind("live mkv segments", ".mkv", segments=True)
    kill_live(kind, 1, tmp_path, np.random.default_rng(1))
    assert kind.problems == []
    assert (kind.runs, kind.playable, kind.incomplete_finals, kind.resumed) == (1, 1, 0, True)


def test_segments_are_put_in_the_order_of_their_recording() -> None:
    names = ["out-20261122T144013Z.partial.mp4", "out-20261122T144012Z-2.mp4", "out-20261122T144012Z.mp4"]
    assert [path.name for path in sorted(map(Path, names), key=segment_order)] == names[::-1]


def test_all_kinds_get_their_share_of_the_kills() -> None:
    assert list(shares(100, 8)) == [13, 13, 13, 13, 12, 12, 12, 12]


def test_the_table_names_what_went_wrong() -> None:
    kind = Kind("video ts", ".ts", runs=3, playable=2, lost=[0.5, 1.0, 3.0], incomplete_finals=1)
    assert table([kind]).splitlines()[1].split() == ["video", "ts", "3", "2", "1.0", "3.0", "none", "1", "FAILS"]
