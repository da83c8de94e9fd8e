"""Peer (d): supervision's annotators and video pipeline with the same network on OpenVINO."""

import cv2
import numpy as np
import openvino as ov
import supervision as sv
from common import COLORS, Timer, open_writer, parse

args = parse()
width, height = args.size
compiled = ov.Core().compile_model(args.weights, "CPU")
annotator = sv.MaskAnnotator(
    color=sv.ColorPalette([sv.Color(*map(int, color)) for color in COLORS]),
    opacity=0.5,
    color_lookup=sv.ColorLookup.CLASS,
)


def segment(frame):
    rgb = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
    x = ((rgb.astype(np.float32) - 112) / 64).transpose(2, 0, 1)[None]
    classes = compiled(x)[0][0].argmax(axis=0).astype(np.uint8)
    return cv2.resize(classes, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST)


def callback(frame, index):
    classes = segment(frame)
    present = np.unique(classes)
    masks = classes[None] == present[:, None, None]
    detections = sv.Detections(xyxy=sv.mask_to_xyxy(masks), mask=masks, class_id=present.astype(int))
    timer.frames += 1
    return annotator.annotate(frame.copy(), detections)


segment(next(sv.get_video_frames_generator(args.video)))
with Timer() as timer:
    if args.writer == "own":
        sv.process_video(args.video, args.output, callback)
    else:
        info = sv.VideoInfo.from_video_path(args.video)
        writer = open_writer(args, info.fps, info.resolution_wh)
        for index, frame in enumerate(sv.get_video_frames_generator(args.video)):
            writer.write(callback(frame, index))
        writer.release()
