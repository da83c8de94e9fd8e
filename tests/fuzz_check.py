"""Comparison of an output with its input, from two readings of `fuzz_reading`. Independent of rtseg's code."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from fuzz_reading import Reading, Track

WRAPPING = {"mpegts", "mpeg"}
WRAP = Fraction(1 << 33, 90_000)
"""Period in seconds of the clock of these formats: 26.5 hours. Times are compared modulo this."""

MAX_AUDIO_OFFSET = Fraction(20, 1000)
"""Maximum change of the offset between audio and video, in seconds."""

MAX_STEP = Fraction(1)
"""A longer step of a clock, in seconds, or a step back, is a jump, except at single wrong times."""

NEIGHBORS = 3
"""Number of frames next to a wrong time that may be moved with it: which of the times is wrong is not defined."""

MAX_SQUEEZED = 30
"""Number of frames after a backward step of the video clock that may have shorter intervals until the clock catches up."""

MAX_PRIMING_PACKETS = 100
"""From this number of hidden packets on, all or none of them may be visible in the output: PCM may have one per sample."""

UNIFORM = (0, 255)
"""Numbers of a completely dark or light frame: decoders differ in the output of damaged frames."""

MAX_WRONG_TIMES = 3
"""With more wrong times than this, the correct times of the other frames are not defined."""


def differences(before: Reading, after: Reading, *, reported: bool, omitted: bool, damaged: bool = False) -> list[str]:
    """Return the differences between an output and its input; empty if the output is correct.

    Args:
        before: the input.
        after: the output.
        reported: rtseg reported repairs, so that times may differ where those of the input are wrong.
        omitted: rtseg reported streams that are omitted or re-encoded.
        damaged: rtseg reported frames that can't be decoded, so that the times of the frames around them are not defined.
    """
    wrap = WRAP if before.format in WRAPPING or after.format in WRAPPING else None
    # Valid video times need no repair, whatever else was reported.
    repaired = reported and not _sane_frames(before, wrap)
    return [
        *_frames(before, after, damaged=damaged),
        *([] if repaired and damaged else (_times_repaired if repaired else _times_kept)(before, after, wrap)),
        *_tracks(before, after, reported=reported, omitted=omitted, wrap=wrap),
    ]


def _sane_frames(reading: Reading, wrap: Fraction | None) -> bool:
    return all(frame.certain for frame in reading.frames) and _sane([frame.time for frame in reading.frames], wrap)


def _sane(times: Sequence[Fraction | None], wrap: Fraction | None) -> bool:
    if None in times:
        return False
    steps = [near(now - last, wrap) for last, now in itertools.pairwise(times)]  # type: ignore[operator]
    return all(0 < step < MAX_STEP for step in steps)


def near(value: Fraction, wrap: Fraction | None) -> Fraction:
    """Return a difference of times without the wraps of the clock."""
    return value if wrap is None else value - round(value / wrap) * wrap


def _frames(before: Reading, after: Reading, *, damaged: bool) -> list[str]:
    problems = []
    if damaged and len(before.frames) != len(after.frames):
        # FFmpeg does not always return frames without any decoded content, which have no number.
        before = replace(before, frames=[frame for frame in before.frames if frame.number is not None])
        after = replace(after, frames=[frame for frame in after.frames if frame.number is not None])
    if len(before.frames) != len(after.frames):
        problems.append(f"frames: {len(before.frames)} shown by the input, {len(after.frames)} by the output")
    for index, (expected, actual) in enumerate(zip(before.frames, after.frames, strict=False)):
        uniform = actual.number in UNIFORM and index > 0
        around = [frame.number for frame in before.frames[max(0, index - 2) : index + 1]]
        if damaged and None not in around and len(around) == 3 and 2 * around[1] != around[0] + around[2]:
            continue  # The missing parts of a damaged frame contain arbitrary memory of the decoder.
        if None not in (expected.number, actual.number) and expected.number != actual.number and not uniform:
            shown = f"the input shows number {expected.number}, the output {actual.number}"
            problems.append(f"frames: in place {index} {shown}")
            break
    times = [frame.time for frame in after.frames]
    if any(now is not None and last is not None and now <= last for last, now in itertools.pairwise(times)):
        problems.append("times: those of the output do not increase")
    return problems


def _times_kept(before: Reading, after: Reading, wrap: Fraction | None) -> list[str]:
    if len(before.frames) != len(after.frames) or not before.frames:
        return []
    times = [frame.time for frame in before.frames]
    if any(time is None for time in times):
        return ["times: the input has frames without a time, which is not reported"]
    if any(max(now - last, near(now - last, wrap)) <= 0 for last, now in itertools.pairwise(times)):
        return ["times: those of the input do not increase, which is not reported"]
    pairs = zip(times, after.frames, strict=True)
    shifts = [near(frame.time - time, wrap) for time, frame in pairs if frame.time is not None]
    index, worst = max(enumerate(shifts), key=lambda pair: abs(near(pair[1] - shifts[0], wrap)))
    error = abs(near(worst - shifts[0], wrap))
    if error > max(Fraction(1, 1000), before.tick, after.tick):
        return [f"times: frame {index} of {len(times)} is {float(error) * 1000:.1f} ms off"]
    return []


def _times_repaired(before: Reading, after: Reading, _wrap: Fraction | None) -> list[str]:
    """Check the intervals between frames whose input times are valid before and after them."""
    if len(before.frames) != len(after.frames):
        return []
    times_in = [frame.time for frame in before.frames]
    times_out = [frame.time for frame in after.frames]
    if _has_many_wrong_times(before):
        return []
    # If only the video clock steps back, frames have shorter intervals until the clock catches up with the audio.
    only_video_jumps = len(_sections_of(times_in)) > 1 and any(
        len(_sections_of(track.times)) == 1 for track in before.tracks
    )
    for index in range(1, len(times_in) - 2):
        around = times_in[index - 1 : index + 3]
        neighbors = before.frames[max(0, index - NEIGHBORS) : index + NEIGHBORS + 2]
        if None in around or not all(frame.certain for frame in neighbors):
            continue
        if index not in _surely_correct(times_in, index) or index + 1 not in _surely_correct(times_in, index):
            continue
        past = [time for time in times_in[max(0, index - MAX_SQUEEZED) : index + 1] if time is not None]
        if only_video_jumps and not _sane(past, None):
            continue
        steps = [now - last for last, now in itertools.pairwise(around)]
        if not all(0 < step < MAX_STEP for step in steps):
            continue
        step_out = times_out[index + 1] - times_out[index]
        if abs(step_out - steps[1]) > max(Fraction(2, 1000), before.tick, 2 * after.tick):
            apart = f"{float(steps[1]) * 1000:.0f} ms apart in the input, {float(step_out) * 1000:.0f} ms in the output"
            return [f"times: frames {index} and {index + 1} are {apart}"]
    return []


def _surely_correct(times: Sequence[Fraction | None], index: int) -> set[int]:
    """Return the frames near an index that belong to every longest increasing subsequence of the times."""
    first = max(0, index - 2 * NEIGHBORS)
    nearby = [(n, time) for n, time in enumerate(times[first : index + 2 * NEIGHBORS + 2], first) if time is not None]
    ending = _longest(nearby)
    starting = _longest([(n, -time) for n, time in reversed(nearby)])
    longest = max(ending.values(), default=0)
    ranks = Counter(ending[n] for n in ending if ending[n] + starting[n] - 1 == longest)
    return {n for n in ending if ending[n] + starting[n] - 1 == longest and ranks[ending[n]] == 1}


def _longest(times: Sequence[tuple[int, Fraction]]) -> dict[int, int]:
    """Return, for each frame, the length of the longest increasing subsequence of times that ends with it."""
    lengths: dict[int, int] = {}
    for position, (number, time) in enumerate(times):
        lengths[number] = 1 + max((lengths[n] for n, other in times[:position] if other < time), default=0)
    return lengths


def _has_many_wrong_times(reading: Reading) -> bool:
    """Return whether too many times are missing or wrong: then the correct times of the other frames are not defined."""
    clock_sections = _sections_of([frame.time for frame in reading.frames])
    valid = sum(len(section) for section in clock_sections if len(section) > MAX_WRONG_TIMES)
    uncertain = sum(not frame.certain for frame in reading.frames)
    return max(len(reading.frames) - valid, uncertain) > MAX_WRONG_TIMES


def _tracks(before: Reading, after: Reading, *, reported: bool, omitted: bool, wrap: Fraction | None) -> list[str]:
    problems = []
    expected = [track for track in before.tracks if track.packets]
    unmatched = list(after.tracks)
    pairs: dict[int, tuple[Track, Track]] = {}
    # Match equal tracks first, because a re-encoded track may have the codec of another one.
    hidden = MAX_STEP * 1000 if reported and _has_many_wrong_times(before) else PRIMING
    for matches in (
        lambda a, b: _equal_with_priming(a, b, hidden),
        lambda a, b: a.codec == b.codec,
        lambda _a, _b: omitted,
    ):
        for track_in in expected:
            candidates = (track for track in unmatched if track.kind == track_in.kind and matches(track_in, track))
            track_out = next(candidates, None)
            if track_in.index not in pairs and track_out is not None:
                unmatched.remove(track_out)
                pairs[track_in.index] = (track_in, track_out)
    for track_in in expected:
        name = f"{track_in.kind} {track_in.index}"
        if track_in.index not in pairs:
            if not omitted:
                problems.append(f"{name}: {track_in.codec} is not in the output, which is not reported")
            continue
        track_out = pairs[track_in.index][1]
        equal = _equal_with_priming(track_in, track_out, hidden)
        if equal is None and reported and track_in.kind == "video":
            # Packets of another camera that an edit list hides are needed for decoding; their presence was reported.
            equal = _equal_with_priming(track_in, track_out, MAX_STEP * 1000)
            visible = slice(-len(track_in.packets), None)
            equal = equal and (_part(equal[0], visible), _part(equal[1], visible))
        if equal is not None:
            if track_in.codec.startswith("pcm_"):  # Containers split PCM differently: compare the first packet.
                equal = _part(track_in, slice(1)), _part(track_out, slice(1))
            problems += _offset(before, after, *equal, reported, wrap)
        elif not omitted:
            problems.append(f"{name}: {len(track_in.packets)} packets in, {len(track_out.packets)} out, not the same")
    order = [pairs[index][1].index for index in sorted(pairs)]
    if order != sorted(order) and not omitted:
        problems.append("order: the streams are in another order")
    audio = [(track_in, track_out) for track_in, track_out in pairs.values() if track_in.kind == "audio"]
    flagged = [track_out.index for track_in, track_out in audio if track_in.default]
    actual = [track_out.index for _, track_out in audio if track_out.default]
    if flagged and after.format != "mpegts" and sorted(actual) != sorted(flagged):
        problems.append(f"default: audio streams {flagged} should have the flag, {actual} have it")
    return problems


PRIMING = Fraction(1, 10)
"""Maximum duration in seconds of hidden audio at the beginning that may be visible in the other file. It primes the decoder,
and not all containers can hide it."""


def _equal_with_priming(track_in: Track, track_out: Track, limit: Fraction) -> tuple[Track, Track] | None:
    """Return both tracks with equal packets, with or without their hidden priming packets; None if they differ."""
    for first in _with_priming(track_in, limit):
        for second in _with_priming(track_out, limit):
            if _same(first, second):
                return first, second
    return None


def _with_priming(track: Track, limit: Fraction) -> list[Track]:
    """Return the track without its hidden packets, and with one, two, … of the last ones before its beginning."""
    known = [time for time in track.times if time is not None]
    if (track.kind != "audio" and limit <= PRIMING) or (track.packets and not known):
        return [track]
    begin = min(known, default=max((time for _, time in track.hidden if time is not None), default=0) + PRIMING / 2)
    if known != sorted(known):
        limit *= 2  # The beginning is not defined.
    priming = [(data, time) for data, time in track.hidden if time is not None and begin - limit <= time < begin]
    count = len(priming)
    packets, times = [data for data, _ in priming] + track.packets, [time for _, time in priming] + track.times
    return [
        replace(track, packets=packets[first:], times=times[first:])
        for first in (range(count, -1, -1) if count < MAX_PRIMING_PACKETS else (count, 0))
    ]


def _same(track_in: Track, track_out: Track) -> bool:
    if track_in.codec.startswith("pcm_"):
        return b"".join(track_in.packets) == b"".join(track_out.packets)
    return track_in.packets == track_out.packets


def _is_regular(reading: Reading, index: int) -> bool:
    """Return whether the times around a frame are certain and increasing."""
    neighbors = reading.frames[max(0, index - NEIGHBORS) : index + NEIGHBORS + 1]
    times = [frame.time for frame in neighbors]
    return all(frame.certain for frame in neighbors) and _sane(times, None)


def _part(track: Track, part: slice) -> Track:
    return replace(track, packets=track.packets[part], times=track.times[part])


def _offset(
    before: Reading, after: Reading, track_in: Track, track_out: Track, reported: bool, wrap: Fraction | None
) -> list[str]:
    """Check the offset between audio and video: everywhere, or within each section of the input's clock."""
    frames = [
        (frame_in.time, frame_out.time)
        for frame_in, frame_out in zip(before.frames, after.frames, strict=False)
        if frame_in.certain and frame_in.time is not None and frame_out.time is not None
    ]
    clock_sections = len(sections(frames))
    if not _sane_frames(before, wrap):
        frames = [pair for index, pair in enumerate(frames) if _is_regular(before, index)]
    packets = [(a, b) for a, b in zip(track_in.times, track_out.times, strict=False) if a is not None and b is not None]
    if not frames or not packets or len(before.frames) != len(after.frames):
        return []
    limit = MAX_AUDIO_OFFSET + max(after.tick, track_out.tick)
    name = f"{track_in.kind} {track_in.index}"
    sane = _sane_frames(before, wrap) and _sane(track_in.times, wrap)
    if not reported or sane:
        shift = frames[0][1] - frames[0][0]
        for index, (a, b) in enumerate(packets):
            error = near(b - a - shift, wrap)
            if abs(error) > limit:
                return [f"offset: packet {index} of {len(packets)} of {name} moved by {float(error) * 1000:+.0f} ms"]
        return []
    frame_sections, packet_sections = sections(frames), sections(packets)
    if _has_many_wrong_times(before):
        return []
    if not len(frame_sections) == clock_sections == len(packet_sections):
        return []  # If only one stream has a jump, the correct offset is not defined.
    for number, (frame_section, packet_section) in enumerate(zip(frame_sections, packet_sections, strict=True)):
        for a, b in packet_section:
            nearest = min(frame_section, key=lambda pair: abs(pair[0] - a))
            error = near((b - a) - (nearest[1] - nearest[0]), wrap)
            if abs(nearest[0] - a) < MAX_STEP / 2 and abs(error) > limit:
                moved = f"{name} moved by {float(error) * 1000:+.0f} ms (at {float(a):.2f} s)"
                return [f"offset: in section {number} of {len(frame_sections)} {moved}"]
    return []


def _sections_of(times: Sequence[Fraction | None]) -> list[list[tuple[Fraction, Fraction]]]:
    return sections([(time, time) for time in times if time is not None])


def sections(pairs: Sequence[tuple[Fraction, Fraction]]) -> list[list[tuple[Fraction, Fraction]]]:
    """Split a stream at the jumps of the input's clock. Single wrong times are omitted."""
    valid: list[tuple[Fraction, Fraction]] = []
    for index, pair in enumerate(pairs):
        last = pairs[index - 1][0] if index else None
        following = pairs[index + 1][0] if index + 1 < len(pairs) else None
        if last is not None and (following is None or 0 < following - last < MAX_STEP):
            between = last < pair[0] < (last + MAX_STEP if following is None else following)
            if not between:
                continue
        valid.append(pair)
    result: list[list[tuple[Fraction, Fraction]]] = []
    for pair in valid:
        step = pair[0] - result[-1][-1][0] if result else MAX_STEP
        if not result or not 0 < step < MAX_STEP:
            result.append([])
        result[-1].append(pair)
    return result
