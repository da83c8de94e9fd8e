"""Temperature, power and clocks of a Jetson (sysfs) or a discrete NVIDIA GPU (NVML); empty on other machines.

Source of the Jetson's sysfs paths: Jetson Linux Developer Guide, "Platform Power and Performance"
(https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/PlatformPowerAndPerformance/JetsonOrinNanoSeriesJetsonOrinNxSeriesAndJetsonAgxOrinSeries.html).
NVML: https://docs.nvidia.com/deploy/nvml-api/.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml

from rtseg.core.report import TelemetryReport

_ROOT = Path("/")
"""Folder that contains `sys`, `proc`, `etc` and `var`."""

_GPU_DEVFREQ = re.compile(r"gpu|ga10b|gv11b")
_LOWERS_CLOCKS = re.compile(r"throttle-alert|cpufreq|devfreq")
"""Cooling devices that lower clocks; fans are cooling devices too."""

_OVER_CURRENT = {"oc1": "under-voltage", "oc2": "over-current", "oc3": "over-current"}

_NVML_READINGS: dict[str, Callable[[Any], float]] = {
    "load_ratio": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "celsius": lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    "watts": lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "hertz": lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_GRAPHICS) * 1e6,
    "max_hertz": lambda gpu: pynvml.nvmlDeviceGetMaxClockInfo(gpu, pynvml.NVML_CLOCK_GRAPHICS) * 1e6,
}
_NVML_REASONS = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
"""Bits of nvmlClocksThrottleReasons that mean throttling; the others mean an idle GPU or clocks set by an application."""

_JETSON_HINT = (
    "more power: `sudo nvpmodel -q`, then `-m` a higher mode; full clocks: `sudo jetson_clocks`; or cool it better"
)
_GPU_HINT = "`nvidia-smi -q -d PERFORMANCE,TEMPERATURE` shows more"


class Telemetry:
    """Reader of this machine's sensors. `read` is cheap enough for one call a second.

    Sensors, each present if the device reports it:

        "power_mode": "15W"                    a Jetson's nvpmodel
        "gpu_load_ratio": 0.93
        "gpu_hertz": 612000000, "gpu_max_hertz": 1020000000, "cpu_hertz": ..., "cpu_max_hertz": ...
        "gpu_celsius": 71.5, "cpu_celsius": 70.0, "tj_celsius": 72.1
        "vdd_in_watts": 14.2, "gpu_watts": 310.0

    With several GPUs names begin with `gpu0_`, `gpu1_`, in nvidia-smi's order.
    """

    def __init__(self) -> None:
        """Detect a Jetson and open the GPUs of NVML."""
        compatible = _ROOT / "proc/device-tree/compatible"
        self._jetson = compatible.exists() and b"nvidia,tegra" in compatible.read_bytes()
        self._gpus = _open_gpus()
        self._events = dict(self._over_current())

    @property
    def hint(self) -> str:
        """Advice for a device that throttles."""
        return _JETSON_HINT if self._jetson else _GPU_HINT

    def read(self) -> TelemetryReport | None:
        """Return the current readings; None without sensors. `throttled` covers the time since the last call."""
        sensors: dict[str, float | str] = {}
        reasons: list[str] = []
        if self._jetson:
            sensors |= {name: value for name, value in self._jetson_readings() if value is not None}
            reasons += self._jetson_throttling()
        for number, gpu in enumerate(self._gpus):
            prefix = f"gpu{number}_" if len(self._gpus) > 1 else "gpu_"
            of_gpu, gpu_reasons = _gpu_readings(gpu)
            # A Jetson may have an NVML with fewer readings: those of sysfs take precedence.
            sensors = {**{prefix + name: value for name, value in of_gpu.items()}, **sensors}
            reasons += gpu_reasons
        if not sensors:
            return None
        return TelemetryReport(sensors=sensors, throttled=bool(reasons), throttled_by=tuple(dict.fromkeys(reasons)))

    # Jetson

    def _jetson_readings(self) -> Iterator[tuple[str, float | str | None]]:
        """Yield name and value of each sensor; None: the sensor is missing or switched off."""
        yield "power_mode", self._power_mode()
        yield from self._clocks()
        for zone in sorted(_ROOT.glob("sys/class/thermal/thermal_zone*")):
            if name := _text(zone / "type"):
                yield f"{_plain(name.removesuffix('-thermal'))}_celsius", _thousandths(zone / "temp")
        for monitor in self._monitors("ina3221"):
            for label in sorted(monitor.glob("in*_label")):
                channel = label.name.removeprefix("in").removesuffix("_label")
                millivolt, milliampere = (_number(monitor / f"{kind}{channel}_input") for kind in ("in", "curr"))
                if millivolt is not None and milliampere is not None:
                    yield f"{_plain(_text(label) or channel)}_watts", round(millivolt * milliampere / 1e6, 3)

    def _power_mode(self) -> str | None:
        mode = re.search(r"pmode:0*(\d+)", _text(_ROOT / "var/lib/nvpmodel/status") or "")
        if mode is None:
            return None
        config = _text(_ROOT / "etc/nvpmodel.conf") or ""
        name = re.search(rf"^\s*<\s*POWER_MODEL\s+ID={mode[1]}\s+NAME=(\S+)", config, re.MULTILINE)
        return name[1] if name else mode[1]

    def _clocks(self) -> Iterator[tuple[str, float | None]]:
        devices = sorted(_ROOT.glob("sys/class/devfreq/*"))
        for gpu in [path for path in devices if _GPU_DEVFREQ.search(path.name)][:1]:
            yield "gpu_load_ratio", _thousandths(gpu / "device/load")
            yield "gpu_hertz", _number(gpu / "cur_freq")
            yield "gpu_max_hertz", _number(gpu / "max_freq")
        for name, file in (("cpu_hertz", "scaling_cur_freq"), ("cpu_max_hertz", "scaling_max_freq")):
            cores = [_number(path) for path in _ROOT.glob(f"sys/devices/system/cpu/cpu[0-9]*/cpufreq/{file}")]
            kilohertz = max((core for core in cores if core is not None), default=None)
            yield name, None if kilohertz is None else kilohertz * 1e3

    def _jetson_throttling(self) -> list[str]:
        reasons = []
        for device in sorted(_ROOT.glob("sys/class/thermal/cooling_device*")):
            name = _text(device / "type") or ""
            if _LOWERS_CLOCKS.search(name) and (_number(device / "cur_state") or 0) > 0:
                reasons.append(name)
        previous, self._events = self._events, dict(self._over_current())
        reasons += [_OVER_CURRENT[name] for name, count in self._events.items() if count > previous.get(name, count)]
        return reasons

    def _over_current(self) -> Iterator[tuple[str, float]]:
        """Yield the over-current event counters since the board's start."""
        for monitor in self._monitors("soctherm_oc"):
            for name in _OVER_CURRENT:
                count = _number(monitor / f"{name}_event_cnt")
                if count is not None:
                    yield name, count

    def _monitors(self, kind: str) -> list[Path]:
        monitors = sorted(_ROOT.glob("sys/class/hwmon/hwmon*")) if self._jetson else []
        return [monitor for monitor in monitors if _text(monitor / "name") == kind]


