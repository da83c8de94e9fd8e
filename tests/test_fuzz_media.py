"""A fixed number of mutated files in the suite; `make fuzz` runs many more."""

from __future__ import annotations

import pytest
from fuzz_media import GROWTH_MIB, fuzz, growth


@pytest.mark.timeout(300)
def test_mutated_files_end_as_a_proven_video_or_as_one_line() -> None:
    outcome = fuzz(cases=66, seed=1, keep=None)
    assert outcome.failures == []
    assert set(outcome.kinds) <= {"ok", "refused"}
    assert outcome.kinds["ok"] >= 20
    assert len(outcome.growth_mib) == 1


def test_a_leak_is_seen_and_what_settles_is_not() -> None:
    settling = [100 + min(case, 25) for case in range(200)]
    assert growth(settling) == 0
    leaking = [100 + 0.15 * case for case in range(200)]
    assert growth(leaking) > GROWTH_MIB
    assert growth(settling[:40]) is None
