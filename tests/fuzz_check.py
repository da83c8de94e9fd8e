"""Whether an output shows what its input shows, by two readings of `fuzz_reading`. Knows nothing of rtseg's code."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from fuzz_reading import Reading, Track

WRAPPING = {"mpegts", "mpeg"}
WRAP = Fraction(1 << 33, 90_000)
"""Seconds after which the clock of these formats begins anew: 26.5 hours. Times are compared modulo this."""

AUDIO_SECONDS = Fraction(20, 1000)
"""How far sound may move against the picture."""

LONG = Fraction(1)
"""A step of a clock that is more than this, or that goes back, is a jump, but for single wrong times."""

AROUND = 3
"""Frames beside a wrong time that may have been moved with it: which of them is the wrong one is a matter of opinion."""

SQUEEZED = 30
"""Frames behind a step back of the picture's clock alone that may be set close, until it is where it was."""

MANY = 100
"""Hidden packets of which all or none are shown elsewhere: PCM may have one for each sample."""

UNIFORM = (0, 255)
"""Numbers of a picture that is all dark or all light: what decoders make of damage, each in its own way."""

DOUBTFUL = 3
"""Where more times than this are wrong, nobody can say which of the others are right."""


def differences(before: Reading, after: Reading, *, said: bool, left_out: bool, damaged: bool = False) -> list[str]:
    """What an output shows otherwise than its input; empty: it is right.

    Args:
        before: the input.
        after: the output.
        said: rtseg reported repairs, so that times may differ where the input's are wrong.
        left_out: rtseg reported streams left out or encoded anew.
        damaged: rtseg reported frames that can't be decoded: nobody can say when the others around them ought to be shown.
    """
    wrap = WRAP if before.format in WRAPPING or after.format in WRAPPING else None
    # Where nothing is wrong with the picture's times there is nothing to repair, whatever else was reported.
    repaired = said and not _sane_frames(before, wrap)
    return [
        *_frames(before, after, damaged=damaged),
        *([] if repaired and damaged else (_times_repaired if repaired else _times_kept)(before, after, wrap)),
        *_tracks(before, after, said=said, left_out=left_out, wrap=wrap),
    ]


def _sane_frames(told: Reading, wrap: Fraction | None) -> bool:
    return all(frame.certain for frame in told.frames) and _sane([frame.time for frame in told.frames], wrap)


def _sane(times: Sequence[Fraction | None], wrap: Fraction | None) -> bool:
    if None in times:
        return False
    steps = [near(now - last, wrap) for last, now in itertools.pairwise(times)]  # type: ignore[operator]
    return all(0 < step < LONG for step in steps)


def near(value: Fraction, wrap: Fraction | None) -> Fraction:
    """A difference of times, the wraps of the clock taken out."""
    return value if wrap is None else value - round(value / wrap) * wrap


def _frames(before: Reading, after: Reading, *, damaged: bool) -> list[str]:
    told = []
    if damaged and len(before.frames) != len(after.frames):
        # What shows no number is a picture of nothing: FFmpeg gives it or not, from one time to the next.
        before = replace(before, frames=[frame for frame in before.frames if frame.number is not None])
        after = replace(after, frames=[frame for frame in after.frames if frame.number is not None])
    if len(before.frames) != len(after.frames):
        told.append(f"frames: {len(before.frames)} shown by the input, {len(after.frames)} by the output")
    for place, (ours, theirs) in enumerate(zip(before.frames, after.frames, strict=False)):
        uniform = theirs.number in UNIFORM and place > 0
        around = [frame.number for frame in before.frames[max(0, place - 2) : place + 1]]
        if damaged and None not in around and len(around) == 3 and 2 * around[1] != around[0] + around[2]:
            continue  # What lies in the holes of a damaged picture is what the decoder's memory held.
        if None not in (ours.number, theirs.number) and ours.number != theirs.number and not uniform:
            told.append(f"frames: in place {place} the input shows number {ours.number}, the output {theirs.number}")
            break
    times = [frame.time for frame in after.frames]
    if any(now is not None and last is not None and now <= last for last, now in itertools.pairwise(times)):
        told.append("times: the output's do not rise")
    return told


