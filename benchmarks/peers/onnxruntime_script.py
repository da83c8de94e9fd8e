"""Peer (b): the same script with ONNX Runtime instead of torch."""

import cv2
import numpy as np
import onnxruntime
from common import Timer, blend, open_writer, parse

args = parse()
width, height = args.size
session = onnxruntime.InferenceSession(args.weights, providers=["CPUExecutionProvider"])


def segment(frame):
    rgb = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
    x = ((rgb.astype(np.float32) - 112) / 64).transpose(2, 0, 1)[None]
    (scores,) = session.run(None, {"image": x})
    classes = scores[0].argmax(axis=0).astype(np.uint8)
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
