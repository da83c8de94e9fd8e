"""Entry point of `python -m rtseg`, which is equivalent to `rtseg`."""

from rtseg.cli.app import main

if __name__ == "__main__":
    main()
