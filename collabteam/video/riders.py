"""Fuse persons and two-wheelers into cyclists, motorcyclists and pedestrians.

A detector trained on COCO finds a person and a bicycle, not a cyclist. The paper (Padilha and
Ferreira) fuses the two as Nardi et al. (2022) do. This module does so with geometric rules on the
boxes of one frame, without pixels. A single frame can be ambiguous: a rider who stands astride with
both feet on the ground looks like a pedestrian, and a person behind a parked vehicle that hides the
legs looks like a rider. A vote over the track decides in the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from collabteam.video.objects import Objects, area, intersection, iou

RIDER = {"bicycle": "cyclist", "motorcycle": "motorcyclist"}
"""The kind of a rider, by the vehicle."""
PARTS = ("person", *RIDER)
"""The detector's kinds that :func:`fuse` needs."""

# IoU at which two boxes of two-wheelers are one vehicle detected twice. A bicycle that was also
# detected as a motorcycle has an IoU of about 0.9, and non-maximum suppression within one kind lets
# up to 0.7 pass.
_SAME_VEHICLE = 0.6
# A person with this share of its box inside a rider's box is part of the rider: a second detection
# such as the upper body alone, or somebody hidden behind.
_SAME_PERSON = 0.8
# A person and a vehicle do not belong together if the product of the three scores below is less
# than this: two scores may be 1/3, or one 0.1.
_MIN_FIT = 0.1

# Each score rises from 0 at the first number to 1 at the second, and falls from 1 at the third to 0
# at the fourth. Lengths are in heights of the vehicle; a bicycle or motorcycle is 0.9 to 1.2 m
# high, and a rider's feet are 0.1 to 0.4 m above the ground.
#
# Height of the feet above the wheels' lower edge. The feet of a person walking beside are level
# with it, or below if nearer to the camera. Those of a cyclist and of five scooter riders were at
# 0.15 to 0.4 in test footage. A rider visible only down to the chest, behind a fairing, ends at up
# to 0.9; above 1 the boxes do not touch.
_FEET = (0.0, 0.2, 0.6, 1.0)
# Height of the person. A rider is 1.2 to 1.6 m from foot to head, so 1.0 to 1.5; less if partly
# hidden or on the pillion, more with bent wheels, on a child's bicycle, or in a low view from the
# front. A person walking at the same distance has 1.6 or more, and one far behind
# half of that.
_HEIGHT = (0.4, 0.8, 1.5, 2.2)
# Horizontal distance between the middles of person and vehicle, in widths of the wider one. A rider
# sits within 0.2, a passenger behind within 0.3. A person who pushes the vehicle is half a width or
# more beside it if seen from the front, and near its handlebar if seen from the side.
_OFF_MIDDLE = 0.4
# The head has to be above the vehicle's upper edge, with some tolerance because some boxes of
# motorcycles include the rider. A person visible between the wheels is far behind.
_HEAD = -0.05


def fuse(objects: Objects) -> Objects:
    """Fuse persons with the two-wheelers they ride; all other persons become pedestrians.

    The fit of a person to a vehicle depends on three things: the feet are above the ground, the
    height is that of a rider, and the person is above the middle of the vehicle. Persons and
    vehicles are assigned one to one for the best total fit. Every other person who fits a ridden
    vehicle, or is inside the rider's box, is a passenger. Two-wheelers with an IoU of 0.6 or more
    are one vehicle, of the kind with the higher score.

    A rider's box is the union of vehicle, rider and passengers. Score and body are those of the
    person who rides, so they do not jump in frames where the detector misses the vehicle.

    Args:
        objects: The detections of one frame, in any order; ``person``, ``bicycle`` and
            ``motorcycle`` are fused.

    Returns:
        ``cyclist`` and ``motorcyclist``; every other person as ``pedestrian``; every ``bicycle``
        and ``motorcycle`` without a rider; and all other kinds unchanged. They are sorted by box,
        so the order of the input has no effect.
    """
    objects = _sorted(objects)
    is_vehicle = np.isin(objects.kind, list(RIDER))
    is_person = objects.kind == "person"
    persons, rest = objects[is_person], objects[~is_vehicle & ~is_person]
    vehicles = _without_duplicates(objects[is_vehicle])

    ridden_by, aboard = _assign(persons, vehicles)
    box = vehicles.box.copy()
    with_vehicle = np.flatnonzero(aboard >= 0)
    np.minimum.at(box[:, :2], aboard[with_vehicle], persons.box[with_vehicle, :2])
    np.maximum.at(box[:, 2:], aboard[with_vehicle], persons.box[with_vehicle, 2:])

    ridden = ridden_by >= 0
    kinds = np.array([RIDER[kind] for kind in vehicles.kind[ridden]], object)
    walking = persons[aboard < 0]
    riders = persons[ridden_by[ridden]]
    parts = (
        Objects(box[ridden], riders.score, kinds, riders.box),
        Objects(walking.box, walking.score, np.full(len(walking), "pedestrian", object)),
        vehicles[~ridden],
        rest,
    )
    return _sorted(
        Objects(
            np.concatenate([part.box for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.followed.box for part in parts]),
        )
    )


