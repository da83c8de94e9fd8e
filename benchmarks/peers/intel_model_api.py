"""Peer (c): Intel's openvino-model-api with its AsyncPipeline and OpenCV, as in its examples."""

import cv2
from common import COLORS, Timer, open_writer, parse
from model_api.adapters import OpenvinoAdapter, create_core
from model_api.models import SegmentationModel
from model_api.pipelines import AsyncPipeline

args = parse()
adapter = OpenvinoAdapter(
    create_core(), args.weights, device="CPU", plugin_config={"PERFORMANCE_HINT": "THROUGHPUT"}, max_num_requests=0
)
model = SegmentationModel(
    adapter,
    {
        "mean_values": [112, 112, 112],
        "scale_values": [64, 64, 64],
        "reverse_input_channels": True,
        "resize_type": "standard",
        "return_soft_prediction": False,
    },
)
pipeline = AsyncPipeline(model)
table = COLORS[:, ::-1].copy()


def render(result):
    classes, meta = result
    return cv2.addWeighted(meta["frame"], 0.5, table[classes], 0.5, 0)


reader = cv2.VideoCapture(args.video)
fps = reader.get(cv2.CAP_PROP_FPS)
size = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
model(reader.read()[1])
reader = cv2.VideoCapture(args.video)
with Timer() as timer:
    writer = open_writer(args, fps, size)
    submitted = 0
    ended = False
    while not ended or timer.frames < submitted:
        result = pipeline.get_result(timer.frames)
        if result is not None:
            writer.write(render(result))
            timer.frames += 1
            continue
        if not ended and pipeline.is_ready():
            ok, frame = reader.read()
            ended = not ok
            if ok:
                pipeline.submit_data(frame, submitted, {"frame": frame})
                submitted += 1
            continue
        if ended:
            pipeline.await_all()
        else:
            pipeline.await_any()
    writer.release()
