"""A fixed number of mutated files in the suite; `make fuzz` runs many more."""

from __future__ import annotations

import pytest
from fuzz_media import fuzz


@pytest.mark.timeout(300)
def test_mutated_files_end_as_a_proven_video_or_as_one_line() -> None:
    kinds, failures = fuzz(cases=66, seed=1, keep=None)
    assert failures == []
    assert set(kinds) <= {"ok", "refused"}
    assert kinds["ok"] >= 20