def _sorted(objects: Objects) -> Objects:
    left, top, right, bottom = objects.box.T
    return objects[np.lexsort((objects.kind.astype(str), objects.score, bottom, right, top, left))]


def _without_duplicates(vehicles: Objects) -> Objects:
    """Remove each vehicle that has nearly the same box as one with a higher score."""
    same = np.asarray(iou(vehicles.box, vehicles.box) >= _SAME_VEHICLE)
    kept = np.zeros(len(vehicles), bool)
    for number in np.argsort(-vehicles.score, kind="stable"):
        kept[number] = not (same[number] & kept).any()
    return vehicles[kept]


def _assign(persons: Objects, vehicles: Objects) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign persons to vehicles: the rider of each vehicle, the vehicle of each person, or -1."""
    ridden_by = np.full(len(vehicles), -1)
    aboard = np.full(len(persons), -1)
    fit = _fit(persons.box, vehicles.box)
    rider, vehicle = linear_sum_assignment(fit, maximize=True)
    belong = fit[rider, vehicle] > 0
    rider, vehicle = rider[belong], vehicle[belong]
    if not rider.size:
        return ridden_by, aboard
    ridden_by[vehicle] = rider
    aboard[rider] = vehicle

    left = np.flatnonzero(aboard < 0)
    inside = intersection(persons.box[left], persons.box[rider])
    share = inside / np.maximum(area(persons.box[left]), np.float32(1e-9))[:, None]
    fits = fit[np.ix_(left, vehicle)]
    # A person who fits a ridden vehicle belongs to it, not to another rider's surrounding box.
    is_fit = fits.any(axis=1, keepdims=True)
    claim = np.where(is_fit, fits, np.where(share >= _SAME_PERSON, share, 0.0))
    best = claim.argmax(axis=1)
    aboard[left] = np.where(claim.max(axis=1) > 0, vehicle[best], -1)
    return ridden_by, aboard


def _fit(persons: NDArray[np.float32], vehicles: NDArray[np.float32]) -> NDArray[np.float64]:
    """Score the fit of each person's box to each vehicle's: (P, V), 0 (no fit) to 1."""
    p = persons.astype(np.float64)[:, None, :]
    v = vehicles.astype(np.float64)[None, :, :]
    tiny = 1e-9
    height = np.maximum(v[..., 3] - v[..., 1], tiny)
    width = np.maximum(np.maximum(p[..., 2] - p[..., 0], v[..., 2] - v[..., 0]), tiny)
    feet = (v[..., 3] - p[..., 3]) / height
    tall = (p[..., 3] - p[..., 1]) / height
    off = np.abs(p[..., 0] + p[..., 2] - v[..., 0] - v[..., 2]) / 2 / width
    levels = (0.0, 1.0, 1.0, 0.0)
    fit = (
        np.interp(feet, _FEET, levels)
        * np.interp(tall, _HEIGHT, levels)
        * np.maximum(1 - off / _OFF_MIDDLE, 0)
    )
    is_above = (v[..., 1] - p[..., 1]) / height >= _HEAD
    return np.where(is_above & (fit >= _MIN_FIT), fit, 0.0)
