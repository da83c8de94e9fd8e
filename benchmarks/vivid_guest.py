"""Test inside the guest of `vivid_guest.sh`: `rtseg live --camera 0` on a camera that is unplugged and plugged in again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(sys.argv[1])
MODEL = REPOSITORY / "tests/data/nearest-color.onnx"
LINES, RECORD, STATS = Path("/tmp/lines.jsonl"), Path("/tmp/out.mp4"), Path("/tmp/stats.json")
DRIVER = Path("/sys/bus/platform/drivers/vivid")


def rtseg(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rtseg", *map(str, arguments)]


def count() -> int:
    return LINES.read_text().count("\n") if LINES.exists() else 0


def wait_until(done: object, event: str, process: subprocess.Popen[bytes], seconds: float = 1200) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"FAILED: {event} did not happen (exit code {process.poll()})")
        time.sleep(0.2)
    print(f"== {event}: {count()} frames so far", flush=True)


def main() -> None:
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.chdir("/tmp")
    print("==", os.uname().release, [str(path) for path in sorted(Path("/dev").glob("video*"))], flush=True)
    subprocess.run(rtseg("live", "--list-cameras"), check=True, timeout=1200)
    options = ["--model", MODEL, "--size", "160x96", "--show", "none", "--timeout", "5"]
    options += ["--camera-size", "640x360", "--camera-format", "yuyv"]
    command = rtseg("live", "--camera", "0", *options, "--record", RECORD, "--jsonl", LINES, "--stats", STATS)
    with subprocess.Popen(command) as process:
        wait_until(lambda: count() > 20, "frames", process)
        before = count()
        (DRIVER / "unbind").write_text("vivid.0")
        print("== unplugged", flush=True)
        time.sleep(4)
        subprocess.run(["/sbin/rmmod", "vivid"], check=False)
        during = count()
        subprocess.run(["/sbin/insmod", "/tmp/modules/vivid.ko"], check=True)
        print(f"== plugged in again after {during - before} frames in flight", flush=True)
        wait_until(lambda: count() > during + 20, "frames again", process)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        print(f"== exit code {code} after {time.monotonic() - begin:.2f} s", flush=True)
    report = json.loads(STATS.read_text())
    print(
        json.dumps({key: report[key] for key in ("frames", "latency_ms", "disconnects", "fps", "warnings")}, indent=1)
    )
    import av

    # In an emulated guest the end may exceed the run's timeout: the file then keeps its partial name.
    recording = RECORD if RECORD.exists() else RECORD.with_name("out.partial.mp4")
    print(f"== recording {recording.name}")
    with av.open(str(recording)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    frames = report["frames"]
    checks = {
        "exit code 0, or 1 for a file that was not complete in time": code == (0 if recording == RECORD else 1),
        "the disconnect was counted": report["disconnects"]["count"] >= 1,
        "read = segmented + dropped + corrupt": frames["read"]
        == frames["segmented"] + frames["dropped"] + frames["corrupt"],
        "every written frame decodes": 0 <= len(stamps) - frames["written"] <= 1,
        "time stamps rise": stamps == sorted(set(stamps)),
    }
    for check, passed in checks.items():
        print(f"{'ok    ' if passed else 'FAILED'} {check}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
