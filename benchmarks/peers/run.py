"""Benchmark of rtseg against other tools: same file, same weights, same input size, alternating in one run.

    python benchmarks/peers/run.py VIDEO --model small --rounds 5 --json benchmarks/results/peers-small-720p.json

Each peer runs in its own environment (`.venv-peers/NAME`, created from `requirements/NAME.txt` if it is missing) as its
documentation shows. rtseg runs with the same weights in the precision that OpenVINO uses for all (`rtseg`), and with its default
model (`rtseg_default`: the same network, in INT8 on CPUs with VNNI). OpenCV's wheel has no H.264 encoder, so each peer runs twice:
with its own writer (MPEG-4 part 2), and with its frames encoded by PyAV with rtseg's x264 settings. The second is the fair
comparison. rtseg runs before each pair; ratios are within a round, reported as median, smallest and largest.
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
from rtseg.inference.bundled_models import find_weights
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source

HERE = Path(__file__).parent
PEERS = {
    "torch": ("torch_script.py", "OpenCV, torch FP32, NumPy overlay"),
    "onnxruntime": ("onnxruntime_script.py", "OpenCV, ONNX Runtime, NumPy overlay"),
    "model-api": ("intel_model_api.py", "openvino-model-api's AsyncPipeline, OpenCV"),
    "supervision": ("supervision_script.py", "supervision, OpenVINO"),
}
WRITERS = ("pyav", "own")


def main() -> None:
    """Run all tools and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--model", default="small")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    size, frames = _sizes(args.video, args.model)
    python = {name: environment(name) for name in args.peers}
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rtseg-peers-") as folder:
        prepare = [sys.executable, "-W", "ignore", HERE / "prepare.py", args.model, *map(str, size), folder]
        subprocess.run(prepare, check=True, capture_output=True)
        for number in range(args.rounds):
            row: dict[str, Any] = {}
            for name in args.peers:
                ours = run_rtseg(args.video, args.model, args.preset, folder)
                row[name] = {"rtseg": ours, "rtseg_default": run_rtseg(args.video, None, args.preset, folder)}
                for writer in WRITERS:
                    row[name][writer] = run_peer(python[name], name, writer, args, size, Path(folder))
                    print(
                        f"round {number + 1}, {name} ({writer}): {row[name][writer]['fps']:.1f} fps, "
                        f"rtseg {ours['fps']:.1f}, ratio {ours['fps'] / row[name][writer]['fps']:.2f}",
                        file=sys.stderr,
                        flush=True,
                    )
            rounds.append(row)
    result = {
        "video": Path(args.video).name,
        "frames": frames,
        "model": args.model,
        "input_size": list(size),
        "preset": args.preset,
        "machine": machine().to_dict(),
        "peers": {name: summary(name, [row[name] for row in rounds]) for name in args.peers},
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {args.json}", file=sys.stderr)


def environment(name: str) -> Path:
    """Return the peer's Python; create its environment if it is missing."""
    folder = HERE.parents[1] / ".venv-peers" / name
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"creating {folder.name}'s environment", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        requirements = HERE / "requirements" / f"{name}.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    return python


def run_rtseg(video: str, model: str | None, preset: str, folder: str) -> dict[str, Any]:
    """Run `rtseg video` once as a user would; `model` None: the default model."""
    stats = Path(folder) / "stats.json"
    command = [sys.executable, "-m", "rtseg", "video", video, "-o", f"{folder}/rtseg.mp4"]
    command += ["--model", model] if model else []
    subprocess.run([*command, "--preset", preset, "--stats", stats, "--quiet"], check=True)
    report = json.loads(stats.read_text())
    written = report["frames"]["written"]
    return {
        "frames": written,
        "seconds": report["seconds"],
        "fps": report["fps"],
        "precision": report["precision"],
        "cpu_ms_a_frame": report["cpu_seconds"] / written * 1000,
        "peak_rss_mib": report["peak_rss_mib"],
    }


def run_peer(
    python: Path, name: str, writer: str, args: argparse.Namespace, size: tuple[int, int], folder: Path
) -> dict[str, Any]:
    """Run a peer once."""
    weights = find_weights(args.model) if name == "torch" else folder / f"{args.model}-scores.onnx"
    command = [python, HERE / PEERS[name][0], args.video, "--weights", weights, "--size", *size, "--writer", writer]
    command += ["--preset", args.preset, "--output", folder / "peer.mp4"]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"{name} failed; see above")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(name: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians, and the ratios of FPS as median, smallest and largest."""
    report: dict[str, Any] = {"what": PEERS[name][1], "packages": rounds[0]["own"]["packages"]}
    for writer in WRITERS:
        report[writer] = medians([row[writer] for row in rounds])
        for ours in ("rtseg", "rtseg_default"):
            ratios = [row[ours]["fps"] / row[writer]["fps"] for row in rounds]
            report[writer][f"ratio_{ours}"] = [
                round(x, 2) for x in (statistics.median(ratios), min(ratios), max(ratios))
            ]
        report[writer]["pairs"] = len(rounds)
    for ours in ("rtseg", "rtseg_default"):
        report[ours] = {**medians([row[ours] for row in rounds]), "precision": rounds[0][ours]["precision"]}
    return report


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of FPS, CPU time and memory."""
    return {
        key: round(statistics.median(run[key] for run in runs), digits)
        for key, digits in (("fps", 2), ("cpu_ms_a_frame", 1), ("peak_rss_mib", 0))
    }


def _sizes(video: str, model: str) -> tuple[tuple[int, int], int]:
    """Return rtseg's network input size for this file, and the file's number of frames."""
    source = open_source(video)
    try:
        with Segmenter(model) as segmenter:
            size = segmenter.input_size_for(source.info.width, source.info.height)
        return size, source.info.frame_count or 0
    finally:
        source.close()


if __name__ == "__main__":
    main()
