"""Cases of the fuzzer: modified files, reproducible by seed and number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from fuzz_boxes import change_mp4
from fuzz_remux import remux
from fuzz_stamps import CHANGES

FAMILIES = {"bytes": 0.25, "stamps": 0.25, "tables": 0.15, "remux": 0.25, "joined": 0.07, "cut": 0.03}
"""Kinds of modification and their shares of the cases."""

TRIES = 8
"""Maximum number of attempts if a muxer refuses a change."""


@dataclass(frozen=True)
class Case:
    """One modified file."""

    family: str
    """One of `FAMILIES`, or `healthy`."""

    change: str
    """Description of the modification."""

    suffix: str
    data: bytes


def case(files: list[Path], seed: int, number: int) -> Case:
    """Return the case with a number. The first cases are the unmodified seed files."""
    if number < len(files):
        source = files[number]
        return Case("healthy", source.name, source.suffix, source.read_bytes())
    random = np.random.default_rng([seed, number])
    for _ in range(TRIES):
        family = str(random.choice(list(FAMILIES), p=list(FAMILIES.values())))
        try:
            return _make_case(files, family, random)
        except (av.FFmpegError, OSError, ValueError, StopIteration, OverflowError, IndexError):
            continue  # The file has no such table, or the muxer refuses the change.
    return _make_case(files, "bytes", random)


def _make_case(files: list[Path], family: str, random: np.random.Generator) -> Case:
    source = files[int(random.integers(0, len(files)))]
    match family:
        case "stamps":
            source = _one([path for path in files if path.suffix in CHANGES], random)
            change, data = CHANGES[source.suffix](source.read_bytes(), random)
        case "tables":
            source = _one([path for path in files if path.suffix in (".mp4", ".mov")], random)
            change, data = change_mp4(source.read_bytes(), random)
        case "remux":
            change, suffix, data = remux(source, files, random)
            return Case(family, f"{source.name}: {change}", suffix, data)
        case "joined":
            source = _one([path for path in files if path.suffix in (".ts", ".mpg", ".h264")], random)
            other = _one([path for path in files if path.suffix == source.suffix], random)
            first, second = source.read_bytes(), other.read_bytes()
            change = f"with {other.name}"
            if random.integers(0, 3) == 0:
                first = first[: int(random.integers(len(first) // 2, len(first)))]
                change += f", the first {len(first)} bytes"
            if random.integers(0, 3) == 0 and other.suffix in CHANGES:
                second_change, second = CHANGES[other.suffix](second, random)
                change += f", changed: {second_change}"
            data = first + second
        case "cut":
            data = source.read_bytes()
            at = int(random.integers(1, len(data)))
            change, data = (f"to {at} bytes", data[:at]) if random.integers(0, 4) else (f"before {at}", data[at:])
        case _:
            data, change = mutate(source.read_bytes(), random), ""
    return Case(family, f"{source.name}: {change}", source.suffix, data)


def _one(files: list[Path], random: np.random.Generator) -> Path:
    return files[int(random.integers(0, len(files)))]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Apply random changes to bytes: flipped bits; overwritten, deleted, duplicated or inserted ranges; truncation."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        if not changed:
            break
        # Headers are small and matter most: half of the changes are in the first kilobyte or the last two.
        near = int(random.integers(0, min(1024, len(changed))))
        near_end = max(0, len(changed) - 1 - 2 * near)
        positions = (near, near_end, *random.integers(0, len(changed), 2).tolist())
        at = int(positions[int(random.integers(0, 4))])
        length = int(random.choice([1, 2, 4, 16, 188, 1000]))
        match int(random.integers(0, 8)):
            case 0 | 1:
                changed[at] ^= 1 << int(random.integers(0, 8))
            case 2:
                changed[at : at + length] = random.bytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                changed[at:at] = random.bytes(length)
            case 6:
                changed[at : at + length] = (b"\0" if random.integers(0, 2) else b"\xff") * length
            case _:
                if random.integers(0, 3) == 0:
                    del changed[max(1, at) :]
    return bytes(changed)
