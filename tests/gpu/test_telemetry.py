"""Telemetry: readings of a Jetson's files and of a GPU's NVML; a warning when the device throttles; nothing on a PC."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from command import MODEL

from rtseg.core.report import TelemetryReport
from rtseg.gpu import telemetry
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


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Nvml:
    """`pynvml` with `gpus` GPUs; None for a value: the GPU does not support it."""

    def __init__(
        self, gpus: int = 1, *, celsius: int | None = 64, reasons: int | None = 1, driver: bool = True
    ) -> None:
        self._results = {
            "nvmlInit": 0 if driver else None,
            "nvmlDeviceGetCount": gpus,
            "nvmlDeviceGetHandleByIndex": lambda number: number,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87),
            "nvmlDeviceGetTemperature": celsius and (lambda gpu, sensor: celsius + gpu),
            "nvmlDeviceGetPowerUsage": 312_500,
            "nvmlDeviceGetClockInfo": 1410,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetCurrentClocksThrottleReasons": reasons,
        }

    def __getattr__(self, name: str) -> Any:
        original = getattr(pynvml, name)
        if not name.startswith("nvml"):
            return original  # a constant, or NVMLError
        result = self._results[name]

        def call(*arguments: Any) -> Any:
            if result is None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return result(*arguments) if callable(result) else result

        return call


def read() -> TelemetryReport:
    report = Telemetry().read()
    assert report
    return report


class Sensors:
    """Replaces this machine's sensors and the clock of `poll`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def use(self, root: Path, nvml: Nvml | None = None) -> None:
        """Read a Jetson's files from `root`, and GPUs from `nvml`; None: there is no NVIDIA driver."""
        self._patch.setattr(telemetry, "_ROOT", root)
        self._patch.setattr(telemetry, "pynvml", nvml or Nvml(driver=False))

    def read(self, root: Path, nvml: Nvml | None = None) -> TelemetryReport:
        self.use(root, nvml)
        return read()

    def poll(self, monitor: TelemetryMonitor, now_seconds: float) -> str | None:
        self._patch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: now_seconds))
        return monitor.poll()


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch) -> Sensors:
    return Sensors(monkeypatch)


@pytest.fixture
def board(tmp_path: Path, sensors: Sensors) -> Path:
    """A folder with the files of a Jetson's root."""
    for name, text in ORIN_NANO.items():
        write(tmp_path / "board", name, text)
    sensors.use(tmp_path / "board")
    return tmp_path / "board"


def test_orin_nano_readings(board: Path) -> None:
    report = read()
    assert report.throttled is False
    assert report.sensors == {
        "power_mode": "25W",
        "gpu_load_ratio": 0.934,
        "gpu_hertz": 612e6,
        "gpu_max_hertz": 918e6,
        "cpu_hertz": 1344e6,
        "cpu_max_hertz": 1344e6,
        "cpu_celsius": 70.25,
        "gpu_celsius": 71.5,
        "vdd_in_watts": 14.2,
    }
    write(board, "var/lib/nvpmodel/status", "pmode:0008")
    assert read().sensors["power_mode"] == "8", "a mode without a name"


def test_throttling_is_reported_once_with_advice(board: Path, sensors: Sensors) -> None:
    monitor = TelemetryMonitor()

    def poll(now_seconds: float, state: int) -> str | None:
        write(board, "sys/class/thermal/cooling_device1/cur_state", f"{state}\n")
        return sensors.poll(monitor, now_seconds)

    assert poll(0.0, 0) is None
    assert monitor.latest
    assert monitor.latest.throttled is False
    warning = poll(1.0, 1)
    assert warning is not None
    assert all(word in warning for word in ("gpu-throttle-alert", "nvpmodel", "jetson_clocks"))
    assert poll(2.0, 1) is None
    assert monitor.latest.throttled_by == ("gpu-throttle-alert",)
    assert poll(3.0, 0) is None
    assert (monitor.latest.throttled, monitor.latest.throttled_seconds) == (False, 2.0)
    assert poll(4.0, 1) is None, "reported 3 seconds ago"
    assert monitor.notes[0].startswith("the device throttled for 3 s (gpu-throttle-alert): ")
    poll(5.0, 0)
    assert poll(90.0, 1) is not None


