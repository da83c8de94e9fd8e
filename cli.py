"""Runs rtseg from a bare checkout: `python cli.py video drive.mp4 -o out.mp4`."""

from rtseg.__main__ import main

if __name__ == "__main__":
    main()
