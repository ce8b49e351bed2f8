"""Measure tracking of people: OpenCV's vtest.avi against the truth of MOTChallenge 2015.

The video is PETS2009 S2.L1, view 1: 795 frames, 19 persons, at 10 frames per second.

    python benchmarks/vtest.py vtest.avi vtest.gt.txt yolov8n.pt --reid osnet_x0_25_msmt17.onnx
    python benchmarks/vtest.py vtest.avi vtest.gt.txt yolov8n.pt --tracker sort --every 2

All figures are at an IoU of 0.5 and come from TrackEval (pip install trackeval). For "filled", the
gaps within a track are filled by linear interpolation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.settings import CutConfig, DetectorConfig
from collabteam.video.footage import open_footage
from collabteam.video.linking import LinkedTrack, Linker
from collabteam.video.objects import Frame, Objects, area, iou
from collabteam.video.tracking import open_tracker

CROPS = 3
LEAST_IOU = 0.5


@dataclass(frozen=True)
class Boxes:
    """N boxes of a whole video: frame numbers from 0, identities, and positions."""

    frame: NDArray[np.int64]
    who: NDArray[np.int64]
    box: NDArray[np.float32]

    def at(self, frame: int) -> NDArray[np.int64]:
        return np.flatnonzero(self.frame == frame)


def read_truth(file: Path) -> Boxes:
    rows = np.loadtxt(file, delimiter=",")
    box = rows[:, 2:6].astype(np.float32)
    box[:, 2:] += box[:, :2]
    return Boxes(rows[:, 0].astype(np.int64) - 1, rows[:, 1].astype(np.int64), box)


def detect(video: str, weights: str, confidence: float) -> NDArray[np.float64]:
    """(N, 7): frame from 0, left, top, right, bottom, score, 0 for a person."""
    from collabteam.video.detection import open_detector

    detector = open_detector(DetectorConfig(weights=weights, confidence=confidence), ["person"])
    found = []
    with open_footage(video) as footage:
        for frame in footage:
            objects = detector.detect([frame.image])[0]
            number = np.full((len(objects), 1), frame.number)
            rest = (objects.box, objects.score[:, None], np.zeros((len(objects), 1)))
            found.append(np.concatenate([number, *rest], axis=1))
    return np.concatenate(found)


def follow(
    frames: Iterator[Frame], detections: NDArray[np.float64], tracker: str, reid: str, rate: float
) -> tuple[list[LinkedTrack], Boxes, list[int], dict[str, float]]:
    """Track and link; return the tracks, the tracker's boxes, the frames and seconds per part."""
    follower = open_tracker(tracker, reid, rate)
    linker = Linker(follower.max_distance)
    found: list[LinkedTrack] = []
    raw, seen, spent = [], [], {"tracker": 0.0, "linker": 0.0}
    for frame in frames:
        rows = detections[detections[:, 0] == frame.number]
        kind = np.full(len(rows), "person", object)
        objects = Objects(rows[:, 1:5].astype(np.float32), rows[:, 5].astype(np.float32), kind)
        began = time.perf_counter()
        numbers, appearance = follower.update(objects, frame.image)
        tracked = time.perf_counter()
        found += linker.add(frame, objects, numbers, appearance)
        spent["tracker"] += tracked - began
        spent["linker"] += time.perf_counter() - tracked
        seen.append(frame.number)
        kept = numbers >= 0
        raw.append((np.full(kept.sum(), frame.number), numbers[kept], objects.box[kept]))
    found += linker.finish()
    frame_of, who, box = (np.concatenate(part) for part in zip(*raw, strict=True))
    return found, Boxes(frame_of, who, box), seen, spent


