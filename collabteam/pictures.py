"""The one way from an encoded picture to pixels, for the team, the page, reports and exports.

A picture of any mode, depth and orientation becomes upright RGB of 8 bits. Whatever shows or writes
a crop asks this module, so a person sees what the team sees, and other programs see the same.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from collabteam.errors import UserError

# Pillow warns of metadata that it passes over; what cannot be decoded raises.
warnings.filterwarnings("ignore", module=r"PIL\.")

GROUND = (124, 116, 104)
"""Colour behind transparent parts, RGB, 0 to 255: ImageNet's mean."""

_EXTENSIONS = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp",
    "GIF": ".gif", "TIFF": ".tif", "PPM": ".ppm",
}  # fmt: skip
FORMATS = tuple(_EXTENSIONS)
"""Formats that are opened. Not all that Pillow knows: opening an EPS file starts Ghostscript."""
_USUAL = (".jpg", ".png", ".webp")

_ORIENTATION, _BITS, _SAMPLES, _WHITE, _PLANES = 0x0112, 258, 339, 262, 284
_COMMON = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg")
_EXIF_HEAD = 512  # bytes, where the entry about the orientation stands
_GAMMA = 1 / 2.2
_VISIBLE = 4  # shades, of 255
_PNG = b"\x89PNG\r\n\x1a\n"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndecodablePicture(UserError):
    """A picture cannot be decoded; the text is the reason."""


@dataclass(frozen=True)
class PortablePicture:
    """An encoded picture that every program shows as :func:`decode` does.

    Attributes:
        image: The encoded picture.
        extension: Extension of a file with this picture, such as ``.jpg``.
        width: Width of the upright picture, in pixels.
        height: Height of the upright picture, in pixels.
        converted: Whether it was converted to PNG; otherwise it is unchanged.
    """

    image: bytes
    extension: str
    width: int
    height: int
    converted: bool = False

    @property
    def media_type(self) -> str:
        """The media type, such as ``image/jpeg``."""
        return f"image/{'jpeg' if self.extension == '.jpg' else self.extension[1:]}"


def decode(image: bytes, side: int = 0) -> Image.Image:
    """Decode a picture as upright RGB of 8 bits; of several frames, the first.

    16-bit shades keep their upper 8 bits. Shades of 32 bits and fractions are read on the smallest
    usual scale that holds them all: up to 1 (fractions), 255, 65,535, or the full range. Fractions
    may exceed their scale by a half, as filters make them, and are cut off.
    Transparent parts get :data:`GROUND`.

    Args:
        image: Encoded picture (JPEG, PNG, ...).
        side: Pixels of the longer side that suffice, 0 for all: a JPEG is then decoded at 1/2, 1/4
            or 1/8 of its size where that is enough.

    Returns:
        The picture in mode ``RGB``.

    Raises:
        UndecodablePicture: It is damaged, or of an unknown format.
    """
    try:
        with _opened(image) as opened:
            if side:
                opened.draft("RGB", (side, side))
            return _decoded(opened)
    except Exception as error:  # decoders raise many types on damaged pictures
        raise _undecodable(error) from error


def as_png(image: bytes) -> bytes:
    """Convert a picture to PNG, with the pixels of :func:`decode`.

    Raises:
        UndecodablePicture: It is damaged, or of an unknown format.
    """
    return _png(decode(image))


def portable(image: bytes) -> PortablePicture:
    """Make every program show a picture as the team sees it.

    Most pictures stay as they are. A picture becomes a PNG if programs disagree about it: if it is
    turned by its metadata, has transparent parts, several frames, more than 8 bits, or colours
    other than RGB, grey and a palette.

    Args:
        image: Encoded picture.

    Raises:
        UndecodablePicture: It cannot be opened, or has to be converted and is damaged.
    """
    try:
        with _opened(image) as opened:
            if _is_plain(opened, image):
                # Pillow reports a JPEG that holds further pictures as MPO.
                extension = _EXTENSIONS.get(str(opened.format), ".jpg")
                if extension not in _USUAL:
                    _load(opened)  # a format of export may have to convert it
                return PortablePicture(image, extension, *opened.size)
        picture = decode(image)  # opened anew, because the look at it may have moved it on
    except UndecodablePicture:
        raise
    except Exception as error:  # decoders raise many types on damaged pictures
        raise _undecodable(error) from error
    return PortablePicture(_png(picture), ".png", *picture.size, converted=True)


