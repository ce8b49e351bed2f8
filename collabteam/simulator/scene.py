"""The fixed camera: the street in front of it, light and weather, and the rendering of crops.

One seed gives one street of 1280x720 pixels in true perspective: a road with a zebra crossing
that runs away from the camera, pavements, grass, a house front, parked cars and lamp posts.
Crops are cut out of it at the place where the object stands, lit by the hour and the weather,
and encoded as JPEG.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from collabteam.simulator import figures as fg

Pixels = NDArray[np.float32]

FRAME = (1280, 720)
# The street is drawn larger than the frame, so that crops at its edge have a surrounding.
_MARGIN = (80, 70)
_SIZE = (FRAME[0] + 2 * _MARGIN[0], FRAME[1] + 2 * _MARGIN[1])
_HORIZON = 100.0
_CAMERA_HEIGHT = 7.0
_FOCAL = 1000.0
# Pixels kept around a crop while it is drawn, so that blur has neighbours.
_PAD = 6
# How far each tone of a surface shrinks and moves towards the light, dark to bright.
_COARSE_TONES = ((1.0, 0.0), (0.72, 0.2))
_FINE_TONES = ((1.0, 0.0), (0.84, 0.11), (0.5, 0.34))


@dataclass(frozen=True)
class Scene:
    """The street without moving objects.

    Attributes:
        albedo: Colour of each pixel by day, 0 to 1.
        lamps: Amount of lamp light at each pixel, 0 to 1.
        ground: True where an object can stand.
        lamp_colour: Colour of the lamp light.
        sun_turn: Turn of the sun's path, in radians.
    """

    albedo: Pixels
    lamps: Pixels
    ground: NDArray[np.bool_]
    lamp_colour: fg.Colour
    sun_turn: float


@dataclass(frozen=True)
class Weather:
    """Light and weather of a track.

    Attributes:
        sun: Direction towards the sun (right, away, up), unit length.
        direct: Colour of direct sun light, 0 to about 1 a channel.
        ambient: Colour of light from the sky.
        night: 0 by day to 1 in the dark.
        fog: Share of an object's light that fog replaces, 0 to 1.
        rain: 0 (dry) to 1 (heavy).
        noise: Standard deviation of sensor noise, of full scale.
        gain: Exposure.
    """

    sun: fg.Vec
    direct: fg.Colour
    ambient: fg.Colour
    night: float
    fog: float
    rain: float
    noise: float
    gain: float


@dataclass(frozen=True)
class Actor:
    """A figure on the ground: heading in radians, offset to the right and away in metres."""

    figure: fg.Figure
    heading: float
    right: float = 0.0
    away: float = 0.0
    lit: bool = False


@dataclass(frozen=True)
class Lens:
    """Effects of the camera on one crop.

    Attributes:
        smear: Motion of the object during the exposure (right, down), pixels.
        defocus: Radius of blur, pixels.
        quality: JPEG quality, 1 to 95.
    """

    smear: tuple[float, float]
    defocus: float
    quality: int


def ground_pixel(scale: float, metres_right: float) -> tuple[float, float]:
    """Pixel of the street at which an object seen at `scale` (pixels per metre) stands."""
    return _SIZE[0] / 2 + metres_right * scale, _HORIZON + _CAMERA_HEIGHT * scale


def distance(scale: float) -> float:
    """Distance from the camera in metres of objects seen at `scale` pixels per metre."""
    return _FOCAL / scale


def pitch(scale: float) -> float:
    """Angle in radians at which the camera looks down on an object seen at `scale`."""
    return math.atan(_CAMERA_HEIGHT * scale / _FOCAL)


def clip(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    """Whole-pixel box (left, top, width, height) in the frame around a part of the street."""
    x0 = min(max(round(left) - _MARGIN[0], 0), FRAME[0] - 12)
    y0 = min(max(round(top) - _MARGIN[1], 0), FRAME[1] - 12)
    x1 = min(max(round(right) - _MARGIN[0], x0 + 10), FRAME[0])
    y1 = min(max(round(bottom) - _MARGIN[1], y0 + 10), FRAME[1])
    return x0, y0, x1 - x0, y1 - y0


def draw_weather(rng: Generator, scene: Scene, hour: float, rain: float, fog: float) -> Weather:
    """Light at an hour of the day (0 to 24) with rain and fog (0 to 1 each)."""
    day = (hour - 5.5) / 15.0
    high = math.sin(math.pi * day) if 0.0 < day < 1.0 else -0.25
    elevation = max(math.radians(58.0) * high, math.radians(14.0))
    azimuth = scene.sun_turn + math.pi * (day - 0.5)
    sun = (
        math.cos(elevation) * math.sin(azimuth),
        math.cos(elevation) * math.cos(azimuth),
        math.sin(elevation),
    )
    night = float(np.clip((0.12 - high) / 0.25, 0.0, 1.0))
    cloud = float(np.clip(rng.beta(0.8, 0.9) + 0.8 * rain + 0.9 * fog, 0.0, 1.0))
    low = float(np.clip(1.0 - high * 1.6, 0.0, 1.0))
    strength = 0.85 * (1.0 - cloud) * (1.0 - night)
    direct = (strength, strength * (0.97 - 0.22 * low), strength * (0.9 - 0.45 * low))
    sky = (0.42 + 0.28 * cloud - 0.14 * low) * (1.0 - night) + 0.10 * night
    tint = rng.normal(0.0, 0.02, 3)
    ambient = (
        sky * (0.97 + 0.06 * low + float(tint[0])),
        sky * (1.0 + float(tint[1])),
        sky * (1.06 + 0.12 * night + float(tint[2])),
    )
    gain = float(rng.normal(1.05, 0.1)) * (1.0 + 0.15 * night)
    noise = float(rng.uniform(0.004, 0.018)) + night * float(rng.uniform(0.01, 0.035))
    return Weather(sun, direct, ambient, night, fog, rain, noise, max(gain, 0.6))


def _world() -> tuple[Pixels, Pixels]:
    """Metres right of and away from the camera of the ground at each pixel of the street."""
    x = np.arange(_SIZE[0], dtype=np.float32)[None, :] - _SIZE[0] / 2
    y = np.arange(_SIZE[1], dtype=np.float32)[:, None]
    scale = np.maximum(y - _HORIZON, 1.0) / _CAMERA_HEIGHT
    away = np.broadcast_to(_FOCAL / scale, (_SIZE[1], _SIZE[0])).astype(np.float32)
    return (x / scale).astype(np.float32), away


def _clouds(rng: Generator, cells: int) -> Pixels:
    """Smooth random field over the street, about -1 to 1."""
    small = rng.normal(0.0, 1.0, (max(cells * _SIZE[1] // _SIZE[0], 2), cells)).astype(np.float32)
    image = Image.fromarray(small).resize(_SIZE, Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


@lru_cache(maxsize=4)
def street(seed: int) -> Scene:
    """Draw the street of a seed."""
    rng = np.random.default_rng([seed, 0, 11])
    right, away = _world()
    angle = float(rng.uniform(0.85, 1.15)) * (1.0 if rng.random() < 0.5 else -1.0)
    # u runs along the road, v across it; the road passes a little beside the camera.
    shift = float(rng.uniform(-2.0, 2.0))
    u = (right * math.cos(angle) + (away - 22.0) * math.sin(angle)).astype(np.float32)
    v = (-right * math.sin(angle) + (away - 22.0) * math.cos(angle) + shift).astype(np.float32)
    fine = rng.normal(0.0, 1.0, (_SIZE[1], _SIZE[0])).astype(np.float32)
    rough = 0.6 * _clouds(rng, 40) + 0.4 * _clouds(rng, 160)
    colour = np.empty((_SIZE[1], _SIZE[0], 3), dtype=np.float32)

    def fill(mask: NDArray[np.bool_], base: fg.Colour, rough_by: float, fine_by: float) -> None:
        tone = (1.0 + rough_by * rough + fine_by * fine)[mask]
        colour[mask] = np.array(base, dtype=np.float32) * tone[:, None]

    grey = float(rng.uniform(0.36, 0.48))
    half = float(rng.uniform(3.6, 4.6))
    grass = (0.30 * float(rng.uniform(0.9, 1.2)), 0.42, 0.20)
    fill(np.ones(u.shape, dtype=bool), grass, 0.16, 0.14)
    paved = np.abs(v) < half + 3.2
    tile = float(rng.uniform(0.5, 0.9))
    fill(paved, (0.62, 0.59, 0.55), 0.07, 0.03)
    gaps = (np.mod(u, tile) < 0.05) | (np.mod(v, tile) < 0.05)
    colour[paved & gaps] *= 0.78
    path = np.abs(u - 16.0 * float(rng.uniform(0.8, 1.3))) < 1.3
    fill(path & ~paved, (0.58, 0.52, 0.42), 0.08, 0.06)
    road = np.abs(v) < half
    fill(road, (grey, grey, grey * 1.02), 0.07, 0.05)
    colour[np.abs(np.abs(v) - half) < 0.1] = (0.72, 0.71, 0.69)
    dashes = (np.abs(v) < 0.08) & (np.mod(u, 6.0) < 3.0)
    colour[dashes] = (0.85, 0.85, 0.83)
    lane = (v > half - 1.6) & road
    if rng.random() < 0.6:
        colour[lane] *= np.array((1.25, 0.72, 0.66), dtype=np.float32)
    start = float(rng.uniform(-9.0, 0.0))
    zebra = (u > start) & (u < start + 3.6) & road & (np.mod(v, 1.0) < 0.5)
    colour[zebra] = 0.86 + 0.04 * fine[zebra][:, None]
    ground = _houses(rng, colour, angle, shift, half + 5.5, fine)
    colour[: int(_HORIZON) - 40] = np.maximum(colour[: int(_HORIZON) - 40], 0.25)
    image = Image.fromarray((np.clip(colour, 0.0, 1.0) * 255).astype(np.uint8))
    lamps = np.zeros((_SIZE[1], _SIZE[0]), dtype=np.float32)
    _place_objects(rng, image, lamps, angle, shift, half)
    warm = rng.random() < 0.5
    return Scene(
        albedo=np.asarray(image, dtype=np.float32) / 255.0,
        lamps=lamps,
        ground=ground,
        lamp_colour=(1.0, 0.84, 0.62) if warm else (0.88, 0.95, 1.0),
        sun_turn=float(rng.uniform(-1.0, 1.0)) + math.pi,
    )


def _houses(
    rng: Generator,
    colour: Pixels,
    angle: float,
    shift: float,
    behind: float,
    fine: Pixels,
) -> NDArray[np.bool_]:
    """Paint house fronts along the far side of the road; return the remaining ground."""
    slope = np.arange(_SIZE[0], dtype=np.float32)[None, :] - _SIZE[0] / 2
    # The ray of a column meets the front where v = behind.
    turn = -slope / _FOCAL * math.sin(angle) + math.cos(angle)
    reach = (behind - shift + 22.0 * math.cos(angle)) / np.where(np.abs(turn) < 1e-3, 1e-3, turn)
    rows = np.arange(_SIZE[1], dtype=np.float32)[:, None]
    height = _CAMERA_HEIGHT - (rows - _HORIZON) / _FOCAL * reach
    seen = (reach > 2.0) & (reach < 400.0) & (height > 0.0)
    along = reach * (slope / _FOCAL * math.cos(angle) + math.sin(angle))
    along = np.broadcast_to(along, height.shape)
    walls: tuple[fg.Colour, ...] = ((0.62, 0.40, 0.32), (0.72, 0.68, 0.58), (0.55, 0.55, 0.56))
    paint = walls[int(rng.integers(len(walls)))]
    shade = 1.0 + 0.05 * fine
    brick = (np.mod(height, 0.3) < 0.03) | (np.mod(along, 0.6) < 0.03)
    for c in range(3):
        wall = paint[c] * shade * np.where(brick, 0.88, 1.0)
        window = (np.mod(along, 3.2) > 1.0) & (np.mod(along, 3.2) < 2.3)
        window &= (np.mod(height, 3.0) > 0.9) & (np.mod(height, 3.0) < 2.3)
        wall = np.where(window, (0.17, 0.20, 0.24)[c], wall)
        wall = np.where(height < 0.5, wall * 0.6, wall)
        colour[..., c] = np.where(seen, wall, colour[..., c])
    sky = (rows < _HORIZON + 4) & ~seen
    colour[sky] = (0.70, 0.76, 0.84)
    result: NDArray[np.bool_] = ~seen & ~sky
    return result


def _place_objects(
    rng: Generator, image: Image.Image, lamps: Pixels, angle: float, shift: float, half: float
) -> None:
    """Place parked cars, shrubs, posts, bicycles and lamp posts along the road."""
    things: list[tuple[float, float, fg.Figure, float]] = []
    along = np.array((math.cos(angle), math.sin(angle)))
    across = np.array((-math.sin(angle), math.cos(angle)))
    for index in range(34):
        u = float(rng.uniform(-14.0, 70.0))
        side = 1.0 if rng.random() < 0.5 else -1.0
        kind = ("car", "car", "bush", "bush", "post", "bicycle", "lamp")[index % 7]
        v = side * (half - 1.1 if kind == "car" else half + float(rng.uniform(0.4, 4.5)))
        spot = along * u + across * (v - shift) + np.array((0.0, 22.0))
        if spot[1] < 12.0:
            continue
        heading = angle + (0.0 if rng.random() < 0.5 else math.pi)
        if kind == "car":
            figure = fg.car(rng)
        elif kind == "bush":
            figure = fg.bush(rng)
        elif kind == "post":
            figure = fg.post(rng)
        elif kind == "lamp":
            figure = fg.pole(rng)
        else:
            figure = fg.bicycle(fg.draw_bike(rng, 1.75), 0.2)
        things.append((float(spot[1]), float(spot[0]), figure, heading))
        if kind == "lamp":
            _glow(lamps, float(spot[0]), float(spot[1]))
    for deep in (14.0, 26.0, 45.0):
        _glow(lamps, float(rng.uniform(-6.0, 6.0)), deep)
    np.clip(lamps, 0.0, 1.0, out=lamps)
    tones = _tone_colours((0.55, 0.55, 0.57), (0.35, 0.34, 0.32), 0.8)
    for deep, right, figure, heading in sorted(things, key=lambda t: -t[0]):
        scale = _FOCAL / deep
        actor = Actor(figure, heading)
        shapes = project([actor], pitch(scale), (-0.6, -0.8), 60.0)
        x, y = ground_pixel(scale, right)
        draw = ImageDraw.Draw(image)
        _paint(draw, [actor], shapes, scale, (x, y), tones, 1.0)


def _glow(lamps: Pixels, right: float, deep: float) -> None:
    """Add a street lamp's pool of light to the map of lamp light."""
    scale = _FOCAL / deep
    x, y = ground_pixel(scale, right)
    wide, tall = 5.0 * scale, 5.0 * scale * max(math.sin(pitch(scale)), 0.15) + 1.2 * scale
    rows = np.arange(_SIZE[1], dtype=np.float32)[:, None]
    cols = np.arange(_SIZE[0], dtype=np.float32)[None, :]
    near = ((cols - x) / wide) ** 2 + ((rows - y) / tall) ** 2
    lamps += (0.9 * np.exp(-near)).astype(np.float32)


