"""Synthetic street video with ground truth classes, for tests, benchmarks, training and `rtseg demo`.

    drive = SyntheticDrive(960, 540, frames=150, seed=7)
    rgb, labels = drive.frame(0)

drive.py      arguments and frames of the video
scene.py      objects on the street and their positions
weather.py    light, haze, sky, tint and noise of the camera
view.py       projection from meters to pixels
ground.py     road, lane markings, curbs, pavements, shadows
buildings.py  buildings
figures.py    cars, pedestrians, cyclists, lamps, signs
textures.py   facades, trees, hedges, fences, asphalt
canvas.py     drawing of colors and classes in one step
video_file.py encoding to a file
"""

from rtseg.synthetic.drive import MIN_SIDE, SyntheticDrive

__all__ = ["MIN_SIDE", "SyntheticDrive"]
