"""Benchmark footage: the whole pipeline, the detector alone, and ultralytics' own tracking.

python benchmarks/footage.py VIDEO YOLO_WEIGHTS [--fps 0] [--image-size 768] [--frames 300]
python benchmarks/footage.py VIDEO YOLO_WEIGHTS --hour    # memory over an hour: the clip in a loop

The three take turns on the same frames in one process: the detector on frames in memory;
``model.track`` as ultralytics ships it (with decoding, without crops); and ``ingest source=video``
(decode, detect, fuse, track, link, crop, write).
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

import av

from collabteam.settings import CameraConfig, DetectorConfig, IngestConfig
from collabteam.video.detection import open_detector
from collabteam.video.footage import open_footage
from collabteam.video.pipeline import CLASSES, detector_kinds, ingest_footage


def remux(video: Path, to: Path, frames: int, times: int = 1) -> None:
    """Repeat the first frames of a clip several times, without re-encoding."""
    with av.open(str(to), "w") as whole:
        copy = None
        shift = 0
        for _ in range(times):
            with av.open(str(video)) as part:
                stream = part.streams.video[0]
                if copy is None:
                    copy = whole.add_stream_from_template(stream)
                last = 0
                for packet in islice(part.demux(stream), frames or None):
                    if packet.dts is None:
                        continue
                    last = max(last, packet.dts + max(packet.duration or 1, 1))
                    packet.dts += shift
                    packet.pts = None if packet.pts is None else packet.pts + shift
                    packet.stream = copy
                    whole.mux(packet)
                shift += last


def config(arguments: argparse.Namespace, clip: Path, root: Path) -> IngestConfig:
    return IngestConfig(
        camera=CameraConfig("clip", [*CLASSES]), root=str(root), source="video", path=str(clip),
        fps=arguments.fps, reid=arguments.reid,
        detector=DetectorConfig(weights=arguments.weights, image_size=arguments.image_size),
    )  # fmt: skip


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    from ultralytics import YOLO

    clip = folder / f"clip{Path(arguments.video).suffix}"
    remux(Path(arguments.video), clip, arguments.frames)
    settings = config(arguments, clip, folder / "0")
    detector = open_detector(settings.detector, detector_kinds(settings))
    with open_footage(str(clip), arguments.fps) as footage:
        images = [frame.image for frame in footage]
    times: dict[str, list[float]] = {"detector alone": [], "model.track": [], "ingest": []}
    for turn in range(arguments.turns):
        began = time.perf_counter()
        for image in images:
            detector.detect([image])
        times["detector alone"].append(time.perf_counter() - began)

        model = YOLO(arguments.weights)
        began = time.perf_counter()
        for _ in model.track(
            str(clip), stream=True, imgsz=arguments.image_size, conf=0.3, verbose=False,
            classes=[0, 1, 3],
        ):  # fmt: skip
            pass
        times["model.track"].append(time.perf_counter() - began)

        began = time.perf_counter()
        settings = config(arguments, clip, folder / f"{turn}")
        (record,) = ingest_footage(settings, detector=detector).read
        times["ingest"].append(time.perf_counter() - began)
    if not record.detections:
        raise SystemExit("nothing was detected: the comparison would say nothing")
    found = f"{record.detections} detections, {sum(record.objects.values())} objects"
    print(f"{len(images)} frames, {found}, {arguments.turns} turns; ingest: {record.seconds}")
    base = min(times["detector alone"])
    for name, taken in times.items():
        spread = ", ".join(f"{seconds:.1f}" for seconds in sorted(taken))
        print(f"{name:15} {spread} s; best is {min(taken) / base:.2f} x the detector alone")


def hour(arguments: argparse.Namespace, folder: Path) -> None:
    with av.open(arguments.video) as one:
        stream = one.streams.video[0]
        length = float((one.duration or 0) / av.time_base) or stream.frames / stream.average_rate
    clip = folder / "hour.mkv"
    remux(Path(arguments.video), clip, 0, times=round(3600 / length))
    settings = config(arguments, clip, folder)
    sizes: list[float] = []
    over = threading.Event()

    def watch() -> None:
        page = resource.getpagesize() / 2**20
        while not over.wait(1.0):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * page)

    watcher = threading.Thread(target=watch)
    watcher.start()
    (record,) = ingest_footage(settings).read
    over.set()
    watcher.join()
    tenth = max(1, len(sizes) // 10)
    print(f"{record.duration:.0f} s of video, {record.frames} frames, {record.objects}")
    for name, part in (("2nd", sizes[tenth : 2 * tenth]), ("last", sizes[-tenth:])):
        print(f"resident memory in the {name} tenth: {min(part):.0f} to {max(part):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("weights")
    parser.add_argument("--fps", type=float, default=0.0)
    parser.add_argument("--image-size", type=int, default=768)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--reid", default="")
    parser.add_argument("--hour", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        (hour if arguments.hour else compare)(arguments, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