def stored_size(image: bytes) -> tuple[int, int]:
    """Read width and height from a picture's header, before anything is decoded.

    Raises:
        UndecodablePicture: It cannot be opened.
    """
    try:
        with _opened(image) as opened:
            return opened.size
    except Exception as error:  # decoders raise many types on damaged pictures
        raise _undecodable(error) from error


def png_damage(image: bytes) -> str:
    """Say what is wrong with the parts of a PNG; ``""`` for nothing and for other formats.

    Pillow passes over wrong checksums of the pixels, and shows noise.
    """
    at = len(_PNG)
    while image.startswith(_PNG):
        end = at + 8 + int.from_bytes(image[at : at + 4])
        kind = image[at + 4 : at + 8]
        if len(image) < end + 4:
            return "its end is missing"
        if zlib.crc32(image[at + 4 : end]) != int.from_bytes(image[end : end + 4]):
            return f"the checksum of its part {kind!r} is wrong"
        if kind == b"IEND":
            break
        at = end + 4
    return ""


def placeholder(side: int) -> Image.Image:
    """A square with a cross, shown in the place of a picture that cannot be decoded."""
    picture = Image.new("RGB", (side, side), GROUND)
    ends = np.arange(side)
    pixels = np.asarray(picture).copy()
    pixels[ends, ends] = pixels[ends, ends[::-1]] = 255
    return Image.fromarray(pixels)


def _opened(image: bytes) -> ImageFile.ImageFile:
    Image.init()  # else Pillow rejects some formats when they are named
    return Image.open(io.BytesIO(image), formats=FORMATS)


def _undecodable(error: Exception) -> UndecodablePicture:
    if isinstance(error, UnidentifiedImageError):
        return UndecodablePicture("not a picture of a known format")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UndecodablePicture(f"cannot be decoded: {reason}"[:200])


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _load(opened: ImageFile.ImageFile) -> None:
    tags: Any = getattr(opened, "tag_v2", {})
    if _first(tags, _PLANES, 1) == 2 and _first(tags, _BITS, 8) > 8 and len(opened.getbands()) > 1:
        raise ValueError("a TIFF of 16 bits whose colours lie apart")  # Pillow mixes them up
    key, stored = opened.info.get("transparency"), str(opened.tile[0].args if opened.tile else "")
    if (
        isinstance(key, tuple) and ";16" in stored
    ):  # Pillow scales colours to 8 bits, but not the key
        opened.info["transparency"] = tuple(part >> 8 for part in key)
    elif isinstance(key, int) and opened.mode == "L":
        opened.info["transparency"] = key * (85 if ";2" in stored else 17 if ";4" in stored else 1)
    opened.load()


def _decoded(opened: ImageFile.ImageFile) -> Image.Image:
    _load(opened)
    # TIFF's decoder turns the picture itself, and then removes the entry.
    turn = _TURNS.get(_orientation(opened))
    picture = _rgb(opened)
    picture = picture if turn is None else picture.transpose(turn)
    picture.info = {}  # a profile of its colours would be saved again
    return picture


