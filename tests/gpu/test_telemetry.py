"""Telemetry: readings of a Jetson's files and of a GPU's NVML; a warning when the device throttles; nothing on a PC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtseg.gpu.telemetry import Telemetry, TelemetryMonitor
from rtseg.live.sinks.prometheus import exposition

ORIN_NANO = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": "# < POWER_MODEL ID=1 NAME=OLD >\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/class/devfreq/17000000.gpu/device/load": "934\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1344000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1344000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "70250\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "71500\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",  # switched off: its temperature can't be read
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "2840\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
    "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon2/oc3_event_cnt": "12\n",
}  # fmt: skip


class Board:
    """A folder with the files of a Jetson's root."""

    def __init__(self, root: Path, files: dict[str, str] = ORIN_NANO) -> None:
        self.root = root
        for name, text in files.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Nvml:
    """NVML with `gpus` GPUs; None for a value: the GPU does not support it."""

    def __init__(self, gpus: int = 1, *, celsius: int | None = 64, reasons: int | None = 1, init: int = 0) -> None:
        self.gpus, self.celsius, self.reasons, self.init = gpus, celsius, reasons, init

    @staticmethod
    def _return(pointer: Any, value: int | None) -> int:
        if value is None:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        pointer._obj.value = value
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's names
        return self.init

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        return self._return(count, self.gpus)

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, gpu: Any) -> int:  # noqa: N802
        return self._return(gpu, number + 1)

    def nvmlDeviceGetUtilizationRates(self, gpu: Any, load: Any) -> int:  # noqa: N802
        load._obj.gpu = 87
        return 0

    def nvmlDeviceGetTemperature(self, gpu: Any, sensor: int, value: Any) -> int:  # noqa: N802
        return self._return(value, None if self.celsius is None else self.celsius + gpu.value)

    def nvmlDeviceGetPowerUsage(self, gpu: Any, value: Any) -> int:  # noqa: N802
        return self._return(value, 312_500)

    def nvmlDeviceGetClockInfo(self, gpu: Any, kind: int, value: Any) -> int:  # noqa: N802
        return self._return(value, 1410)

    def nvmlDeviceGetMaxClockInfo(self, gpu: Any, kind: int, value: Any) -> int:  # noqa: N802
        return self._return(value, 1980)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: Any, value: Any) -> int:  # noqa: N802
        return self._return(value, self.reasons)


MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
NO_NVML = Nvml(init=9)  # NVML_ERROR_DRIVER_NOT_LOADED


def test_orin_nano_readings(tmp_path: Path) -> None:
    assert Telemetry(Board(tmp_path).root, NO_NVML).read() == {
        "power_mode": "25W",
        "gpu_load_ratio": 0.934,
        "gpu_hertz": 612e6,
        "gpu_max_hertz": 918e6,
        "cpu_hertz": 1344e6,
        "cpu_max_hertz": 1344e6,
        "cpu_celsius": 70.25,
        "gpu_celsius": 71.5,
        "vdd_in_watts": 14.2,
        "throttled": False,
    }