def project(
    actors: Sequence[Actor], camera_pitch: float, light: tuple[float, float], pixels: float
) -> list[fg.Outlines]:
    """Outlines of figures at one pixel per metre around their common ground point.

    Args:
        actors: Figures with their places.
        camera_pitch: Angle at which the camera looks down, radians.
        light: Direction on the screen light comes from (right, down).
        pixels: Long side of the crop, which decides how finely surfaces are shaded.
    """
    tones = _COARSE_TONES if pixels < 44.0 else _FINE_TONES
    shapes = []
    ground = fg.projection(fg.View(0.0, camera_pitch, 1.0))
    for actor in actors:
        matrix = fg.projection(fg.View(actor.heading, camera_pitch, 1.0))
        shape = fg.outline(actor.figure, matrix, tones, light)
        move = ground @ np.array((actor.right, actor.away, 0.0))
        shapes.append(
            fg.Outlines(shape.polygons + move[:2], shape.lines + move[:2], shape.depth + move[2])
        )
    return shapes


def bounds(shape: fg.Outlines) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a figure's outlines."""
    points = shape.polygons[:, 0].reshape(-1, 2)
    if shape.lines.size:
        points = np.concatenate([points, shape.lines.reshape(-1, 2)])
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def hidden_share(shapes: Sequence[fg.Outlines]) -> float:
    """Share of the first figure's outline that nearer figures cover, 0 to 1."""
    left, top, right, bottom = bounds(shapes[0])
    grain = 48.0 / max(right - left, bottom - top)
    size = (max(int((right - left) * grain), 1), max(int((bottom - top) * grain), 1))
    masks = []
    nearest = float(np.median(shapes[0].depth))
    for shape in shapes:
        mask = Image.new("1", size, 0)
        if shape is shapes[0] or float(np.median(shape.depth)) < nearest:
            draw = ImageDraw.Draw(mask)
            points = (shape.polygons[:, 0] - (left, top)) * grain
            for polygon in points.reshape(len(points), -1).tolist():
                draw.polygon(polygon, fill=1)
        masks.append(np.asarray(mask))
    covered = np.any(masks[1:], axis=0) if len(masks) > 1 else np.zeros_like(masks[0])
    return float((masks[0] & covered).sum() / max(masks[0].sum(), 1))


