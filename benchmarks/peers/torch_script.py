"""Peer (a): a typical first script, with OpenCV reader, torch in FP32, NumPy overlay and OpenCV writer."""

import sys
from pathlib import Path

import cv2
import torch
from common import Timer, blend, open_writer, parse

sys.path.insert(0, str(Path(__file__).parents[2]))
from rtseg.nn.checkpoint import load_weights  # the network, as a user would import it

args = parse()
width, height = args.size
model, _ = load_weights(args.weights)
model.eval()


@torch.no_grad()
def segment(frame):
    rgb = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
    x = (torch.from_numpy(rgb).permute(2, 0, 1).float()[None] - 112) / 64
    classes = model(x).argmax(dim=1)[0].byte().numpy()
    return cv2.resize(classes, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST)


reader = cv2.VideoCapture(args.video)
fps = reader.get(cv2.CAP_PROP_FPS)
size = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
segment(reader.read()[1])
reader = cv2.VideoCapture(args.video)
with Timer() as timer:
    writer = open_writer(args, fps, size)
    while True:
        ok, frame = reader.read()
        if not ok:
            break
        writer.write(blend(frame, segment(frame)))
        timer.frames += 1
    writer.release()
