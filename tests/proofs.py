"""Storage of the results of long tests as JSON: machine, versions, command and figures.

`make proofs` and `make fuzz` set the folder in RTSEG_KEEP_PROOFS. Without it, nothing is written.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import av

from rtseg._version import __version__
from rtseg.core.cpu import cpu_name


def keep_proof(name: str, command: str, figures: dict[str, Any]) -> None:
    """Write NAME.json into the folder RTSEG_KEEP_PROOFS."""
    folder = os.environ.get("RTSEG_KEEP_PROOFS")
    if not folder:
        return
    result = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {
            "processor": cpu_name(),
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
        },
        "versions": {
            "rtseg": __version__,
            "python": platform.python_version(),
            "pyav": av.__version__,
            "ffmpeg": av.ffmpeg_version_info,
        },
        "figures": figures,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


def resident_mib() -> float:
    """Return the current resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