def _tone_colours(ambient: fg.Colour, direct: fg.Colour, front: float) -> list[fg.Colour]:
    """Light on the dark, middle and bright part of a rounded surface."""
    levels = ((0.76, 0.10), (0.92, 0.42 + 0.2 * front), (1.08, 0.7 + 0.25 * front))
    tones: list[fg.Colour] = []
    for a, s in levels:
        r, g, b = (a * ambient[c] + s * direct[c] for c in range(3))
        tones.append((r, g, b))
    return tones


def _paint(
    draw: ImageDraw.ImageDraw,
    actors: Sequence[Actor],
    shapes: Sequence[fg.Outlines],
    scale: float,
    origin: tuple[float, float],
    tones: Sequence[fg.Colour],
    finer: float,
) -> None:
    """Draw figures from far to near; `scale` is in pixels of the canvas per metre."""
    order = sorted(
        (float(d), a, i) for a, shape in enumerate(shapes) for i, d in enumerate(shape.depth)
    )
    steps = shapes[0].polygons.shape[1]
    used = [tones[0], tones[-1]] if steps == 2 else list(tones)
    flat = [
        (s.polygons * scale + np.array(origin)).reshape(len(s.polygons), steps, -1).tolist()
        for s in shapes
    ]
    for _, a, i in reversed(order):
        figure = actors[a].figure
        if i < len(figure.parts):
            r, g, b = figure.parts[i].colour
            for t, (lr, lg, lb) in enumerate(used):
                draw.polygon(
                    flat[a][i][t],
                    fill=(
                        min(int(255 * r * lr), 255),
                        min(int(255 * g * lg), 255),
                        min(int(255 * b * lb), 255),
                    ),
                )
        else:
            ring = figure.rings[i - len(figure.parts)]
            line = shapes[a].lines[i - len(figure.parts)] * scale + np.array(origin)
            lr, lg, lb = used[-1]
            r, g, b = ring.colour
            draw.line(
                line.ravel().tolist(),
                fill=(
                    min(int(255 * r * lr), 255),
                    min(int(255 * g * lg), 255),
                    min(int(255 * b * lb), 255),
                ),
                width=max(1, round(ring.tube * scale + 0.3 * finer)),
            )