def _times_kept(before: Reading, after: Reading, wrap: Fraction | None) -> list[str]:
    if len(before.frames) != len(after.frames) or not before.frames:
        return []
    ours = [frame.time for frame in before.frames]
    if any(time is None for time in ours):
        return ["times: the input has frames without a time, and no word"]
    if any(max(now - last, near(now - last, wrap)) <= 0 for last, now in itertools.pairwise(ours)):
        return ["times: the input's do not rise, and no word"]
    shifts = _shifts(before, after, wrap)
    place, worst = max(enumerate(shifts), key=lambda pair: abs(near(pair[1] - shifts[0], wrap)))
    off = abs(near(worst - shifts[0], wrap))
    if off > max(Fraction(1, 1000), before.tick, after.tick):
        return [f"times: frame {place} of {len(ours)} is {float(off) * 1000:.1f} ms off"]
    return []


def _times_repaired(before: Reading, after: Reading, _wrap: Fraction | None) -> list[str]:
    """Where the input's times are sane on both sides, the distance of two frames stays."""
    if len(before.frames) != len(after.frames):
        return []
    ours = [frame.time for frame in before.frames]
    theirs = [frame.time for frame in after.frames]
    if _doubtful(before):
        return []
    # Where the sound runs on while the picture's clock steps back, frames are set close until it is where it was.
    clock = len(stretches([(time, time) for time in ours if time is not None]))
    alone = clock > 1 and any(
        len(stretches([(time, time) for time in track.times if time is not None])) == 1 for track in before.tracks
    )
    for place in range(1, len(ours) - 2):
        around = ours[place - 1 : place + 3]
        near_by = before.frames[max(0, place - AROUND) : place + AROUND + 2]
        if None in around or not all(frame.certain for frame in near_by):
            continue
        if place not in _undoubted(ours, place) or place + 1 not in _undoubted(ours, place):
            continue
        past = [time for time in ours[max(0, place - SQUEEZED) : place + 1] if time is not None]
        if alone and not _sane(past, None):
            continue
        steps = [now - last for last, now in itertools.pairwise(around)]
        if not all(0 < step < LONG for step in steps):
            continue
        became = theirs[place + 1] - theirs[place]
        if abs(became - steps[1]) > max(Fraction(2, 1000), before.tick, 2 * after.tick):
            return [
                f"times: frames {place} and {place + 1} are {float(steps[1]) * 1000:.0f} ms apart in the input, "
                f"{float(became) * 1000:.0f} ms in the output"
            ]
    return []


def _undoubted(times: Sequence[Fraction | None], place: int) -> set[int]:
    """Of the frames around one those whose times are right in every way to leave out as few as possible so that they rise."""
    first = max(0, place - 2 * AROUND)
    near_by = [(n, time) for n, time in enumerate(times[first : place + 2 * AROUND + 2], first) if time is not None]
    before = _longest(near_by)
    behind = _longest([(n, -time) for n, time in reversed(near_by)])
    longest = max(before.values(), default=0)
    ranks = Counter(before[n] for n in before if before[n] + behind[n] - 1 == longest)
    return {n for n in before if before[n] + behind[n] - 1 == longest and ranks[before[n]] == 1}


def _longest(times: Sequence[tuple[int, Fraction]]) -> dict[int, int]:
    """For each frame, the length of the longest row of rising times that ends with it."""
    found: dict[int, int] = {}
    for place, (number, time) in enumerate(times):
        found[number] = 1 + max((found[n] for n, other in times[:place] if other < time), default=0)
    return found