def boxes_of(objects: Sequence[LinkedTrack], seen: Sequence[int] = ()) -> Boxes:
    """Return the boxes of all tracks; with ``seen``, interpolated in those frames, too."""
    parts = []
    for who, one in enumerate(objects):
        frame, box = one.frame, one.box
        if seen:
            frame = np.array([at for at in seen if frame[0] <= at <= frame[-1]])
            sides = [np.interp(frame, one.frame, one.box[:, side]) for side in range(4)]
            box = np.stack(sides, axis=1).astype(np.float32)
        parts.append((frame, np.full(len(frame), who), box))
    return Boxes(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def measure(truth: Boxes, found: Boxes, seen: Sequence[int]) -> str:
    from trackeval.metrics import CLEAR, HOTA, Identity

    _, true_id = np.unique(truth.who, return_inverse=True)
    _, found_id = np.unique(found.who, return_inverse=True)
    pairs = [(truth.at(frame), found.at(frame)) for frame in seen]
    data = {
        "num_timesteps": len(pairs),
        "num_gt_ids": int(true_id.max()) + 1,
        "num_tracker_ids": int(found_id.max()) + 1,
        "num_gt_dets": sum(len(rows) for rows, _ in pairs),
        "num_tracker_dets": sum(len(rows) for _, rows in pairs),
        "gt_ids": [true_id[rows] for rows, _ in pairs],
        "tracker_ids": [found_id[rows] for _, rows in pairs],
        "similarity_scores": [
            iou(truth.box[rows], found.box[columns]).astype(np.float64) for rows, columns in pairs
        ],
    }
    quiet = {"THRESHOLD": LEAST_IOU, "PRINT_CONFIG": False}
    clear = CLEAR(quiet).eval_sequence(data)
    identity = Identity(quiet).eval_sequence(data)
    hota = HOTA().eval_sequence(data)
    return (
        f"MOTA {clear['MOTA']:.3f}  IDF1 {identity['IDF1']:.3f}  switches {clear['IDSW']:3d}  "
        f"HOTA {hota['HOTA'].mean():.3f}  missed {clear['CLR_FN']}  false {clear['CLR_FP']}"
    )


def persons_in(truth: Boxes, one: LinkedTrack) -> NDArray[np.int64]:
    """Return the person that each box of a track shows; 0 for none."""
    persons = np.zeros(len(one), np.int64)
    for row, frame in enumerate(one.frame):
        there = truth.at(int(frame))
        likeness = iou(one.box[row : row + 1], truth.box[there])[0]
        if likeness.max(initial=0) >= LEAST_IOU:
            persons[row] = truth.who[there[likeness.argmax()]]
    return persons


def main() -> None:
    parser = argparse.ArgumentParser(description="See the module's docstring.")
    parser.add_argument("video")
    parser.add_argument("truth", type=Path)
    parser.add_argument("weights", help="weights of the detector, for ultralytics")
    parser.add_argument(
        "--reid", default="", help="re-identification weights; default: colour histograms"
    )
    parser.add_argument("--tracker", default="strongsort")
    parser.add_argument(
        "--detections", type=Path, help="a .npy file to write them to, or read from"
    )
    parser.add_argument("--confidence", type=float, default=DetectorConfig.confidence)
    parser.add_argument("--every", type=int, default=1, help="analyse every n-th frame")
    parser.add_argument("--min-frames", type=int, default=CutConfig.min_frames)
    given = parser.parse_args()

    truth = read_truth(given.truth)
    if given.detections and given.detections.exists():
        detections = np.load(given.detections)
    else:
        detections = detect(given.video, given.weights, given.confidence)
        if given.detections:
            np.save(given.detections, detections)
    wanted = (detections[:, 5] >= given.confidence) & (detections[:, 6] == 0)
    with open_footage(given.video) as footage:
        rate = footage.rate / given.every
        frames = (frame for frame in footage if frame.number % given.every == 0)
        everything, raw, seen, spent = follow(
            frames, detections[wanted], given.tracker, given.reid, rate
        )
    objects = [one for one in everything if len(one) >= given.min_frames]

    shown, owners, well = [], [], set()
    for one in objects:
        persons = persons_in(truth, one)
        names, counts = np.unique(persons[persons > 0], return_counts=True)
        owners.append(int(names[counts.argmax()]) if names.size else 0)
        shown.append(int((counts >= given.min_frames).sum()))
        best = np.argsort(-one.score * np.sqrt(area(one.box)))[:CROPS]
        well |= set(persons[best].tolist()) - {0}
    everybody = set(truth.who.tolist())
    of_persons = sum(owner > 0 for owner in owners)
    small = sum((one.box[:, 2:] - one.box[:, :2]).max() < CutConfig.min_size for one in objects)

    print(f"{given.tracker}, {given.reid or 'colours'}, {rate:g} frames/s, {len(seen)} frames")
    print(f"tracker alone   {measure(truth, raw, seen)}  tracks {len(np.unique(raw.who))}")
    print(f"linked          {measure(truth, boxes_of(objects), seen)}")
    print(f"linked, filled  {measure(truth, boxes_of(objects, seen), seen)}")
    print(
        f"objects {len(objects)} of at least {given.min_frames} frames (and "
        f"{len(everything) - len(objects)} shorter ones), {small} of them too small for a crop; "
        f"{of_persons / len(everybody):.2f} per person, {len(objects) - of_persons} of no person, "
        f"{sum(many > 1 for many in shown)} of several persons"
    )
    print(f"persons with a good crop: {len(well)} of {len(everybody)}")
    each = ", ".join(f"{part} {1e3 * time_ / len(seen):.2f} ms" for part, time_ in spent.items())
    print(f"per frame: {each}")


if __name__ == "__main__":
    main()
