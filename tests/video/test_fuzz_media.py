"""Media fuzzing: a fixed number of modified files (`make fuzz` runs many more), and tests of the fuzzer's own checks."""

from __future__ import annotations

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
from fuzz_reading import FrameRecord, Reading, Track, read
from fuzz_seeds import REAR, seeds
from fuzz_stamps import CHANGES


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.timeout(900)
def test_modified_files_match_plain_ffmpeg_or_end_with_one_line() -> None:
    outcome = fuzz(cases=120, seed=1, keep=None)
    assert outcome.failures == []
    assert outcome.kinds["ok"] + outcome.kinds["repaired"] >= 60
    assert outcome.families["healthy ok"] + outcome.families["healthy repaired"] == 20
    assert len(outcome.growth_mib) == 1


FORMER_FAILURES = {
    "several edits of one track": (1324, 9364),
    "another video stream with an edit list": (1687, 1855, 6119),
    "a wrong timestamp after a gap": (5182,),
    "concatenation with a recording of another frame rate": (4065, 6372),
    "a backward step of one stream only": (6758, 8725),
    "a late audio packet": (13712,),
    "equal decoding times": (1762,),
    "frames after damage": (10036, 10108, 12962, 14322),
    "frames closer than the output's time base next to damage": (10675,),
    "audio jitter": (414, 543),
    "others": (3274, 11233, 12898, 2850),
}
"""Cases with a wrong output that the fidelity report did not detect."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [number for numbers in FORMER_FAILURES.values() for number in numbers])
def test_former_failures_are_detected_or_correct(files: list[Path], tmp_path: Path, number: int) -> None:
    kind, line, _ = run_case(case(files, 1, number), tmp_path, number)
    assert kind in ("ok", "repaired", "broken"), line


@pytest.mark.timeout(400)
def test_stopped_fuzzing_run_is_continued(tmp_path: Path) -> None:
    assert sum(fuzz(cases=1, seed=1, keep=tmp_path).kinds.values()) == 1
    done_file = tmp_path / "done-1.json"
    done = json.loads(done_file.read_text())
    done["0+1"]["kinds"] = {"ok": 77}
    done_file.write_text(json.dumps(done))
    assert fuzz(cases=1, seed=1, keep=tmp_path).kinds == {"ok": 77}  # stored results are reused
    done_file.write_text(json.dumps({**done, "code": "other"}))
    assert sum(fuzz(cases=1, seed=1, keep=tmp_path).kinds.values()) == 1  # but not those of other code


def test_growth_detects_a_leak_but_not_a_warm_up() -> None:
    warm_up = [100 + min(case_, 25) for case_ in range(200)]
    assert growth(warm_up) == 0
    leak = [100 + 0.15 * case_ for case_ in range(200)]
    assert growth(leak) > GROWTH_MIB
    assert growth([100.0] * 120 + [130.0] * 80) == 0  # one case that needs more memory
    assert growth(warm_up[:40]) is None


# Reading of files


def test_reading_returns_each_frame_with_its_time(files: list[Path]) -> None:
    for path in files:
        reading = read(path, largest=True)
        count = len(reading.frames)
        expected = [255 - number if path.name.startswith(REAR) else number for number in range(count)]
        assert [frame.number for frame in reading.frames] == expected, path.name
        times = [frame.time for frame in reading.frames]
        if path.name.startswith(("plain.gif", "uneven", "fragments", "plain.avi")) or None in times:
            continue  # 10 fps, variable rate, and a longer first step by the muxer
        assert np.diff([float(time or 0) for time in times]) == pytest.approx(0.04, abs=0.0005), path.name


def _reading(times: Sequence[float], audio: Sequence[float] = (), numbers: Sequence[int] | None = None) -> Reading:
    frames = [FrameRecord(*frame) for frame in zip(numbers or range(len(times)), map(_exact, times), strict=True)]
    packets = [bytes([number]) for number in range(len(audio))]
    track = Track(1, "audio", "aac", True, packets, times=[_exact(time) for time in audio])
    return Reading("matroska,webm", frames=frames, tracks=[track] if audio else [])


def _exact(time: float) -> Fraction:
    return Fraction(time).limit_denominator(1000)


VIDEO = [0.04 * number for number in range(20)]
AUDIO = [0.02 * number for number in range(40)]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (_reading(VIDEO[:-1], AUDIO), "frames: 20 shown by the input, 19"),
        (
            _reading(VIDEO, AUDIO, [*range(9), 10, 9, *range(11, 20)]),
            "in place 9 the input shows number 9, the output 10",
        ),
        (_reading([*VIDEO[:10], 0.41, *VIDEO[11:]], AUDIO), "frame 10 of 20 is 10.0 ms off"),
        (_reading(VIDEO, [t + 0.03 for t in AUDIO]), "moved by +30 ms"),
        (_reading(VIDEO, [*AUDIO[:30], *(t + 0.05 for t in AUDIO[30:])]), "packet 30 of 40 of audio 1 moved by +50"),
        (_reading(VIDEO, AUDIO[:-1]), "40 packets in, 39 out"),
        (_reading(VIDEO), "aac is not in the output"),
    ],
)
def test_differences_are_described(after: Reading, message: str) -> None:
    before, delayed = _reading(VIDEO, AUDIO), _reading([t + 5 for t in VIDEO], [t + 5 for t in AUDIO])
    assert differences(before, delayed, reported=False, omitted=False) == []
    assert message in "; ".join(differences(before, after, reported=False, omitted=False))


def test_audio_offset_after_a_reported_jump_is_detected() -> None:
    video_in = [*VIDEO, *(time + 100 for time in VIDEO)]
    audio_in = [*AUDIO, *(time + 100 for time in AUDIO)]
    video_out = [*VIDEO, *(time + 0.8 for time in VIDEO)]
    synchronized = _reading(video_out, [*AUDIO, *(time + 0.8 for time in AUDIO)])
    shifted = _reading(video_out, [*AUDIO, *(time + 0.84 for time in AUDIO)])
    before = _reading(video_in, audio_in)
    assert differences(before, synchronized, reported=True, omitted=False) == []
    assert "in section 1 of 2 audio 1 moved by +40 ms" in differences(before, shifted, reported=True, omitted=False)[0]
    assert differences(before, synchronized, reported=False, omitted=False) != []  # an unreported repair is an error


def test_wrong_timestamp_must_not_move_its_neighbors() -> None:
    outlier = _reading([*VIDEO[:5], 0.9, *VIDEO[6:]], AUDIO)
    squeezed = _reading([*VIDEO[:5], *(0.9 + 0.001 * place for place in range(15))], AUDIO)
    assert differences(outlier, _reading(VIDEO, AUDIO), reported=True, omitted=False) == []
    assert "40 ms apart in the input, 1 ms" in "; ".join(differences(outlier, squeezed, reported=True, omitted=False))


# Modifications


def test_cases_are_reproducible(files: list[Path]) -> None:
    for number in range(len(files), len(files) + 40):
        assert case(files, 3, number) == case(files, 3, number)


def test_mp4_boxes_round_trip(files: list[Path]) -> None:
    for path in files:
        if path.suffix in (".mp4", ".mov"):
            data = path.read_bytes()
            assert b"".join(box.encode() for box in parse(data)) == data


def test_modified_edit_lists_change_the_number_of_frames(files: list[Path], tmp_path: Path) -> None:
    source = next(path for path in files if path.name == "b-frames.mp4")  # its index precedes its data
    random = np.random.default_rng(0)
    frame_counts = set()
    for number in range(200):
        change, data = change_mp4(source.read_bytes(), random)
        if change.startswith("vide elst") and change.endswith("]") and change.count("elst") == 1:
            path = tmp_path / f"{number}.mp4"
            path.write_bytes(data)
            frame_counts.add(len(read(path, largest=True).frames))
    assert len(frame_counts) > 2


def test_modified_timestamps_are_read_back(files: list[Path], tmp_path: Path) -> None:
    for name in ("plain.ts", "plain.mkv"):
        source = next(path for path in files if path.name == name)
        healthy = read(source, largest=True)
        for seed in range(1000):
            change, data = CHANGES[source.suffix](source.read_bytes(), np.random.default_rng(seed))
            if change.startswith("offset +0.90"):
                break
        path = tmp_path / name
        path.write_bytes(data)
        times, moved = (
            [float(frame.time or 0) for frame in file.frames] for file in (healthy, read(path, largest=True))
        )
        assert np.subtract(moved, times) == pytest.approx(0.9, abs=0.0005), change