class TelemetryMonitor:
    """Telemetry of a run: at most one reading a second, and a warning when the device throttles."""

    _SILENT_SECONDS = 60.0
    """Minimum time between the end of one throttling and the warning about the next."""

    def __init__(self) -> None:
        """Open this machine's sensors."""
        self._telemetry = Telemetry()
        self._read_at = self._throttled_at = -float("inf")
        self.latest: TelemetryReport | None = None
        """The last readings, with the run's `throttled_seconds`; None without sensors."""
        self._throttled_seconds = 0.0
        self._reasons: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """One line about the throttling during the run; empty if there was none."""
        if not self._reasons:
            return ()
        reasons = ", ".join(self._reasons)
        return (f"the device throttled for {self._throttled_seconds:.0f} s ({reasons}): {self._telemetry.hint}",)

    def poll(self) -> str | None:
        """Read the sensors, unless the last reading is less than a second old.

        Returns:
            A human-readable warning if the device has begun to throttle, else None.
        """
        now = time.monotonic()
        if now - self._read_at < 1.0:
            return None
        elapsed, self._read_at = min(now - self._read_at, 2.0), now
        readings = self._telemetry.read()
        if readings is None:
            return None
        warning = None
        if readings.throttled:
            self._throttled_seconds += elapsed
            if now - self._throttled_at > self._SILENT_SECONDS:
                warning = f"the device throttles ({', '.join(readings.throttled_by)}): {self._telemetry.hint}"
            self._throttled_at = now
            self._reasons |= dict.fromkeys(readings.throttled_by)
        self.latest = replace(readings, throttled_seconds=round(self._throttled_seconds, 1))
        return warning


def _text(path: Path) -> str | None:
    """Return a file's text; None if it is missing or can't be read, as for a sensor that is switched off."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def _thousandths(path: Path) -> float | None:
    number = _number(path)
    return None if number is None else number / 1e3


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_")


# NVML


def _open_gpus() -> list[Any]:
    """Return NVML's handles of the GPUs; empty without an NVIDIA driver."""
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu_readings(gpu: Any) -> tuple[dict[str, float], list[str]]:
    """Return a GPU's readings and its throttle reasons, without those that the GPU does not support."""
    readings: dict[str, float] = {}
    for name, read in _NVML_READINGS.items():
        with suppress(pynvml.NVMLError):
            readings[name] = read(gpu)
    reasons = 0
    with suppress(pynvml.NVMLError):
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return readings, [name for bit, name in _NVML_REASONS.items() if reasons & bit]
