"""From footage to crops: decode, detect, fuse riders, track, link, choose crops."""

import os

# onnxruntime runs YOLO and re-identification weights; by default it sends telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
