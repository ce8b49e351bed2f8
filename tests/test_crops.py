"""Which pictures of an object are kept."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from collabteam.settings import CutConfig, FootageConfig

cv2 = pytest.importorskip("cv2", reason="needs the extra 'footage'")

from collabteam.video.crops import (  # noqa: E402
    BestShots,
    Candidate,
    choose,
    cut,
    encode,
    inside_region,
    region_mask,
    sharpness,
    visibility,
)
from collabteam.video.objects import Frame, Objects  # noqa: E402


def _noise(width: int = 200, height: int = 150, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _box(*sides: float) -> NDArray[np.float32]:
    return np.array(sides, np.float32)


# -- how well an object can be seen ----------------------------------------------------------------


def test_what_can_be_seen_well_is_large_alone_and_whole() -> None:
    def seen(*rows: tuple[float, float, float, float, float]) -> list[float]:
        objects = Objects.of([(*row, "person") for row in rows])
        return visibility(objects, 1000, 1000).tolist()

    (whole,) = seen((100, 100, 180, 260, 0.9))
    assert whole == pytest.approx(0.9)
    assert seen((100, 100, 140, 180, 0.9))[0] == pytest.approx(0.45)  # half as tall
    assert seen((100, 100, 500, 900, 0.9))[0] == pytest.approx(0.9)  # larger gains nothing
    assert seen((0, 100, 80, 260, 0.9))[0] == pytest.approx(0.45)  # cut off by the frame
    assert seen((920, 100, 1000, 260, 0.9))[0] == pytest.approx(0.45)
    covered, front = seen((100, 100, 180, 260, 0.9), (100, 180, 180, 340, 0.9))
    assert covered == pytest.approx(0.45)  # the other covers half of it
    assert front == pytest.approx(0.45)
    assert seen() == []


def test_a_blurred_picture_is_less_sharp() -> None:
    sharp = _noise()
    values = [sharpness(np.asarray(cv2.GaussianBlur(sharp, (0, 0), s))) for s in (1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert sharpness(sharp) > values[0]
    assert sharpness(np.full((90, 40, 3), 90, np.uint8)) == 0


# -- cutting ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    *[st.floats(-20, 220) for _ in range(2)],
    *[st.floats(0.1, 150) for _ in range(2)],
    st.floats(0, 1),
)
def test_a_cut_is_the_box_and_its_rim_within_the_frame(
    left: float, top: float, width: float, height: float, margin: float
) -> None:
    image = _noise()
    pixels = cut(image, _box(left, top, left + width, top + height), margin)
    assert pixels.dtype == np.uint8
    assert min(pixels.shape) >= 1
    rim = margin * max(width, height)
    assert pixels.shape[0] <= height + 2 * rim + 2
    assert pixels.shape[1] <= width + 2 * rim + 2
    if left - rim >= 0 and top - rim >= 0 and left + width + rim < 200 and top + height + rim < 150:
        row, column = round(top - rim), round(left - rim)
        assert (pixels == image[row:, column:][: pixels.shape[0], : pixels.shape[1]]).all()
        assert abs(pixels.shape[1] - (width + 2 * rim)) <= 2


def test_a_cut_does_not_keep_the_frame_in_memory() -> None:
    image = _noise()
    pixels = cut(image, _box(10, 10, 20, 30), 0.1)
    assert pixels.base is None or pixels.base is not image
    assert not np.shares_memory(pixels, image)


def test_a_crop_is_a_jpeg_of_the_quality_asked_for() -> None:
    coarse, fine = (encode(_noise(), quality) for quality in (40, 95))
    with Image.open(io.BytesIO(fine)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (200, 150))
    assert len(coarse) < len(fine)


# -- the album of a track --------------------------------------------------------------------------


def _offer(album: BestShots, number: int, seconds: float, visible: float, seed: int = 0) -> None:
    frame = Frame(number, seconds, _noise(seed=seed))
    album.offer(frame, _box(50, 30, 90, 120), "cyclist", visible)


def test_an_album_keeps_the_best_of_every_stretch_of_a_life_in_bounded_memory() -> None:
    album = BestShots(CutConfig())
    rng = np.random.default_rng(3)
    visible = rng.random(2000)
    for number, value in enumerate(visible):
        _offer(album, number, number * 0.1, float(value))
        assert len(album) <= 8
    kept = album.take(0, 1999)
    numbers = sorted(candidate.number for candidate in kept)
    assert len(numbers) >= 4
    assert max(np.diff([0, *numbers, 2000])) < 2000 / 2  # from all of its life
    best = int(np.argmax(visible))
    assert best in numbers
    assert len(album) == 0


def test_an_album_takes_the_sharper_of_two_that_look_the_same() -> None:
    album = BestShots(CutConfig())
    blurred = np.asarray(cv2.GaussianBlur(_noise(), (0, 0), 4))
    album.offer(Frame(0, 0.0, blurred), _box(50, 30, 90, 120), "cyclist", 0.5)
    _offer(album, 1, 0.1, 0.5)
    album.offer(Frame(2, 0.2, blurred), _box(50, 30, 90, 120), "cyclist", 0.5)
    (kept,) = album.take(0, 2)
    assert kept.number == 1
    assert 0 < kept.quality < 0.5


def test_an_album_looks_at_nothing_that_is_too_small() -> None:
    album = BestShots(CutConfig(min_size=40))
    album.offer(Frame(0, 0.0, _noise()), _box(10, 10, 20, 49), "person", 1.0)
    assert len(album) == 0
    album.offer(Frame(0, 0.0, _noise()), _box(10, 10, 20, 50), "person", 1.0)
    assert len(album) == 1


def test_two_objects_of_one_track_take_their_own_pictures() -> None:
    album = BestShots(CutConfig())
    for number in range(4):
        _offer(album, number, number * 1.0, 0.5)
    assert [one.number for one in album.take(0, 1)] == [0, 1]
    assert [one.number for one in album.take(0, 3)] == [2, 3]


# -- the choice ------------------------------------------------------------------------------------

CANDIDATES = st.lists(
    st.tuples(st.floats(0, 100), st.sampled_from(["cyclist", "pedestrian"]), st.floats(0, 1)),
    max_size=20,
    unique_by=lambda row: row[0],
).map(
    lambda rows: [
        Candidate(n, seconds, _box(0, 0, 9, 9), kind, quality, np.zeros((1, 1, 3), np.uint8))
        for n, (seconds, kind, quality) in enumerate(sorted(rows))
    ]
)


@settings(deadline=None, max_examples=300)
@given(CANDIDATES, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_choice_keeps_its_promises(
    candidates: list[Candidate], count: int, random: object
) -> None:
    chosen = choose(candidates, "cyclist", count)
    agreeing = [one for one in candidates if one.kind == "cyclist"]
    assert len(chosen) == min(count, len(agreeing or candidates))
    assert all(one.kind == "cyclist" for one in chosen) or not agreeing
    numbers = [one.number for one in chosen]
    assert numbers == sorted(set(numbers))
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [one.number for one in choose(shuffled, "cyclist", count)] == numbers
    if agreeing:
        best = max(one.quality for one in agreeing)
        assert best in [one.quality for one in chosen]


def test_the_choice_is_spread_over_the_objects_life() -> None:
    def one(seconds: float, quality: float) -> Candidate:
        picture = np.zeros((1, 1, 3), np.uint8)
        return Candidate(int(seconds * 10), seconds, _box(0, 0, 9, 9), "person", quality, picture)

    candidates = [one(0, 0.3), one(1, 0.9), one(2, 0.8), one(5, 0.2), one(9, 0.4), one(10, 0.1)]
    assert [c.seconds for c in choose(candidates, "person", 3)] == [1, 5, 9]
    assert [c.seconds for c in choose(candidates, "person", 1)] == [1]
    assert [c.seconds for c in choose(candidates[:3], "person", 4)] == [0, 1, 2]


# -- where objects count ---------------------------------------------------------------------------


def test_region_and_mask_look_at_where_an_object_stands(tmp_path: object) -> None:
    objects = Objects.of([
        (10, 10, 30, 50, 0.9, "person"),  # stands at (20, 50)
        (70, 40, 90, 95, 0.9, "person"),  # stands at (80, 95)
    ])  # fmt: skip
    assert region_mask(FootageConfig(), 100, 100) is None
    lower = region_mask(FootageConfig(region=[[0, 0.6], [1, 0.6], [1, 1], [0, 1]]), 100, 100)
    assert lower is not None
    assert inside_region(objects, lower).tolist() == [False, True]
    mask = np.zeros((10, 10), np.uint8)
    mask[:, :5] = 255
    Image.fromarray(mask).save(f"{tmp_path}/mask.png")
    left = region_mask(FootageConfig(mask=f"{tmp_path}/mask.png"), 100, 100)
    assert left is not None
    assert inside_region(objects, left).tolist() == [True, False]
    both = FootageConfig(region=[[0, 0.6], [1, 0.6], [1, 1], [0, 1]], mask=f"{tmp_path}/mask.png")
    where = region_mask(both, 100, 100)
    assert where is not None
    assert inside_region(objects, where).tolist() == [False, False]
