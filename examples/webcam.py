"""Segment a webcam with OpenCV and the Python API.

python examples/webcam.py --camera 0                      # q quits
python examples/webcam.py --video drive.mp4 --no-window   # print FPS only
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from rtseg import Segmenter


def main() -> None:
    """Read frames with OpenCV, blend class colors into them, and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camera", type=int, default=0)
    parser.add_argument("--video", help="a file instead of a camera")
    parser.add_argument("--no-window", action="store_true")
    options = parser.parse_args()

    capture = cv2.VideoCapture(options.video or options.camera)
    frames, begin = 0, time.perf_counter()
    with Segmenter() as segmenter:
        colors = np.array(segmenter.palette.colors, dtype=np.uint8)[:, ::-1]  # OpenCV's order is blue, green, red
        while True:
            read, bgr = capture.read()
            if not read:
                break
            classes = segmenter(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))  # uint8 [H, W]
            frames += 1
            if not options.no_window:
                cv2.imshow("rtseg", cv2.addWeighted(bgr, 0.5, colors[classes], 0.5, 0))
                if cv2.waitKey(1) & 0xFF == ord("q"):
                    break
    capture.release()
    print(f"{frames} frames, {frames / (time.perf_counter() - begin):.1f} FPS on {segmenter.device}")


if __name__ == "__main__":
    main()
