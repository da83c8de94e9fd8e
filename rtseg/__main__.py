"""`python -m rtseg` is `rtseg`."""

from rtseg.cli import main

if __name__ == "__main__":
    main()
