"""Entry point of `rtseg` and `python -m rtseg`."""

import sys


def main() -> None:
    """Run the command-line application. A Ctrl-C that comes while it is imported ends it without a traceback."""
    try:
        from rtseg.cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("rtseg: interrupted\n")
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