def _shadow(
    actors: Sequence[Actor],
    sun: fg.Vec,
    camera_pitch: float,
    scale: float,
    origin: tuple[float, float],
    size: tuple[int, int],
) -> Image.Image:
    """Mask (0 to 255) of the shadows that figures throw on the ground."""
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    flatten = np.array(
        [[1.0, 0.0, -sun[0] / sun[2]], [0.0, 1.0, -sun[1] / sun[2]], [0.0, 0.0, 0.0]]
    )
    ground = fg.projection(fg.View(0.0, camera_pitch, scale))
    for actor in actors:
        turn = np.eye(3)
        turn[:2, :2] = (
            (math.cos(actor.heading), -math.sin(actor.heading)),
            (math.sin(actor.heading), math.cos(actor.heading)),
        )
        shape = fg.outline(actor.figure, ground @ flatten @ turn)
        move = (ground @ np.array((actor.right, actor.away, 0.0)))[:2] + np.array(origin)
        for points in (shape.polygons[:, 0] + move).reshape(len(shape.polygons), -1).tolist():
            draw.polygon(points, fill=255)
        for line in shape.lines + move:
            draw.line(line.ravel().tolist(), fill=255, width=max(1, round(0.04 * scale)))
    return mask


def screen_light(weather: Weather, camera_pitch: float) -> tuple[tuple[float, float], float]:
    """Direction in the image from which the light comes, and how frontal it is (0 to 1)."""
    sun = weather.sun if weather.night < 0.5 else (0.1, -0.2, 0.97)
    seen = fg.projection(fg.View(0.0, camera_pitch, 1.0)) @ np.array(sun)
    length = math.hypot(float(seen[0]), float(seen[1])) + 1e-6
    return (float(seen[0]) / length, float(seen[1]) / length), 0.5 - 0.5 * float(seen[2])


