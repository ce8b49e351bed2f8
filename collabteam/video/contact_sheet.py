"""Contact sheets: many crops with captions in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from collabteam.pictures import UndecodablePicture, decode, placeholder
from collabteam.storage.files import replacing


def contact_sheet(
    images: Sequence[tuple[bytes, str]], to: Path, columns: int = 12, side: int = 96
) -> None:
    """Write crops, each with a caption below, to one PNG.

    Args:
        images: Encoded image (JPEG, PNG, ...) and caption of each crop; may be empty.
        to: The PNG file to write.
        columns: Crops in a row, 1 or more.
        side: Side in pixels of the square that a crop is letterboxed to, 16 or more.
    """
    pad, text = 6, 16
    columns = max(1, min(columns, len(images)))
    lines = max(1, -(-len(images) // columns))
    cell_width, cell_height = side + pad, side + text + pad
    sheet = Image.new("RGB", (columns * cell_width + pad, lines * cell_height + pad), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for k, (encoded, caption) in enumerate(images):
        left = pad + (k % columns) * cell_width
        top = pad + (k // columns) * cell_height
        try:
            picture = decode(encoded)
        except UndecodablePicture:
            picture = placeholder(side)
        tile = ImageOps.pad(picture, (side, side), color="#303030")
        sheet.paste(tile, (left, top))
        shown = caption
        while draw.textlength(shown, font) > side and len(shown) > 1:
            shown = shown.removesuffix("...")[:-1] + "..."
        draw.text((left, top + side + 1), shown, fill="black", font=font)
    if not images:
        draw.text((pad, pad), "no crops", fill="black", font=font)
    with replacing(to) as file:
        sheet.save(file, format="PNG")
