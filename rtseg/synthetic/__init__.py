"""Synthetic street video with ground truth classes, for tests, benchmarks, training and `rtseg demo`.

drive = SyntheticDrive(960, 540, frames=150, seed=7)
rgb, labels = drive.frame(0)
"""

from rtseg.synthetic.drive import MIN_SIDE, SyntheticDrive

__all__ = ["MIN_SIDE", "SyntheticDrive"]