def render_crop(
    scene: Scene,
    weather: Weather,
    actors: Sequence[Actor],
    shapes: Sequence[fg.Outlines],
    scale: float,
    spot: tuple[float, float],
    box: tuple[int, int, int, int],
    lens: Lens,
    rng: Generator,
) -> bytes:
    """Render one crop.

    Args:
        scene: The street.
        weather: Light and weather.
        actors: Every figure near the crop.
        shapes: Their outlines as `project` gives them.
        scale: Pixels per metre.
        spot: Pixel of the street at which the figures' common ground point lies.
        box: Left, top, width and height of the crop in pixels of the frame.
        lens: Blur and compression.
        rng: Source of noise and rain.

    Returns:
        An RGB JPEG of `box`'s width and height.
    """
    left, top = box[0] + _MARGIN[0] - _PAD, box[1] + _MARGIN[1] - _PAD
    wide, tall = box[2] + 2 * _PAD, box[3] + 2 * _PAD
    origin = (spot[0] - left, spot[1] - top)
    look = pitch(scale)
    ground = scene.albedo[top : top + tall, left : left + wide]
    row = min(max(int(spot[1]), 0), _SIZE[1] - 1)
    col = min(max(int(spot[0]), 0), _SIZE[0] - 1)
    lamp = (0.12 + 0.75 * float(scene.lamps[row, col])) * weather.night
    lamps = scene.lamps[top : top + tall, left : left + wide, None]
    glow = np.array(scene.lamp_colour, dtype=np.float32)
    ambient = np.array(weather.ambient, dtype=np.float32)
    direct = np.array(weather.direct, dtype=np.float32)
    flat = 0.35 + 0.65 * weather.sun[2]
    picture = ground * (ambient + (0.08 + 0.62 * lamps) * weather.night * glow)
    if actors:
        hard = float(direct.max()) > 0.12
        sun = weather.sun if hard else (0.05, -0.05, 1.0)
        mask = _shadow(actors, sun, look, scale, origin, (wide, tall))
        soft = 0.5 if hard else max(0.05 * scale, 0.8)
        mask = mask.filter(ImageFilter.GaussianBlur(soft))
        shade = np.asarray(mask, dtype=np.float32)[..., None] / 255.0
    else:
        hard, shade = True, np.zeros((tall, wide, 1), dtype=np.float32)
    if hard:
        picture = picture * (1.0 - 0.2 * shade) + ground * direct * flat * (1.0 - shade)
    else:
        picture = (picture + ground * direct * flat) * (1.0 - 0.4 * shade)
    if weather.rain > 0.0:
        picture = picture * (1.0 - 0.25 * weather.rain)
    if actors:
        picture = _compose(
            picture, weather, actors, shapes, scale, origin, lens, lamp, scene.lamp_colour
        )
        _shine(picture, weather, actors, scale, origin, look)
    picture = picture * weather.gain
    if weather.fog > 0.0:
        veil = (0.66 * (1.0 - weather.night) + 0.16 * weather.night) * np.ones(3, dtype=np.float32)
        picture = picture * (1.0 - weather.fog) + veil * weather.fog
    if weather.rain > 0.15:
        picture = _streaks(picture, weather, rng)
    image = _to_image(picture)
    if lens.defocus > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(lens.defocus))
    image = image.crop((_PAD, _PAD, _PAD + box[2], _PAD + box[3]))
    values = np.asarray(image, dtype=np.float32) / 255.0
    grain = rng.standard_normal(values.shape, dtype=np.float32)
    # Most noise of a camera is in brightness, a part in colour.
    grain = 0.5 * grain + 0.75 * grain[..., 1:2]
    image = _to_image(values + weather.noise * grain)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=lens.quality)
    return stream.getvalue()