def test_over_current_events_before_the_run_are_ignored(board: Path) -> None:
    reader = Telemetry()

    def throttled_by() -> tuple[str, ...]:
        report = reader.read()
        assert report
        assert report.throttled == bool(report.throttled_by)
        return report.throttled_by

    assert throttled_by() == ()  # the twelve events are from before
    write(board, "sys/class/hwmon/hwmon2/oc3_event_cnt", "13\n")
    write(board, "sys/class/hwmon/hwmon2/oc1_event_cnt", "1\n")
    assert throttled_by() == ("under-voltage", "over-current")
    assert throttled_by() == ()


def test_sensors_are_read_at_most_once_a_second(board: Path, sensors: Sensors) -> None:
    monitor = TelemetryMonitor()
    sensors.poll(monitor, 0.0)
    write(board, "sys/class/thermal/thermal_zone1/temp", "90000\n")
    sensors.poll(monitor, 0.5)
    assert monitor.latest
    assert monitor.latest.sensors["gpu_celsius"] == 71.5
    sensors.poll(monitor, 1.0)
    assert monitor.latest.sensors["gpu_celsius"] == 90.0


def test_discrete_gpu_readings(tmp_path: Path, sensors: Sensors) -> None:
    gpu = {"load_ratio": 0.87, "celsius": 64, "watts": 312.5, "hertz": 1410e6, "max_hertz": 1980e6}
    assert sensors.read(tmp_path, Nvml()).sensors == {f"gpu_{name}": value for name, value in gpu.items()}
    without = sensors.read(tmp_path, Nvml(celsius=None, reasons=None))
    assert "gpu_celsius" not in without.sensors
    assert without.throttled is False
    two = sensors.read(tmp_path, Nvml(2)).sensors
    assert (two["gpu0_celsius"], two["gpu1_celsius"]) == (64, 65)


@pytest.mark.parametrize(
    ("bits", "reason"), [(0x20, "heat"), (0x40 | 0x8, "hardware slowdown, heat"), (0x4, "power cap")]
)
def test_gpu_throttling_is_reported_with_its_reason(tmp_path: Path, sensors: Sensors, bits: int, reason: str) -> None:
    sensors.use(tmp_path, Nvml(reasons=bits))
    warning = TelemetryMonitor().poll()
    assert warning is not None
    assert f"({reason})" in warning
    assert "nvidia-smi" in warning
    assert "nvpmodel" not in warning


def test_sysfs_takes_precedence_over_nvml_on_a_jetson(board: Path, sensors: Sensors) -> None:
    report = sensors.read(board, Nvml(celsius=None, reasons=0x20))
    readings = report.sensors
    assert (readings["gpu_load_ratio"], readings["gpu_celsius"], readings["gpu_watts"]) == (0.934, 71.5, 312.5)
    assert report.throttled_by == ("heat",)


def test_pc_without_sensors_has_no_readings(tmp_path: Path, sensors: Sensors) -> None:
    for name, text in ORIN_NANO.items():
        if not name.startswith(("proc", "var", "etc")):
            write(tmp_path, name, text)
    sensors.use(tmp_path)
    monitor = TelemetryMonitor()
    assert monitor.poll() is None
    assert monitor.latest is None
    assert monitor.notes == ()


def test_live_run_logs_throttling_once(board: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from rtseg.inference.segmenter import Segmenter
    from rtseg.live import run as live_run
    from rtseg.live.controls import Controls
    from rtseg.live.inputs import find_inputs
    from rtseg.live.options import Outputs
    from rtseg.render.style import Style
    from rtseg.synthetic import SyntheticDrive
    from rtseg.synthetic.video_file import write_video

    video = tmp_path / "drive.mp4"
    write_video(SyntheticDrive(128, 96, frames=45), str(video))
    write(board, "sys/class/thermal/cooling_device1/cur_state", "1\n")
    with Segmenter(MODEL, size=(128, 96)) as segmenter:
        inputs, outputs = find_inputs(urls=[str(video)], realtime=True), Outputs(show=("none",))
        report = live_run.run_live(inputs, outputs, [segmenter], Style(), Controls())
    assert report.telemetry
    assert report.telemetry.throttled_by == ("gpu-throttle-alert",)
    text = exposition(report)
    assert 'rtseg_device{reading="gpu_celsius"} 71.5' in text
    assert 'rtseg_device{reading="throttled"} 1' in text
    assert "power_mode" not in text
    warnings = [message for message in caplog.messages if "the device throttles" in message]
    assert len(warnings) == 1
    assert "nvpmodel" in warnings[0]
