"""CPU profile of the whole pipeline with Linux's `perf`: all threads, including native code.

    python benchmarks/sampled.py drive.mp4 --json benchmarks/results/profile-720p.json [-- --model nano --preset ultrafast]

Profilers such as py-spy see only Python's threads, but most of the work is in threads of x264, FFmpeg and OpenVINO. `perf` takes a
thousand samples per second of `rtseg video` (Linux, `apt install linux-perf`), without the first seconds, in which programs and
model are loaded; the video should last at least ten seconds. Samples are grouped by library and converted to milliseconds per
frame with the run's `cpu_seconds`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rtseg.bench.measure import machine

STARTING_MS = 2500
"""Start phase, which is not sampled."""

LIBRARIES = (
    ("network", r"JIT|openvino|tbb"),
    ("x264", r"libx264"),
    ("FFmpeg: decoder, containers", r"libav|libsw"),
    ("OpenCV: scaling, colors, argmax", r"cv2|libopencv"),
    ("NumPy", r"numpy|_multiarray|_umath|openblas"),
    ("Linux", r"kernel|vdso|vmlinux"),
    ("C library: copies, locks", r"libc\.|libc-|libm\.|libstdc|ld-linux|libpthread"),
    ("Python", r"python|\.abi3\.|cpython|unknown"),
)
"""Reported groups, and the pattern of their libraries; the first match counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--json", type=Path, required=True)
    arguments, rtseg_options = sys.argv[1:], []
    if "--" in arguments:
        separator = arguments.index("--")
        arguments, rtseg_options = arguments[:separator], arguments[separator + 1 :]
    args = parser.parse_args(arguments)
    result = {"machine": machine().to_dict(), "options": rtseg_options, **profile(args.video, rtseg_options)}
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    for name, cost in result["cpu_ms_a_frame"].items():
        print(f"{cost:8.2f} ms  {name}")


def profile(video: str, rtseg_options: list[str]) -> dict[str, Any]:
    """Return the CPU milliseconds per frame by library."""
    with tempfile.TemporaryDirectory(prefix="rtseg-profile-") as folder:
        data, stats = f"{folder}/perf.data", Path(folder, "stats.json")
        perf = ["perf", "record", "--delay", str(STARTING_MS), "-e", "cpu-clock", "-F", "999", "-o", data]
        command = [
            sys.executable,
            "-m",
            "rtseg",
            "video",
            video,
            "-o",
            f"{folder}/out.mp4",
            "--stats",
            str(stats),
            "--quiet",
        ]
        subprocess.run(
            [*perf, "--", *command, *rtseg_options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        report = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", "--sort", "dso"], check=True, capture_output=True, text=True
        ).stdout
        run = json.loads(stats.read_text())
    total = run["cpu_seconds"] / run["frames"]["written"] * 1e3
    shares: Counter[str] = Counter()
    for share, library in re.findall(r"^\s+([\d.]+)%\s+(.+?)\s*$", report, re.MULTILINE):
        name = next((name for name, pattern in LIBRARIES if re.search(pattern, library)), "else")
        shares[name] += float(share)  # type: ignore[assignment]
    return {
        **{name: run[name] for name in ("model", "precision", "input_size", "encoder", "fps")},
        "cpu_ms_a_frame_total": round(total, 2),
        "cpu_ms_a_frame": {
            name: round(share / sum(shares.values()) * total, 2) for name, share in shares.most_common()
        },
    }


if __name__ == "__main__":
    main()
