"""Encoded pictures for files of other tools."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from collabteam.errors import UserError
from collabteam.settings import UNUSABLE

_EXTENSIONS = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp",
    "GIF": ".gif", "TIFF": ".tif", "PPM": ".ppm",
}  # fmt: skip


@dataclass(frozen=True)
class PictureHeader:
    """The header of an encoded picture.

    Attributes:
        extension: Extension of a file with this picture, such as ``.jpg``.
        width: Width in pixels.
        height: Height in pixels.
    """

    extension: str
    width: int
    height: int


def read_header(crop_id: str, image: bytes) -> PictureHeader:
    """Read a crop's extension and size without decoding its pixels.

    Args:
        crop_id: The crop, for the message.
        image: Its encoded picture.

    Raises:
        UserError: The picture cannot be opened.
    """
    Image.init()  # else Pillow rejects some formats when they are named
    try:
        with Image.open(io.BytesIO(image), formats=list(_EXTENSIONS)) as picture:
            # Pillow may report a JPEG that holds further pictures as MPO.
            return PictureHeader(_EXTENSIONS.get(str(picture.format), ".jpg"), *picture.size)
    except Exception as error:  # decoders raise many types on damaged pictures
        raise UserError(
            f"the picture of crop {crop_id} cannot be opened: expected JPEG, PNG, WebP, ...; give "
            f"the crop the label '{UNUSABLE}' and export again"
        ) from error


def as_png(image: bytes) -> bytes:
    """Convert a picture (the first, if it holds several) to PNG with the same pixels."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image)) as picture:
        picture.save(buffer, "PNG")
    return buffer.getvalue()
