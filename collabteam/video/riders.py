"""Who rides: persons and two-wheelers become cyclists, motorcyclists and pedestrians.

A detector that was trained on COCO finds a person and a bicycle, not a cyclist. The paper (Padilha
and Ferreira) fuses the two as Nardi et al. (2022) do; here with rules of geometry, one frame at a
time and without pixels. One frame cannot tell everything: who stands astride with both feet on the
ground looks as if walking, who stands behind a parked vehicle that hides the legs as if riding. A
vote over a track has the last word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from collabteam.video.objects import Objects, area, intersection, iou

RIDER = {"bicycle": "cyclist", "motorcycle": "motorcyclist"}
"""What somebody is who rides a vehicle, by the vehicle."""
PARTS = ("person", *RIDER)
"""What a detector has to find for :func:`fuse` to work on."""

# Two boxes of two-wheelers that share more are one vehicle seen twice. A bicycle that was also
# taken for a motorcycle shares about 0.9 with itself, and detectors let pass up to 0.7 in a kind.
_SAME_VEHICLE = 0.6
# A person of whom so much is inside the box of a rider is the rider again, such as the upper body
# alone, or somebody hidden behind.
_SAME_PERSON = 0.8
# Below this product of three shares, a person and a vehicle do not belong together: two of them
# may be at a third, or one at a tenth.
_LEAST = 0.1

# Where each share begins to grow, is whole, begins to fall and is gone. Lengths are in heights of
# the vehicle; a bicycle or motorcycle is 0.9 to 1.2 m high, and a rider's feet are 0.1 to 0.4 m
# above the ground.
#
# How far the feet are above the wheels' lower edge. The feet of who walks beside are level with it
# or below, if nearer to the camera; those of a cyclist and of five riders of scooters were at 0.15
# to 0.4 in footage of theirs. Who is seen down to the chest alone, behind a fairing, ends at up to
# 0.9; above 1 they do not touch.
_FEET = (0.0, 0.2, 0.6, 1.0)
# How tall the person is. A rider is 1.2 to 1.6 m from foot to head, so 1.0 to 1.5; less if partly
# hidden or on the pillion, more with bent wheels, a child's bicycle, or a low view from the front.
# Who walks at the same distance has 1.6 or more, and is half as tall as that far behind.
_TALL = (0.4, 0.8, 1.5, 2.2)
# How far the middle of the person is off the middle of the vehicle, in widths of the wider one. A
# rider sits within 0.2, a passenger behind within 0.3; who pushes is beside it by half a width or
# more if seen from the front, and near its handlebar if seen from the side.
_OFF_MIDDLE = 0.4
# The head has to be above the vehicle's upper edge; a little less, for some boxes of motorcycles
# include the rider. Who is seen between the wheels is far behind.
_HEAD = -0.05


def fuse(objects: Objects) -> Objects:
    """Make riders of persons and the two-wheelers under them, and pedestrians of the rest.

    A person fits a vehicle as far as the feet are above the ground, the height is a rider's, and
    the middle is above the vehicle's. Persons and vehicles are paired one to one so that they fit
    best in all; then whoever else fits a vehicle that is ridden, or is inside the rider's box, is a
    passenger and goes with it. Two-wheelers that overlap by an IoU of 0.6 are one, of the kind that
    the detector is surer of.

    A rider's box is the union of vehicle, rider and passengers; score and body are those of the
    person who rides, which do not jump in frames where the detector misses the vehicle.

    Args:
        objects: What a detector saw in one frame, ``person``, ``bicycle`` and ``motorcycle`` among
            it, in any order.

    Returns:
        ``cyclist`` and ``motorcyclist``; ``pedestrian``, every other person; ``bicycle`` and
        ``motorcycle``, those that nobody rides; and all other kinds as they came. Sorted by box,
        so that the order of the input plays no role.
    """
    objects = _sorted(objects)
    is_vehicle = np.isin(objects.kind, list(RIDER))
    is_person = objects.kind == "person"
    persons, rest = objects[is_person], objects[~is_vehicle & ~is_person]
    vehicles = _once(objects[is_vehicle])

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


def _once(vehicles: Objects) -> Objects:
    """The vehicles without those that a surer one of nearly the same box stands for."""
    same = np.asarray(iou(vehicles.box, vehicles.box) >= _SAME_VEHICLE)
    kept = np.zeros(len(vehicles), bool)
    for number in np.argsort(-vehicles.score, kind="stable"):
        kept[number] = not (same[number] & kept).any()
    return vehicles[kept]


def _assign(persons: Objects, vehicles: Objects) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who rides what: the rider of every vehicle, the vehicle of every person; -1 for none."""
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
    # Who fits a ridden vehicle goes with it rather than with a rider whose box is around.
    is_fit = fits.any(axis=1, keepdims=True)
    claim = np.where(is_fit, fits, np.where(share >= _SAME_PERSON, share, 0.0))
    best = claim.argmax(axis=1)
    aboard[left] = np.where(claim.max(axis=1) > 0, vehicle[best], -1)
    return ridden_by, aboard


def _fit(persons: NDArray[np.float32], vehicles: NDArray[np.float32]) -> NDArray[np.float64]:
    """How well every person's box fits every vehicle's: (P, V), 0 for not at all, to 1."""
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
        * np.interp(tall, _TALL, levels)
        * np.maximum(1 - off / _OFF_MIDDLE, 0)
    )
    is_above = (v[..., 1] - p[..., 1]) / height >= _HEAD
    return np.where(is_above & (fit >= _LEAST), fit, 0.0)
