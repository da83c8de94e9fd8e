"""How cost grows: frames per second, latency and memory against frame size, model, length and number of files at once.

    python benchmarks/scaling.py --json benchmarks/results/scaling.json --chart docs/pictures/scaling.png

Drawn streets go through `rtseg video` in a process of its own each, so that memory is that run's alone.
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
    """Measures all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and lengths alone, to try the script")
    parser.add_argument(
        "--only", choices=("size", "length", "jobs"), help="measure this again; the rest stays as JSON has it"
    )
    args = parser.parse_args()
    sizes, lengths = (SIZES[:2], LENGTHS[:1]) if args.quick else (SIZES, LENGTHS)
    result: dict[str, Any] = json.loads(args.json.read_text()) if args.only else {}
    result |= {"machine": machine(), "preset": "ultrafast"}
    wanted = (args.only,) if args.only else ("size", "length", "jobs")
    with tempfile.TemporaryDirectory(prefix="rtseg-scaling-") as name:
        folder = Path(name)
        if "size" in wanted:
            result["size"] = [row for size in sizes for row in by_model(size, folder)]
        drive = draw((640, 360), 200, folder)
        if "length" in wanted:
            result["length"] = [
                {"frames": length, **measure([repeated(drive, length, folder)], "nano", folder, rounds=1)}
                for length in lengths
            ]
        if "jobs" in wanted:
            # Long ones: where several are in work, the time of the whole run counts, opening and checking included.
            longer = repeated(drive, lengths[-1] if args.quick else 1000, folder)
            copies = [copied(longer, number, folder) for number in range(max(JOBS))]
            result["jobs"] = [{"jobs": jobs, **measure(copies, "nano", folder, "--jobs", str(jobs))} for jobs in JOBS]
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    if args.chart:
        draw_chart(result, args.chart)


def by_model(size: tuple[int, int], folder: Path) -> list[dict[str, Any]]:
    """One frame size, each model."""
    drive = draw(size, 60 if size[0] > 2000 else 150, folder)
    rows = [{"size": list(size), "model": model, **measure([drive], model, folder)} for model in MODELS]
    drive.unlink()
    return rows


def draw(size: tuple[int, int], frames: int, folder: Path) -> Path:
    """A drawn street as a file."""
    path = folder / f"{size[0]}x{size[1]}.mp4"
    write_video(SyntheticDrive(*size, frames), str(path), quiet=True)
    return path


def repeated(drive: Path, frames: int, folder: Path) -> Path:
    """The drive again and again, `frames` long, its packets copied."""
    import av

    path = folder / f"{frames}.mp4"
    with av.open(str(path), "w") as out:
        stream, shift, count = None, 0, 0
        while count < frames:
            with av.open(str(drive)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                end = 0
                for packet in source.demux(video):
                    if packet.dts is None or count == frames:
                        continue
                    end = max(end, packet.pts + packet.duration)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                    count += 1
                shift += end
    return path


def copied(drive: Path, number: int, folder: Path) -> Path:
    """The drive under another name."""
    path = folder / f"copy-{number}.mp4"
    path.write_bytes(drive.read_bytes())
    return path


def measure(videos: list[Path], model: str, folder: Path, *more: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Median run of `rtseg video`, by frames per second."""
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
    """Three panels: size, length, files at once."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for model, color in zip(MODELS, ("tab:green", "tab:blue"), strict=True):
        rows = [row for row in result["size"] if row["model"] == model]
        left.plot(
            [r["size"][0] * r["size"][1] / 1e6 for r in rows], [r["fps"] for r in rows], "o-", color=color, label=model
        )
    left.set(xlabel="megapixels a frame", ylabel="frames a second", xscale="log", yscale="log", title="frame size")
    left.set_xticks([0.23, 0.52, 0.92, 2.07, 8.29], ["360p", "540p", "720p", "1080p", "4K"])
    left.minorticks_off()
    ticks = (5, 10, 20, 50, 100, 200)
    left.set_yticks(ticks, [str(tick) for tick in ticks])
    left.legend()
    middle.plot([r["frames"] for r in result["length"]], [r["fps"] for r in result["length"]], "o-", color="tab:green")
    middle.set(xlabel="frames of the file", xscale="log", title="length (360p, nano)", ylabel="frames a second")
    memory = middle.twinx()
    memory.plot(
        [r["frames"] for r in result["length"]], [r["peak_rss_mib"] for r in result["length"]], "s--", color="tab:gray"
    )
    memory.set_ylabel("peak memory, MiB (gray)")
    middle.set_ylim(0, 1.3 * max(r["fps"] for r in result["length"]))
    memory.set_ylim(0, 2.0 * max(r["peak_rss_mib"] for r in result["length"]))
    right.plot([r["jobs"] for r in result["jobs"]], [r["fps"] for r in result["jobs"]], "o-", color="tab:green")
    right.set(
        xlabel="files at once (--jobs)", title="several files (360p, nano)", ylabel="frames a second, all together"
    )
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
