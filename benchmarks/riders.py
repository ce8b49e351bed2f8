"""How well detection and the fusion of riders find who is on the street, frame by frame.

The folder holds a file NNNN.txt for each labelled frame (numbers from 0), a line per object in
YOLO's format: class, then middle, width and height as fractions of the frame; 0 is a pedestrian, 1
a cyclist with the bicycle. Other frames are left out. What is found is right if it overlaps an
object of its kind by an IoU of 0.5, each object once, surer ones first. The row of all riders takes
cyclists and motorcyclists for one kind: a vote over a track, which is not part of this, corrects
frames in which a bicycle is taken for a motorcycle.

    python benchmarks/riders.py VIDEO LABELS_FOLDER WEIGHTS

On the development data (street3, 35 frames with labels): labels of the fast cyclist are one to two
frames ahead of the picture, and pedestrians far away have none, so no figure reaches 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np

from collabteam.config import DetectorConfig
from collabteam.video.detection import open_detector
from collabteam.video.objects import Objects, iou
from collabteam.video.riders import PARTS, fuse

KINDS = ("pedestrian", "cyclist", "motorcyclist")
ROWS = {**{kind: (kind,) for kind in KINDS}, "all riders": ("cyclist", "motorcyclist")}
IOU = 0.5


def read_labels(file: Path, width: int, height: int) -> Objects:
    """What a file of labels says, in pixels."""
    rows = []
    for line in file.read_text().splitlines():
        number, x, y, w, h = (float(word) for word in line.split())
        left, top = (x - w / 2) * width, (y - h / 2) * height
        rows.append((left, top, left + w * width, top + h * height, 1.0, KINDS[int(number)]))
    return Objects.of(rows)


def count_right(found: Objects, labelled: Objects) -> int:
    """How many of the found objects are right, each label used once."""
    overlap = iou(found.box, labelled.box)
    right = 0
    for number in np.argsort(-found.score, kind="stable"):
        if overlap.shape[1] and overlap[number].max() >= IOU:
            right += 1
            overlap[:, overlap[number].argmax()] = 0
    return right


def main(video: str, labels: Path, weights: str) -> None:
    detector = open_detector(DetectorConfig(weights=weights), PARTS)
    counts = {name: np.zeros(3, int) for name in ROWS}
    frames = 0
    with av.open(video) as container:
        for number, frame in enumerate(container.decode(video=0)):
            file = labels / f"{number:04d}.txt"
            if not file.exists():
                continue
            frames += 1
            found = fuse(detector.detect([frame.to_ndarray(format="rgb24")])[0])
            labelled = read_labels(file, frame.width, frame.height)
            for name, kinds in ROWS.items():
                those = found[np.isin(found.kind, kinds)]
                truth = labelled[np.isin(labelled.kind, kinds)]
                counts[name] += (len(truth), len(those), count_right(those, truth))
    print(f"{frames} labelled frames of {video}, IoU {IOU}")
    print(f"{'':14}{'labelled':>9}{'found':>9}{'right':>9}{'precision':>11}{'recall':>9}")
    for name, (truth, those, right) in counts.items():
        precision = f"{right / those:.3f}" if those else "-"
        recall = f"{right / truth:.3f}" if truth else "-"
        print(f"{name:14}{truth:9}{those:9}{right:9}{precision:>11}{recall:>9}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