def _doubtful(told: Reading) -> bool:
    """Whether so many times are missing or wrong that nobody can say what the others ought to be."""
    times = [(frame.time, frame.time) for frame in told.frames if frame.time is not None]
    sound = sum(len(part) for part in stretches(times) if len(part) > DOUBTFUL)
    return max(len(told.frames) - sound, sum(not frame.certain for frame in told.frames)) > DOUBTFUL


def _shifts(before: Reading, after: Reading, wrap: Fraction | None) -> list[Fraction]:
    return [
        near(theirs.time - ours.time, wrap)
        for ours, theirs in zip(before.frames, after.frames, strict=False)
        if ours.time is not None and theirs.time is not None
    ]


def _tracks(before: Reading, after: Reading, *, said: bool, left_out: bool, wrap: Fraction | None) -> list[str]:
    told = []
    wanted = [track for track in before.tracks if track.packets]
    free = list(after.tracks)
    pairs: dict[int, tuple[Track, Track]] = {}
    # Those that are equal first: what was encoded anew may have become the codec of another.
    hidden = LONG * 1000 if said and _doubtful(before) else PRIMING
    for alike in (lambda a, b: _primed(a, b, hidden), lambda a, b: a.codec == b.codec, lambda _a, _b: left_out):
        for ours in wanted:
            theirs = next((track for track in free if track.kind == ours.kind and alike(ours, track)), None)
            if ours.index not in pairs and theirs is not None:
                free.remove(theirs)
                pairs[ours.index] = (ours, theirs)
    for ours in wanted:
        name = f"{ours.kind} {ours.index}"
        if ours.index not in pairs:
            if not left_out:
                told.append(f"{name}: {ours.codec} is not in the output, and no word")
            continue
        theirs = pairs[ours.index][1]
        same = _primed(ours, theirs, hidden)
        if same is None and said and ours.kind == "video":
            # What an edit list hides of another camera is needed to decode the rest: it was said that it is there.
            same = _primed(ours, theirs, LONG * 1000)
            same = same and (_last(same[0], len(ours.packets)), _last(same[1], len(ours.packets)))
        if same is not None:
            ours_, theirs_ = (_first(ours), _first(theirs)) if ours.codec.startswith("pcm_") else same
            told += _offset(before, after, ours_, theirs_, said, wrap)
        elif not left_out:
            told.append(f"{name}: {len(ours.packets)} packets in, {len(theirs.packets)} out, not the same")
    order = [pairs[index][1].index for index in sorted(pairs)]
    if order != sorted(order) and not left_out:
        told.append("order: the streams are in another order")
    flagged = [theirs.index for ours, theirs in pairs.values() if ours.default and ours.kind == "audio"]
    now = [theirs.index for _, theirs in pairs.values() if theirs.default and theirs.kind == "audio"]
    if flagged and after.format != "mpegts" and sorted(now) != sorted(flagged):
        told.append(f"default: audio streams {flagged} should have the flag, {now} have it")
    return told


PRIMING = Fraction(1, 10)
"""How much hidden sound at the beginning may be shown elsewhere: decoders start with it, and not all containers hide it."""


def _primed(ours: Track, theirs: Track, limit: Fraction) -> tuple[Track, Track] | None:
    """Both with the same packets, what primes the decoder shown or hidden in either; None: they are not the same."""
    for first in _with_priming(ours, limit):
        for second in _with_priming(theirs, limit):
            if _same(first, second):
                return first, second
    return None


def _with_priming(track: Track, limit: Fraction) -> list[Track]:
    """The track as it is shown, and with one, two … hidden packets that come right before."""
    known = [time for time in track.times if time is not None]
    if (track.kind != "audio" and limit <= PRIMING) or (track.packets and not known):
        return [track]
    begin = min(known, default=max((time for _, time in track.hidden if time is not None), default=0) + PRIMING / 2)
    if known != sorted(known):
        limit *= 2  # Nobody can say where it begins.
    more = [(data, time) for data, time in track.hidden if time is not None and begin - limit <= time < begin]
    return [
        replace(
            track,
            packets=[data for data, _ in more[first:]] + track.packets,
            times=[time for _, time in more[first:]] + track.times,
        )
        for first in (range(len(more), -1, -1) if len(more) < MANY else (len(more), 0))
    ]