def _to_image(picture: Pixels) -> Image.Image:
    return Image.fromarray((np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))


def _compose(
    picture: Pixels,
    weather: Weather,
    actors: Sequence[Actor],
    shapes: Sequence[fg.Outlines],
    scale: float,
    origin: tuple[float, float],
    lens: Lens,
    lamp: float,
    lamp_colour: fg.Colour,
) -> Pixels:
    """Draw the figures at a multiple of the resolution and composite them with the picture."""
    tall, wide = picture.shape[:2]
    finer = 4 if max(wide, tall) < 56 else 3 if max(wide, tall) < 100 else 2
    layer = Image.new("RGBA", (wide * finer, tall * finer), (0, 0, 0, 0))
    _, front = screen_light(weather, pitch(scale))
    ambient = (
        weather.ambient[0] + lamp * lamp_colour[0],
        weather.ambient[1] + lamp * lamp_colour[1],
        weather.ambient[2] + lamp * lamp_colour[2],
    )
    tones = _tone_colours(ambient, weather.direct, front)
    draw = ImageDraw.Draw(layer)
    _paint(
        draw,
        actors,
        shapes,
        scale * finer,
        (origin[0] * finer, origin[1] * finer),
        tones,
        float(finer),
    )
    small = np.asarray(layer.reduce(finer), dtype=np.float32) / 255.0
    cover = small[..., 3:4]
    paint = np.concatenate([small[..., :3] * cover, cover], axis=2)
    paint = _smear(paint, lens.smear)
    result: Pixels = picture * (1.0 - paint[..., 3:4]) + paint[..., :3]
    return result


