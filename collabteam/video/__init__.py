"""From footage to crops: decode, detect, fuse riders, track, link, choose crops."""

import os

# onnxruntime, which runs YOLO and re-identification weights in that format, would report its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