def test_power_mode_without_a_name_is_its_number(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.write("var/lib/nvpmodel/status", "pmode:0008")
    assert Telemetry(board.root, NO_NVML).read()["power_mode"] == "8"


def test_throttling_is_reported_once_with_advice(tmp_path: Path) -> None:
    board = Board(tmp_path)
    monitor = TelemetryMonitor(Telemetry(board.root, NO_NVML))
    assert monitor.poll(0.0) is None
    assert monitor.latest["throttled"] is False
    board.write("sys/class/thermal/cooling_device1/cur_state", "1\n")
    warning = monitor.poll(1.0)
    assert warning is not None
    assert "gpu-throttle-alert" in warning
    assert "nvpmodel" in warning
    assert "jetson_clocks" in warning
    assert monitor.poll(2.0) is None
    assert monitor.latest["throttled_by"] == ["gpu-throttle-alert"]
    board.write("sys/class/thermal/cooling_device1/cur_state", "0\n")
    assert monitor.poll(3.0) is None
    assert monitor.latest["throttled"] is False
    assert monitor.latest["throttled_seconds"] == 2.0
    board.write("sys/class/thermal/cooling_device1/cur_state", "1\n")
    assert monitor.poll(4.0) is None  # reported 3 seconds ago
    assert monitor.notes[0].startswith("the device throttled for 3 s (gpu-throttle-alert): ")
    board.write("sys/class/thermal/cooling_device1/cur_state", "0\n")
    monitor.poll(5.0)
    board.write("sys/class/thermal/cooling_device1/cur_state", "1\n")
    assert monitor.poll(90.0) is not None


def test_over_current_events_before_the_run_are_ignored(tmp_path: Path) -> None:
    board = Board(tmp_path)
    telemetry = Telemetry(board.root, NO_NVML)
    assert telemetry.read()["throttled"] is False  # the twelve events are from before
    board.write("sys/class/hwmon/hwmon2/oc3_event_cnt", "13\n")
    board.write("sys/class/hwmon/hwmon2/oc1_event_cnt", "1\n")
    assert telemetry.read()["throttled_by"] == ["under-voltage", "over-current"]
    assert telemetry.read()["throttled"] is False


def test_sensors_are_read_at_most_once_a_second(tmp_path: Path) -> None:
    board = Board(tmp_path)
    monitor = TelemetryMonitor(Telemetry(board.root, NO_NVML))
    monitor.poll(0.0)
    board.write("sys/class/thermal/thermal_zone1/temp", "90000\n")
    monitor.poll(0.5)
    assert monitor.latest["gpu_celsius"] == 71.5
    monitor.poll(1.0)
    assert monitor.latest["gpu_celsius"] == 90.0


def test_discrete_gpu_readings(tmp_path: Path) -> None:
    gpu = {"load_ratio": 0.87, "celsius": 65, "watts": 312.5, "hertz": 1410e6, "max_hertz": 1980e6}
    assert Telemetry(tmp_path, Nvml()).read() == {
        **{f"gpu_{name}": value for name, value in gpu.items()},
        "throttled": False,
    }
    without = Telemetry(tmp_path, Nvml(celsius=None, reasons=None)).read()
    assert "gpu_celsius" not in without
    assert without["throttled"] is False
    two = Telemetry(tmp_path, Nvml(2)).read()
    assert (two["gpu0_celsius"], two["gpu1_celsius"]) == (65, 66)


@pytest.mark.parametrize(
    ("bits", "reason"), [(0x20, "heat"), (0x40 | 0x8, "hardware slowdown, heat"), (0x4, "power cap")]
)
def test_gpu_throttling_is_reported_with_its_reason(tmp_path: Path, bits: int, reason: str) -> None:
    warning = TelemetryMonitor(Telemetry(tmp_path, Nvml(reasons=bits))).poll(0.0)
    assert warning is not None
    assert f"({reason})" in warning
    assert "nvidia-smi" in warning
    assert "nvpmodel" not in warning


def test_sysfs_takes_precedence_over_nvml_on_a_jetson(tmp_path: Path) -> None:
    readings = Telemetry(Board(tmp_path).root, Nvml(celsius=None, reasons=0x20)).read()
    assert (readings["gpu_load_ratio"], readings["gpu_celsius"], readings["gpu_watts"]) == (0.934, 71.5, 312.5)
    assert readings["throttled_by"] == ["heat"]


def test_pc_without_sensors_has_no_readings(tmp_path: Path) -> None:
    pc = {name: text for name, text in ORIN_NANO.items() if not name.startswith(("proc", "var", "etc"))}
    monitor = TelemetryMonitor(Telemetry(Board(tmp_path, pc).root, NO_NVML))
    assert monitor.poll(0.0) is None
    assert monitor.latest == {}
    assert monitor.notes == ()


def test_prometheus_metrics_contain_the_readings(tmp_path: Path) -> None:
    text = exposition({"telemetry": Telemetry(Board(tmp_path).root, NO_NVML).read()})
    assert 'rtseg_device{reading="gpu_celsius"} 71.5' in text
    assert 'rtseg_device{reading="throttled"} 0' in text
    assert "power_mode" not in text
    assert "rtseg_device" not in exposition({"frames": {}})


def test_video_statistics_contain_the_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`process` with a Jetson's root in place of this machine's; without a Jetson the field is absent."""
    from rtseg.inference.segmenter import Segmenter
    from rtseg.io.options import OutputOptions
    from rtseg.render.style import Style
    from rtseg.synthetic import SyntheticDrive
    from rtseg.synthetic.video_file import write_video
    from rtseg.video import process as process_module

    write_video(SyntheticDrive(128, 96, frames=3), str(tmp_path / "drive.mp4"), quiet=True)
    board = Board(tmp_path / "board")
    board.write("sys/class/thermal/cooling_device1/cur_state", "1\n")

    def run(root: Path) -> dict[str, Any]:
        monkeypatch.setattr(process_module, "TelemetryMonitor", lambda: TelemetryMonitor(Telemetry(root, NO_NVML)))
        style, encoding = Style(), OutputOptions(preset="ultrafast")
        with Segmenter(MODEL, size=(128, 96)) as segmenter:
            return process_module.process(
                str(tmp_path / "drive.mp4"), str(tmp_path / "out.mp4"), segmenter, style, encoding, quiet=True
            )

    report = run(board.root)
    assert report["telemetry"]["power_mode"] == "25W"
    assert any("jetson_clocks" in note for note in report["notes"])
    assert "telemetry" not in run(tmp_path / "pc")


def test_live_run_logs_throttling_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from rtseg.inference.segmenter import Segmenter
    from rtseg.live import run as live_run
    from rtseg.live.controls import Controls, LiveMetrics
    from rtseg.live.inputs import find_inputs
    from rtseg.live.outputs import Outputs
    from rtseg.render.style import Style
    from rtseg.synthetic import SyntheticDrive
    from rtseg.synthetic.video_file import write_video

    video = tmp_path / "drive.mp4"
    write_video(SyntheticDrive(128, 96, frames=45), str(video), quiet=True)
    board = Board(tmp_path / "board")
    board.write("sys/class/thermal/cooling_device1/cur_state", "1\n")
    monkeypatch.setattr(live_run, "TelemetryMonitor", lambda: TelemetryMonitor(Telemetry(board.root, NO_NVML)))
    metrics = LiveMetrics()
    with Segmenter(MODEL, size=(128, 96)) as segmenter:
        inputs, outputs = find_inputs(urls=[str(video)], realtime=True), Outputs(show=("none",))
        report = live_run.run_live(inputs, outputs, segmenter, Style(), Controls(), metrics=metrics)
    assert report["telemetry"]["throttled_by"] == ["gpu-throttle-alert"]
    assert 'rtseg_device{reading="throttled"} 1' in exposition(metrics.latest)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "the device throttles" in line]
    assert len(warnings) == 1
    assert "nvpmodel" in warnings[0]
