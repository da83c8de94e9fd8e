"""`python -m rtseg` is `rtseg`."""

from rtseg.cli.app import main

if __name__ == "__main__":
    main()