def _orientation(opened: Image.Image) -> int:
    """Read how the picture is turned; 0 if that is damaged, in a picture that may be sound."""
    try:
        value = opened.getexif().get(_ORIENTATION)
    except Exception:  # of many types
        return 0
    if value is None:  # others read an entry of a wrong type or number, too
        head = opened.info.get("exif", b"")[:_EXIF_HEAD]
        return 0 if b"\x01\x12" in head or b"\x12\x01" in head else 1
    return value if isinstance(value, int) else 0


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _eight_bits(picture)
    if picture.mode == "La":  # Pillow converts it to nothing else
        picture = picture.convert("LA")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    behind = Image.new("RGBA", picture.size, (*GROUND, 255))
    return Image.alpha_composite(behind, picture.convert("RGBA")).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Convert shades of more than 8 bits."""
    tags: Any = getattr(picture, "tag_v2", {})
    values = np.asarray(picture)
    if picture.mode == "F":
        shades = _fractions(values)
    elif picture.mode == "I" and picture.format == "TIFF":
        shades = _integers(values, _first(tags, _BITS, 32), _first(tags, _SAMPLES, 1) == 1)
    else:  # 16 bits, or 12 in a TIFF; Pillow brings every other format to 16
        shades = (values >> (_first(tags, _BITS, 16) - 8)).clip(0, 255).astype(np.uint8)
    if _first(tags, _WHITE, 1) == 0:  # 0 is white; Pillow reverses 8-bit shades alone
        shades = 255 - shades
    out = np.repeat(shades[:, :, None], 3, axis=2)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        out[values == key] = GROUND
    return Image.fromarray(out)


def _first(tags: Any, tag: int, otherwise: int) -> int:
    value = tags.get(tag, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)


def _fractions(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    most = float(values.max(initial=0.0))
    scale = next((scale for scale in (1.0, 255.0, 65535.0) if most <= 1.5 * scale), most)
    return np.rint(values.clip(0, scale) * (255 / scale)).astype(np.uint8)


def _integers(values: NDArray[np.int32], bits: int, unsigned: bool) -> NDArray[np.uint8]:
    wide = values.view(np.uint32).astype(np.int64) if unsigned else values.astype(np.int64)
    full = bits if unsigned else bits - 1
    most = int(wide.max(initial=0))
    used = next((few for few in (8, 16) if few < full and most < 2**few), full)
    if bits < 32:
        used = full
    return (wide.clip(0, None) >> (used - 8)).astype(np.uint8)


def _is_plain(opened: ImageFile.ImageFile, image: bytes) -> bool:
    """Whether every program shows the picture alike."""
    if opened.mode not in ("1", "L", "P", "RGB") or opened.has_transparency_data:
        return False
    if opened.mode == "1" and opened.format != "PNG":
        return False
    if any(re.search(";1[56]", str(tile.args)) for tile in opened.tile):
        return False  # more bits than Pillow keeps, or fewer than it shows
    if _has_other_colours(opened):
        return False
    if opened.format == "PPM" and opened.tile[0].codec_name != "raw":  # as text, or of other depth
        return False
    if opened.format == "PNG":  # looked for in the bytes, because asking Pillow decodes the picture
        marks = (b"eXIf", b"acTL", b"XML:com.adobe.xmp", b"Raw profile type")
        is_upright = not any(mark in image for mark in marks) or _is_upright_png(opened, image)
        return is_upright and not png_damage(image)  # others than Pillow refuse it
    try:
        if opened.format != "MPO" and getattr(opened, "is_animated", False):
            return False
    except Exception:  # the second frame of a GIF is damaged
        return False
    if opened.format == "TIFF" and opened.info.get("compression", "raw") not in _COMMON:
        return False
    return _orientation(opened) == 1 and (
        opened.format != "TIFF" or getattr(opened, "tag_v2", {}).get(_ORIENTATION, 1) == 1
    )


def _has_other_colours(opened: ImageFile.ImageFile) -> bool:
    """Whether programs that follow profiles of colours, such as browsers, show other colours."""
    if profile := opened.info.get("icc_profile"):
        return _is_other_profile(profile, "L" if opened.mode in ("1", "L") else "RGB")
    gamma = opened.info.get("gamma", _GAMMA)  # of a PNG
    return "srgb" not in opened.info and abs(gamma / _GAMMA - 1) > 0.05


@lru_cache(64)
def _is_other_profile(profile: bytes, mode: str) -> bool:
    """Whether a profile changes colours visibly; one that is damaged changes nothing."""
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(36, 6, 3)
    plain = Image.fromarray(colours).convert(mode)
    try:
        stated = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        usual = ImageCms.createProfile("sRGB")
        shown = ImageCms.profileToProfile(plain, stated, usual, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        return False
    off = np.asarray(shown, dtype=np.int16) - np.asarray(plain.convert("RGB"), dtype=np.int16)
    return int(np.abs(off).max()) > _VISIBLE


def _is_upright_png(opened: Image.Image, image: bytes) -> bool:
    return b"acTL" not in image and _orientation(opened) == 1