def _same(ours: Track, theirs: Track) -> bool:
    if ours.codec.startswith("pcm_"):
        return b"".join(ours.packets) == b"".join(theirs.packets)
    return ours.packets == theirs.packets


def _calm(told: Reading, place: int) -> bool:
    """Whether the times around a frame are certain and rise."""
    near_by = told.frames[max(0, place - AROUND) : place + AROUND + 1]
    times = [frame.time for frame in near_by]
    return all(frame.certain for frame in near_by) and _sane(times, None)


def _last(track: Track, count: int) -> Track:
    """The last packets alone."""
    return replace(track, packets=track.packets[-count:], times=track.times[-count:])


def _first(track: Track) -> Track:
    """Of PCM, which containers cut as they like: its first packet alone."""
    return replace(track, packets=track.packets[:1], times=track.times[:1])


def _offset(
    before: Reading, after: Reading, ours: Track, theirs: Track, said: bool, wrap: Fraction | None
) -> list[str]:
    """Whether sound lies where it did against the picture: everywhere, or within each stretch of the input's clock."""
    pictures = [
        (ours_.time, theirs_.time)
        for ours_, theirs_ in zip(before.frames, after.frames, strict=False)
        if ours_.certain and ours_.time is not None and theirs_.time is not None
    ]
    clock = len(stretches(pictures))
    if not _sane_frames(before, wrap):
        pictures = [pair for place, pair in enumerate(pictures) if _calm(before, place)]
    sounds = [(a, b) for a, b in zip(ours.times, theirs.times, strict=False) if a is not None and b is not None]
    if not pictures or not sounds or len(before.frames) != len(after.frames):
        return []
    limit = AUDIO_SECONDS + max(after.tick, theirs.tick)
    name = f"{ours.kind} {ours.index}"
    sane = _sane_frames(before, wrap) and _sane(ours.times, wrap)
    if not said or sane:
        shift = pictures[0][1] - pictures[0][0]
        for place, (a, b) in enumerate(sounds):
            off = near(b - a - shift, wrap)
            if abs(off) > limit:
                return [f"offset: packet {place} of {len(sounds)} of {name} moved by {float(off) * 1000:+.0f} ms"]
        return []
    parts, others = stretches(pictures), stretches(sounds)
    if _doubtful(before):
        return []
    if not len(parts) == clock == len(others):
        return []  # A jump of one stream alone: what belongs together is not defined.
    for number, (part, other) in enumerate(zip(parts, others, strict=True)):
        for a, b in other:
            close = min(part, key=lambda pair: abs(pair[0] - a))
            off = near((b - a) - (close[1] - close[0]), wrap)
            if abs(close[0] - a) < LONG / 2 and abs(off) > limit:
                return [
                    f"offset: in stretch {number} of {len(parts)} {name} moved by {float(off) * 1000:+.0f} ms "
                    f"(at {float(a):.2f} s)"
                ]
    return []


def stretches(pairs: Sequence[tuple[Fraction, Fraction]]) -> list[list[tuple[Fraction, Fraction]]]:
    """Parts of a stream in which the input's clock runs on, single wrong times left out."""
    kept: list[tuple[Fraction, Fraction]] = []
    for place, pair in enumerate(pairs):
        last = pairs[place - 1][0] if place else None
        following = pairs[place + 1][0] if place + 1 < len(pairs) else None
        if last is not None and (following is None or 0 < following - last < LONG):
            between = last < pair[0] < (last + LONG if following is None else following)
            if not between:
                continue
        kept.append(pair)
    parts: list[list[tuple[Fraction, Fraction]]] = []
    for pair in kept:
        step = pair[0] - parts[-1][-1][0] if parts else LONG
        if not parts or not 0 < step < LONG:
            parts.append([])
        parts[-1].append(pair)
    return parts
