"""A fixed number of changed files in the suite; `make fuzz` runs many more. And what the fuzzer's own checks see."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fuzz_boxes import change_mp4, parse
from fuzz_cases import case
from fuzz_check import differences
from fuzz_child import run_case
from fuzz_media import GROWTH_MIB, fuzz, growth
from fuzz_reading import InputOptions, LiveFrame, Track, read
from fuzz_seeds import REAR, seeds
from fuzz_stamps import CHANGES


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.timeout(900)
def test_changed_files_show_what_plain_ffmpeg_shows_or_end_in_one_line() -> None:
    outcome = fuzz(cases=120, seed=1, keep=None)
    assert outcome.failures == []
    assert outcome.kinds["ok"] + outcome.kinds["repaired"] >= 60
    assert outcome.families["healthy ok"] + outcome.families["healthy repaired"] == 20
    assert len(outcome.growth_mib) == 1


# Files that ended wrong although the report called them right: several edits of one track (1324, 9364), another camera behind an
# edit list (1687, 1855, 6119), a wrong stamp behind a gap (5182), a joint with a recording of another pace (4065, 6372), a stream
# that steps back alone (6758, 8725), a late packet of audio (13712), equal decoding times (1762), frames behind damage
# (10036, 10108, 12962, 14322), audio that jitters (414, 543), frames closer than the output's ticks beside damage (10675).
ONCE_WRONG = [
    1324,
    9364,
    1687,
    1855,
    6119,
    5182,
    4065,
    6372,
    6758,
    8725,
    13712,
    1762,
    10036,
    10108,
    12962,
    14322,
    10675,
    3274,
    11233,
    12898,
    2850,
    414,
    543,
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", ONCE_WRONG)
def test_files_that_once_ended_wrong(files: list[Path], tmp_path: Path, number: int) -> None:
    kind, line, _ = run_case(case(files, 1, number), tmp_path, number)
    assert kind in ("ok", "repaired", "broken"), line


@pytest.mark.timeout(400)
def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    assert sum(fuzz(cases=1, seed=1, keep=tmp_path).kinds.values()) == 1
    done_file = tmp_path / "done-1.json"
    done = json.loads(done_file.read_text())
    done["0+1"]["kinds"] = {"ok": 77}
    done_file.write_text(json.dumps(done))
    assert fuzz(cases=1, seed=1, keep=tmp_path).kinds == {"ok": 77}  # what is kept counts as done
    done_file.write_text(json.dumps({**done, "code": "other"}))
    assert sum(fuzz(cases=1, seed=1, keep=tmp_path).kinds.values()) == 1  # but not what other code found


def test_a_leak_is_seen_and_what_settles_is_not() -> None:
    settling = [100 + min(case_, 25) for case_ in range(200)]
    assert growth(settling) == 0
    leaking = [100 + 0.15 * case_ for case_ in range(200)]
    assert growth(leaking) > GROWTH_MIB
    assert growth([100.0] * 120 + [130.0] * 80) == 0  # one case that needed more
    assert growth(settling[:40]) is None


# The reading


def test_the_reading_sees_each_frame_at_its_time(files: list[Path]) -> None:
    for path in files:
        told = read(path, largest=True)
        count = len(told.frames)
        drawn = [255 - number if path.name.startswith(REAR) else number for number in range(count)]
        assert [frame.number for frame in told.frames] == drawn, path.name
        times = [frame.time for frame in told.frames]
        if path.name.startswith(("plain.gif", "uneven", "fragments", "plain.avi")) or None in times:
            continue  # 10 a second, uneven, and begun by their muxers with a longer step
        steps = {
            round(float(now - last), 3)  # type: ignore[operator]
            for last, now in itertools.pairwise(times)
        }
        assert steps == {0.04}, path.name


def _made(times: Sequence[float], sound: Sequence[float] = (), numbers: Sequence[int] | None = None) -> InputOptions:
    told = InputOptions("matroska,webm")
    drawn = range(len(times)) if numbers is None else numbers
    told.frames = [
        LiveFrame(number, Fraction(time).limit_denominator(1000)) for number, time in zip(drawn, times, strict=True)
    ]
    if sound:
        packets = [bytes([number]) for number in range(len(sound))]
        at = [Fraction(time).limit_denominator(1000) for time in sound]
        told.tracks = [Track(1, "audio", "aac", True, packets, times=list(at))]  # type: ignore[arg-type]
    return told


EVEN = [0.04 * number for number in range(20)]
SOUND = [0.02 * number for number in range(40)]


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (_made(EVEN[:-1], SOUND), "frames: 20 shown by the input, 19"),
        (_made(EVEN, SOUND, [*range(9), 10, 9, *range(11, 20)]), "in place 9 the input shows number 9, the output 10"),
        (_made([*EVEN[:10], 0.41, *EVEN[11:]], SOUND), "frame 10 of 20 is 10.0 ms off"),
        (_made(EVEN, [time + 0.03 for time in SOUND]), "moved by +30 ms"),
        (_made(EVEN, [*SOUND[:30], *[time + 0.05 for time in SOUND[30:]]]), "packet 30 of 40 of audio 1 moved by +50"),
        (_made(EVEN, SOUND[:-1]), "40 packets in, 39 out"),
        (_made(EVEN), "aac is not in the output"),
    ],
)
def test_what_differs_is_named(after: InputOptions, word: str) -> None:
    assert (
        differences(
            _made(EVEN, SOUND), _made([t + 5 for t in EVEN], [t + 5 for t in SOUND]), said=False, left_out=False
        )
        == []
    )
    assert word in "; ".join(differences(_made(EVEN, SOUND), after, said=False, left_out=False))


def test_a_jump_that_moved_sound_and_picture_apart_is_seen_though_it_was_reported() -> None:
    late = [*EVEN, *(time + 100 for time in EVEN)]
    sound = [*SOUND, *(time + 100 for time in SOUND)]
    joined = [*EVEN, *(time + 0.8 for time in EVEN)]
    together = _made(joined, [*SOUND, *(time + 0.8 for time in SOUND)])
    apart = _made(joined, [*SOUND, *(time + 0.84 for time in SOUND)])
    before = _made(late, sound)
    assert differences(before, together, said=True, left_out=False) == []
    assert "in stretch 1 of 2 audio 1 moved by +40 ms" in differences(before, apart, said=True, left_out=False)[0]
    assert differences(before, together, said=False, left_out=False) != []  # without a word it is wrong


def test_one_wrong_time_must_not_move_its_neighbors() -> None:
    outlier = _made([*EVEN[:5], 0.9, *EVEN[6:]], SOUND)
    squeezed = _made([*EVEN[:5], *(0.9 + 0.001 * place for place in range(15))], SOUND)
    assert differences(outlier, _made(EVEN, SOUND), said=True, left_out=False) == []
    assert "40 ms apart in the input, 1 ms" in "; ".join(differences(outlier, squeezed, said=True, left_out=False))


# The changes


def test_a_case_is_the_same_whoever_asks(files: list[Path]) -> None:
    for number in range(len(files), len(files) + 40):
        assert case(files, 3, number) == case(files, 3, number)


def test_boxes_are_written_as_they_were_read(files: list[Path]) -> None:
    for path in files:
        if path.suffix in (".mp4", ".mov"):
            data = path.read_bytes()
            assert b"".join(box.encode() for box in parse(data)) == data


def test_changed_tables_stay_readable_and_change_what_is_shown(files: list[Path], tmp_path: Path) -> None:
    source = next(path for path in files if path.name == "b-frames.mp4")  # its index stands before its data
    random = np.random.default_rng(0)
    rendered = set()
    for number in range(200):
        told, data = change_mp4(source.read_bytes(), random)
        if told.startswith("vide elst") and told.endswith("]") and told.count("elst") == 1:
            path = tmp_path / f"{number}.mp4"
            path.write_bytes(data)
            rendered.add(len(read(path, largest=True).frames))
    assert len(rendered) > 2


def test_changed_stamps_are_read_as_they_were_written(files: list[Path], tmp_path: Path) -> None:
    for name in ("plain.ts", "plain.mkv"):
        source = next(path for path in files if path.name == name)
        healthy = read(source, largest=True)
        for seed in range(1000):
            told, data = CHANGES[source.suffix](source.read_bytes(), np.random.default_rng(seed))
            if told.startswith("offset +0.90"):
                break
        path = tmp_path / name
        path.write_bytes(data)
        moved = read(path, largest=True)
        gaps = {
            round(float(b.time - a.time), 3)  # type: ignore[operator]
            for a, b in zip(healthy.frames, moved.frames, strict=True)
        }
        assert gaps == {0.9}, told