def _smear(paint: Pixels, motion: tuple[float, float]) -> Pixels:
    """Average copies along the motion of the exposure: the object blurs, the street does not."""
    steps = int(max(abs(motion[0]), abs(motion[1])) + 0.5)
    if steps < 1:
        return paint
    total = paint.copy()
    for step in range(1, steps + 1):
        t = step / steps
        total += np.roll(
            paint, (round(motion[1] * (t - 0.5)), round(motion[0] * (t - 0.5))), axis=(0, 1)
        )
    result: Pixels = total / np.float32(steps + 1)
    return result


def _shine(
    picture: Pixels,
    weather: Weather,
    actors: Sequence[Actor],
    scale: float,
    origin: tuple[float, float],
    camera_pitch: float,
) -> None:
    """Add the lamps of vehicles, which dazzle if they face the camera in the dark."""
    tall, wide = picture.shape[:2]
    rows = np.arange(tall, dtype=np.float32)[:, None]
    cols = np.arange(wide, dtype=np.float32)[None, :]
    ground = fg.projection(fg.View(0.0, camera_pitch, scale))
    for actor in actors:
        if not actor.lit:
            continue
        matrix = fg.projection(fg.View(actor.heading, camera_pitch, scale))
        move = ground @ np.array((actor.right, actor.away, 0.0))
        for lamp in actor.figure.lamps:
            facing = max(0.0, -float(matrix[2, 0]) * lamp.ahead / scale)
            if facing < 0.05:
                continue
            at = matrix @ np.array(lamp.centre) + move
            power = lamp.strength * (0.15 + 0.85 * facing**2) * (0.3 + 0.9 * weather.night)
            sigma = (0.05 + 0.12 * weather.night * facing * lamp.strength) * scale + 0.5
            near = (cols - origin[0] - float(at[0])) ** 2 + (rows - origin[1] - float(at[1])) ** 2
            spot = power * np.exp(-near / (2.0 * sigma * sigma))
            picture += spot[..., None] * np.array(lamp.colour, dtype=np.float32)


def _streaks(picture: Pixels, weather: Weather, rng: Generator) -> Pixels:
    """Draw streaks of rain over the picture."""
    tall, wide = picture.shape[:2]
    mask = Image.new("L", (wide, tall), 0)
    draw = ImageDraw.Draw(mask)
    lean = float(rng.normal(0.1, 0.12))
    for _ in range(int(weather.rain * wide * tall / 260.0) + 1):
        x, y = float(rng.uniform(0, wide)), float(rng.uniform(-8, tall))
        long = float(rng.uniform(5.0, 16.0))
        draw.line((x, y, x + lean * long, y + long), fill=int(rng.uniform(40, 120)))
    alpha = np.asarray(mask, dtype=np.float32)[..., None] / 255.0
    bright = np.float32(0.75 * (1.0 - weather.night) + 0.4 * weather.night)
    result: Pixels = picture * (1.0 - alpha) + bright * alpha
    return result
