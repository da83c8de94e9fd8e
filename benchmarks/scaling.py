"""Scaling of FPS, latency and memory with frame size, model, length and number of concurrent files.

    python benchmarks/scaling.py --json benchmarks/results/scaling.json --chart docs/images/scaling.png

Each run is `rtseg video` on synthetic scenes in its own process, so that memory is measured per run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rtseg.bench.measure import machine
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

SIZES = ((640, 360), (960, 540), (1280, 720), (1920, 1080), (3840, 2160))
MODELS = ("nano", "small")
LENGTHS = (100, 1000, 10_000)
JOBS = (1, 2, 3, 4)
ROUNDS = 1


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--quick", action="store_true", help="only small sizes and lengths, to test the script")
    parser.add_argument(
        "--only",
        choices=("size", "length", "jobs"),
        help="repeat only this measurement and keep the others of the JSON file",
    )
    args = parser.parse_args()
    sizes, lengths = (SIZES[:2], LENGTHS[:1]) if args.quick else (SIZES, LENGTHS)
    result: dict[str, Any] = json.loads(args.json.read_text()) if args.only else {}
    result |= {"machine": machine().to_dict(), "preset": "ultrafast"}
    parts = (args.only,) if args.only else ("size", "length", "jobs")
    with tempfile.TemporaryDirectory(prefix="rtseg-scaling-") as name:
        folder = Path(name)
        if "size" in parts:
            result["size"] = [row for size in sizes for row in by_model(size, folder)]
        video = write_scene((640, 360), 200, folder)
        if "length" in parts:
            result["length"] = [
                {"frames": length, **measure([repeated(video, length, folder)], "nano", folder, rounds=1)}
                for length in lengths
            ]
        if "jobs" in parts:
            # Long files, because the time of a run with several files includes opening and verification.
            longer = repeated(video, lengths[-1] if args.quick else 1000, folder)
            copies = [copied(longer, number, folder) for number in range(max(JOBS))]
            result["jobs"] = [{"jobs": jobs, **measure(copies, "nano", folder, "--jobs", str(jobs))} for jobs in JOBS]
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    if args.chart:
        draw_chart(result, args.chart)


def by_model(size: tuple[int, int], folder: Path) -> list[dict[str, Any]]:
    """Measure each model at one frame size."""
    video = write_scene(size, 60 if size[0] > 2000 else 150, folder)
    rows = [{"size": list(size), "model": model, **measure([video], model, folder)} for model in MODELS]
    video.unlink()
    return rows


def write_scene(size: tuple[int, int], frames: int, folder: Path) -> Path:
    """Write a synthetic scene to a file."""
    path = folder / f"{size[0]}x{size[1]}.mp4"
    write_video(SyntheticDrive(*size, frames), str(path))
    return path


def repeated(video: Path, frames: int, folder: Path) -> Path:
    """Write a file of `frames` frames by repeating the video's packets."""
    import av

    path = folder / f"{frames}.mp4"
    with av.open(str(path), "w") as out:
        stream, shift, count = None, 0, 0
        while count < frames:
            with av.open(str(video)) as source:
                input_stream = source.streams.video[0]
                stream = stream or out.add_stream_from_template(input_stream)
                end = 0
                for packet in source.demux(input_stream):
                    if packet.dts is None or count == frames:
                        continue
                    end = max(end, packet.pts + packet.duration)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                    count += 1
                shift += end
    return path


def copied(video: Path, number: int, folder: Path) -> Path:
    """Copy the video to another name."""
    path = folder / f"copy-{number}.mp4"
    path.write_bytes(video.read_bytes())
    return path


def measure(videos: list[Path], model: str, folder: Path, *more: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure `rtseg video`: the run with the median FPS."""
    stats = folder / "stats.json"
    output = str(folder / "out.mp4") if len(videos) == 1 else f"{folder}/out/"
    command = [sys.executable, "-m", "rtseg", "video", *map(str, videos), "-o", output, "--model", model]
    command += ["--preset", "ultrafast", "--stats", str(stats), "--quiet", *more]
    runs = []
    for _ in range(rounds):
        subprocess.run(command, check=True)
        runs.append(json.loads(stats.read_text()))
    run = sorted(runs, key=lambda one: float(one["fps"]))[len(runs) // 2]
    items = run.get("items", [run])
    print(f"{[v.name for v in videos]} {model} {more}: {run['fps']:.1f} fps", file=sys.stderr, flush=True)
    return {
        "fps": round(run["fps"], 2),
        "latency_ms_p50": round(statistics.median(item["latency_ms"]["p50"] for item in items), 1),
        "latency_ms_p99": round(max(item["latency_ms"]["p99"] for item in items), 1),
        "peak_rss_mib": run["peak_rss_mib"],  # of the whole process
        "cpu_ms_a_frame": round(run["cpu_seconds"] / run["frames"]["written"] * 1000, 2),
    }


def draw_chart(result: dict[str, Any], path: Path) -> None:
    """Draw a chart with three panels: size, length, concurrent files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for model, color in zip(MODELS, ("tab:green", "tab:blue"), strict=True):
        rows = [row for row in result["size"] if row["model"] == model]
        left.plot(
            [r["size"][0] * r["size"][1] / 1e6 for r in rows], [r["fps"] for r in rows], "o-", color=color, label=model
        )
    left.set(xlabel="megapixels per frame", ylabel="FPS", xscale="log", yscale="log", title="frame size")
    left.set_xticks([0.23, 0.52, 0.92, 2.07, 8.29], ["360p", "540p", "720p", "1080p", "4K"])
    left.minorticks_off()
    ticks = (5, 10, 20, 50, 100, 200)
    left.set_yticks(ticks, [str(tick) for tick in ticks])
    left.legend()
    middle.plot([r["frames"] for r in result["length"]], [r["fps"] for r in result["length"]], "o-", color="tab:green")
    middle.set(xlabel="frames in the file", xscale="log", title="length (360p, nano)", ylabel="FPS")
    memory = middle.twinx()
    memory.plot(
        [r["frames"] for r in result["length"]], [r["peak_rss_mib"] for r in result["length"]], "s--", color="tab:gray"
    )
    memory.set_ylabel("peak memory, MiB (gray)")
    middle.set_ylim(0, 1.3 * max(r["fps"] for r in result["length"]))
    memory.set_ylim(0, 2.0 * max(r["peak_rss_mib"] for r in result["length"]))
    right.plot([r["jobs"] for r in result["jobs"]], [r["fps"] for r in result["jobs"]], "o-", color="tab:green")
    right.set(xlabel="concurrent files (--jobs)", title="several files (360p, nano)", ylabel="FPS, total")
    right.set_xticks(list(JOBS))
    latency = right.twinx()
    latency.plot(
        [r["jobs"] for r in result["jobs"]], [r["latency_ms_p50"] for r in result["jobs"]], "s--", color="tab:gray"
    )
    latency.set_ylabel("median latency, ms (gray)")
    right.set_ylim(0, 1.3 * max(r["fps"] for r in result["jobs"]))
    latency.set_ylim(0, 1.1 * max(r["latency_ms_p50"] for r in result["jobs"]))
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
