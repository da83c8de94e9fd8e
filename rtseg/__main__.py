"""Entry point of `rtseg` and `python -m rtseg`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys


def main() -> None:
    """Run the command-line application. A Ctrl-C that comes while it is imported ends it without a traceback."""
    codes: list[int] = []
    atexit.register(_end_process, codes)
    try:
        from rtseg.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("rtseg: interrupted\n")
        codes.append(130)
    except SystemExit as end:
        codes.append(end.code if isinstance(end.code, int) else int(end.code is not None))
    raise SystemExit(*codes)


def _end_process(codes: list[int]) -> None:
    """End the process after Python's own exit handlers: OpenVINO's, which unload its plugins, crash in rare cases."""
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or a reader that is gone
                stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    main()
