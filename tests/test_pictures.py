"""Every picture means the same to the team, the page, reports, exports and other programs."""

from __future__ import annotations

import csv
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Call
from numpy.typing import NDArray
from PIL import Image, ImageCms

from collabteam import LabelledCrops
from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.errors import UserError
from collabteam.exporting.base import EXPORT_FORMATS
from collabteam.exporting.folder import export_dataset
from collabteam.exporting.selection import select_labels
from collabteam.features.images import CropPixels, Transform
from collabteam.monitoring.facts import _small
from collabteam.pictures import GROUND, UndecodablePicture, decode, portable
from collabteam.reviewing.exchange.base import EXCHANGE_FORMATS, Task
from collabteam.reviewing.exchange.tasks import write_tasks
from collabteam.reviewing.session import ReviewSession
from collabteam.settings import CameraConfig, ReviewConfig
from collabteam.sources.crops import ingest_crops
from collabteam.video.contact_sheet import contact_sheet

cv2 = pytest.importorskip("cv2", reason="needs the extra 'footage'")

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 40, 24
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""How a camera that notes an orientation in EXIF stores what a person sees upright."""


def scene() -> Pixels:
    """What a person sees: no two corners are alike, and the sides differ."""
    a = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    a[:, : WIDTH // 2] = (220, 20, 40)
    a[:, WIDTH // 2 :] = (20, 60, 220)
    a[: HEIGHT // 2, : WIDTH // 4] = 255
    a[-HEIGHT // 4 :] //= 2
    return a


def grey() -> Pixels:
    return np.asarray(Image.fromarray(scene()).convert("L"))


def alpha() -> Pixels:
    a = np.full((HEIGHT, WIDTH), 255, np.uint8)
    a[-HEIGHT // 3 :, WIDTH // 2 :] = 0
    a[: HEIGHT // 4, WIDTH // 2 :] = 128
    return a


def on_ground(colours: Pixels) -> Pixels:
    a = alpha()[..., None] / 255
    return np.rint(colours * a + np.array(GROUND) * (1 - a)).astype(np.uint8)


def _png(
    rows: NDArray[Any], kind: int, depth: int, *chunks: tuple[bytes, bytes], width: int = 0
) -> bytes:
    """A PNG that Pillow cannot write: of 16 bits, or with chunks of ours."""

    def chunk(name: bytes, content: bytes) -> bytes:
        size, crc = struct.pack(">I", len(content)), zlib.crc32(name + content)
        return size + name + content + struct.pack(">I", crc)

    height, width = rows.shape[0], width or rows.shape[1]
    lines = b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _tiff(rows: NDArray[Any], order: str, turn: int, white: int = 1) -> bytes:
    """An uncompressed grey TIFF in either byte order."""
    height, width = rows.shape
    bits, kind = rows.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[rows.dtype.kind]
    data = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(order))).tobytes()
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, white),
        (273, 4, 8), (274, 3, turn), (277, 3, 1), (278, 4, height), (279, 4, len(data)),
        (339, 3, kind),
    ]  # fmt: skip
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    table = struct.pack(f"{order}H", len(entries))
    for tag, type_, value in entries:
        packed = struct.pack(
            f"{order}{'HH' if type_ == 3 else 'I'}", *([value, 0][: 4 - type_ + 1])
        )
        table += struct.pack(f"{order}HHI", tag, type_, 1) + packed
    return head + data + table + struct.pack(f"{order}I", 0)


def _bmp(colours: Pixels) -> bytes:
    """A BMP of five bits a colour."""
    five = colours.astype(np.uint16) >> 3
    rows = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")[::-1].tobytes()
    height, width = colours.shape[:2]
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + about + rows


def _saved(picture: Image.Image, kind: str, turn: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    if turn != 1:
        options["exif"] = exif
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _pfm(values: NDArray[np.float32]) -> bytes:
    return b"Pf\n%d %d\n-1.0\n" % values.shape[::-1] + values[::-1].astype("<f4").tobytes()


def variants() -> Iterator[tuple[str, bytes, Pixels, int]]:
    """Name, encoded picture, what a person sees, and by how much a shade may differ."""
    colours, shades = scene(), np.repeat(grey()[..., None], 3, axis=2)
    rgba, la = np.dstack([colours, alpha()]), np.dstack([grey(), alpha()])
    deep = grey().astype(np.uint16) * 257
    for turn, stored in TURNED.items():

        def at(a: Any, stored: Any = stored) -> Any:
            return np.ascontiguousarray(stored(a))

        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
            more = options.get(kind, {})
            loss = 8 if kind == "JPEG" else 0
            modes: list[tuple[str, Pixels, Pixels]] = [
                ("RGB", colours, colours),
                ("L", grey(), shades),
                ("RGBA", rgba, on_ground(colours)),
                ("LA", la, on_ground(shades)),
            ]
            for mode, a, seen in modes:
                if (kind == "JPEG" and "A" in mode) or (kind == "WEBP" and mode == "LA"):
                    continue
                picture = Image.fromarray(at(a), mode if mode == "LA" else None)
                yield f"{kind} {mode} {turn}", _saved(picture, kind, turn, **more), seen, loss + 1
        cmyk = Image.fromarray(at(colours)).convert("CMYK")
        yield f"JPEG CMYK {turn}", _saved(cmyk, "JPEG", turn, quality=100), colours, 12
        yield f"TIFF CMYK {turn}", _saved(cmyk, "TIFF", turn), colours, 1
        palette = Image.fromarray(at(colours)).quantize(16)
        yield f"PNG P {turn}", _saved(palette, "PNG", turn), colours, 4
        bit = np.where(grey() > 60, 255, 0).astype(np.uint8)
        for kind in ("PNG", "TIFF"):
            one = Image.fromarray(at(bit)).convert("1")
            seen = np.repeat(bit[..., None], 3, axis=2)
            yield f"{kind} 1 {turn}", _saved(one, kind, turn), seen, 0
        exif = Image.Exif()
        exif[0x0112] = turn
        block = (b"eXIf", exif.tobytes()[6:])
        sixteen = colours.astype(np.uint16) * 257
        for name, a, colour, seen in (
            ("grey", deep, 0, shades),
            ("RGB", sixteen, 2, colours),
            ("LA", np.dstack([deep, alpha().astype(np.uint16) * 257]), 4, on_ground(shades)),
            ("RGBA", np.dstack([sixteen, alpha().astype(np.uint16) * 257]), 6, on_ground(colours)),
        ):
            encoded = _png(at(a).astype(">u2"), colour, 16, block)
            yield f"PNG 16-bit {name} {turn}", encoded, seen, 1
        for order in "<>":
            for name, a in (
                ("16-bit", deep),
                ("16-bit signed", (deep >> 1).astype(np.int16)),
                ("32-bit", deep.astype(np.int32)),
                ("32-bit full", deep.astype(np.uint32) * 65537),
                ("32-bit of 8", grey().astype(np.uint32)),
                ("0 to 1", (grey() / 255).astype(np.float32)),
                ("0 to 255", grey().astype(np.float32)),
                ("0 to 65535", deep.astype(np.float32)),
            ):
                if order == ">" and a.dtype == np.uint32:
                    continue  # Pillow does not read it, and ingest says so
                yield f"TIFF {name} {order} {turn}", _tiff(at(a), order, turn), shades, 1
        white = _tiff(at(65535 - deep), "<", turn, white=0)
        yield f"TIFF white is 0 {turn}", white, shades, 1
    size = b"%d %d" % (WIDTH, HEIGHT)
    yield "PGM", b"P5\n" + size + b"\n255\n" + grey().tobytes(), shades, 0
    yield "PGM 16-bit", b"P5\n" + size + b"\n65535\n" + deep.astype(">u2").tobytes(), shades, 1
    text = " ".join(map(str, colours.ravel())).encode()
    yield "PPM as text", b"P3\n" + size + b"\n255\n" + text, colours, 0
    yield "PPM", b"P6\n" + size + b"\n255\n" + colours.tobytes(), colours, 0
    wide = (colours.astype(np.uint16) * 257).astype(">u2").tobytes()
    yield "PPM 16-bit", b"P6\n" + size + b"\n65535\n" + wide, colours, 1
    for name, most in (("1.004", 1 / 254), ("256", 1.004), ("65600", 257.3)):
        yield f"TIFF up to {name}", _tiff((grey() * most).astype(np.float32), "<", 1), shades, 1
    yield "PFM", _pfm((grey() / 255).astype(np.float32)), shades, 1
    picture = Image.fromarray(colours)
    yield "PNG without end", _saved(picture, "PNG")[:-12], colours, 0
    yield "TIFF LZMA", _saved(picture, "TIFF", compression="lzma"), colours, 0
    yield "BMP of 15 bits", _bmp(colours), colours, 8
    yield "BMP", _saved(picture, "BMP"), colours, 0
    yield "GIF", _saved(picture.quantize(16), "GIF"), colours, 4
    frames = [Image.fromarray(np.roll(colours, k, 1)) for k in range(3)]
    for kind, more in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        animated = {"save_all": True, "append_images": frames[1:], **more}
        yield f"{kind} frames", _saved(frames[0], kind, **animated), colours, 12
    lab, ycc = picture.convert("LAB"), picture.convert("YCbCr")
    yield "TIFF LAB", _saved(lab, "TIFF"), colours, 12
    yield "TIFF YCbCr", _saved(ycc, "TIFF"), colours, 4
    keyed = colours.copy()
    keyed[alpha() == 0] = GROUND
    key = colours.copy()
    key[alpha() == 0] = (1, 2, 3)
    encoded = _png(key, 2, 8, (b"tRNS", struct.pack(">3H", 1, 2, 3)))
    yield "PNG colour key", encoded, keyed, 0
    deep_key = np.where(
        alpha()[..., None] == 0, (5 << 8, 6 << 8, 7 << 8), key.astype(np.uint16) * 257
    )
    marked = (b"tRNS", struct.pack(">3H", 5 << 8, 6 << 8, 7 << 8))
    yield "PNG 16-bit RGB key", _png(deep_key.astype(">u2"), 2, 16, marked), keyed, 1
    two = np.where(alpha() == 0, 1, np.where(grey() > 100, 3, 0)).astype(np.uint8)
    packed = (two.reshape(HEIGHT, -1, 4) << np.array([6, 4, 2, 0], np.uint8)).sum(2, dtype=np.uint8)
    seen = np.repeat((two * 85)[..., None], 3, axis=2)
    seen[two == 1] = GROUND
    yield "PNG 2-bit key", _png(packed, 0, 2, (b"tRNS", b"\0\x01"), width=WIDTH), seen, 0
    of_grey = np.where(alpha() == 0, 7, deep).astype(">u2")
    seen = shades.copy()
    seen[alpha() == 0] = GROUND
    yield "PNG 16-bit key", _png(of_grey, 0, 16, (b"tRNS", struct.pack(">H", 7))), seen, 1


VARIANTS = {name: (encoded, seen, loss) for name, encoded, seen, loss in variants()}


def close(found: Any, seen: Pixels, loss: int, name: str) -> None:
    found = np.asarray(found)
    assert found.shape == seen.shape, f"{name}: {found.shape}"
    off = np.abs(found.astype(int) - seen).max()
    assert off <= loss, f"{name}: a shade is off by {off}"


def portable_pixels(image: bytes) -> Pixels:
    with Image.open(io.BytesIO(portable(image).image)) as opened:
        return np.asarray(opened.convert("RGB"))


def shown(image: bytes) -> tuple[Pixels, Pixels]:
    """A picture as two other programs show it: neither asks for the orientation of its own."""
    with Image.open(io.BytesIO(image)) as opened:
        one = np.asarray(opened.convert("RGB"))
    other = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    return one, other[..., ::-1]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, dict[str, str]]:
    """A camera of all variants, taken in from a folder; and the variant of each crop."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, (encoded, _, _) in enumerate(VARIANTS.values()):
        (folder / f"{number:04d}.png").write_bytes(encoded)  # the content decides, not the name
    catalog = Catalog.register(folder.parent / "outputs", "odd", ["car", "ship"])
    summary = ingest_crops(catalog, folder, "proposed")
    assert summary.quarantined == []
    name_of = {Crop(encoded).crop_id: name for name, (encoded, _, _) in VARIANTS.items()}
    assert set(catalog.index().crop_id.tolist()) == name_of.keys()
    catalog.append_labels([LabelEvent(crop_id, "car", "person", "seed") for crop_id in name_of])
    return catalog, name_of


def test_the_decoder_shows_what_a_person_sees() -> None:
    assert len(VARIANTS) > 250
    for name, (encoded, seen, loss) in VARIANTS.items():
        close(decode(encoded), seen, loss, name)


def test_other_programs_show_what_is_handed_to_them() -> None:
    for name, (encoded, _, _) in VARIANTS.items():
        given = portable(encoded)
        assert given.converted == (given.image != encoded), name
        own = np.asarray(decode(encoded))
        for found in shown(given.image):
            close(found, own, 0, name)
        assert (given.height, given.width) == own.shape[:2], name


def test_ordinary_pictures_stay_as_they_are() -> None:
    for name in ("JPEG RGB 1", "JPEG L 1", "PNG RGB 1", "PNG L 1", "PNG 1 1", "PNG P 1",
                 "WEBP RGB 1", "BMP", "GIF", "PPM", "PGM", "TIFF RGB 1"):  # fmt: skip
        encoded, _, _ = VARIANTS[name]
        assert portable(encoded).image == encoded, name


def _profile(swapped: bool) -> bytes:
    """The profile of sRGB, or one by which red is blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if swapped:
        count = int.from_bytes(profile[128:132], "big")
        place = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
        red, blue = place[b"rXYZ"], place[b"bXYZ"]
        profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_profile_of_colours_that_only_some_programs_follow(kind: str) -> None:
    """Browsers follow it; the team, cv2 and most loaders do not."""
    for mode in ("RGB", "RGBA"):
        for swapped in (False, True):
            if kind == "JPEG" and mode == "RGBA":
                continue
            colours = scene() if mode == "RGB" else np.dstack([scene(), alpha()])
            picture = Image.fromarray(colours)
            encoded = _saved(picture, kind, icc_profile=_profile(swapped))
            given = portable(encoded)
            assert given.converted == (swapped or mode == "RGBA")
            with Image.open(io.BytesIO(given.image)) as opened:
                assert ("icc_profile" in opened.info) != given.converted
                close(opened.convert("RGB"), np.asarray(decode(encoded)), 0, kind)


@pytest.mark.parametrize(("gamma", "converted"), [(100_000, True), (45_455, False)])
def test_a_png_whose_shades_are_no_usual_ones(gamma: int, converted: bool) -> None:
    encoded = _png(scene(), 2, 8, (b"gAMA", struct.pack(">I", gamma)))
    given = portable(encoded)
    assert given.converted == converted
    with Image.open(io.BytesIO(given.image)) as opened:
        assert ("gamma" in opened.info) != converted
    marked = _png(scene(), 2, 8, (b"gAMA", struct.pack(">I", gamma)), (b"sRGB", b"\0"))
    assert not portable(marked).converted  # as usual, it says


def test_a_tiff_that_the_decoder_mixes_up_is_refused() -> None:
    """Pillow reads 16-bit colours that lie apart as noise, without a word."""
    planes = np.moveaxis(scene().astype(np.uint16) * 257, 2, 0)
    data = planes.tobytes()
    each, end = len(data) // 3, 8 + len(data)
    lists = {258: [16] * 3, 273: [8, 8 + each, 8 + 2 * each], 279: [each] * 3}
    packed = {tag: struct.pack(f"<3{'H' if tag == 258 else 'I'}", *at) for tag, at in lists.items()}
    table, places = b"".join(packed.values()), {}
    for tag, content in packed.items():
        places[tag] = end
        end += len(content)
    entries = [
        (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 3, places[258]), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 3, places[273]), (277, 3, 1, 3), (278, 4, 1, HEIGHT),
        (279, 4, 3, places[279]), (284, 3, 1, 2),
    ]  # fmt: skip
    head = struct.pack("<2sHI", b"II", 42, end)
    ifd = struct.pack("<H", len(entries))
    ifd += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    for call in (decode, portable):
        with pytest.raises(UndecodablePicture, match="16 bits whose colours lie apart"):
            call(head + data + table + ifd)


def test_the_team_sees_it(camera: tuple[Catalog, dict[str, str]]) -> None:
    """Also behind a backbone whose letterbox has another colour."""
    catalog, name_of = camera
    rows = np.arange(len(catalog))
    names = catalog.index().crop_id.tolist()
    for transform in (Transform(WIDTH), Transform(WIDTH, (0.5,) * 3, (0.5,) * 3)):
        squares = CropPixels(catalog, transform)[rows].numpy()
        above = (WIDTH - HEIGHT) // 2
        for crop_id, square in zip(names, squares, strict=True):
            _, seen, loss = VARIANTS[name_of[crop_id]]
            inside = square.transpose(1, 2, 0)[above : above + HEIGHT]
            close(inside, seen, loss, name_of[crop_id])


def test_the_page_the_report_and_the_dataset_show_it(
    camera: tuple[Catalog, dict[str, str]], tmp_path: Path
) -> None:
    catalog, name_of = camera
    config = ReviewConfig(CameraConfig("odd", catalog.classes), root=str(catalog.folder.parent))
    session = ReviewSession(catalog, config)
    dataset = LabelledCrops(catalog.folder.parent, "odd")
    for place, crop_id in enumerate(dataset.crop_ids):
        name = name_of[crop_id]
        encoded, seen, loss = VARIANTS[name]
        image, kind = session.picture(crop_id)
        assert kind in ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
        for found in shown(image):
            close(found, seen, loss, f"page, {name}")
        close(dataset[place][0], seen, loss, f"dataset, {name}")
        # WebP blurs edges between colours.
        with Image.open(io.BytesIO(_small(encoded))) as small:
            found = np.asarray(small.convert("RGB"), int)
        assert np.abs(found - seen).mean() < 10, f"report, {name}"
        contact_sheet([(encoded, "")], tmp_path / "sheet.png", side=WIDTH)
        with Image.open(tmp_path / "sheet.png") as sheet:
            above = 6 + (WIDTH - HEIGHT) // 2
            tile = np.asarray(sheet)[above : above + HEIGHT, 6 : 6 + WIDTH]
        close(tile, seen, loss, f"sheet, {name}")


def _exported(folder: Path, format: str) -> dict[str, tuple[bytes, tuple[int, int] | None]]:
    """Picture and stated size of every crop in a dataset."""
    if format == "coco":
        coco = json.loads((folder / "annotations.json").read_text())
        boxes = {a["image_id"]: a["bbox"] for a in coco["annotations"]}
        assert all(boxes[i["id"]] == [0, 0, i["width"], i["height"]] for i in coco["images"])
        return {
            Path(i["file_name"]).stem: (
                (folder / "images" / i["file_name"]).read_bytes(), (i["width"], i["height"])
            )
            for i in coco["images"]
        }  # fmt: skip
    if format == "cvat":
        with zipfile.ZipFile(folder / "dataset.zip") as archive:
            return {
                Path(str(i.get("name"))).stem: (
                    archive.read(f"images/{i.get('name')}"),
                    (int(str(i.get("width"))), int(str(i.get("height")))),
                )
                for i in ElementTree.fromstring(archive.read("annotations.xml")).iterfind("image")
            }
    if format == "parquet":
        rows = pq.read_table(folder / "crops.parquet").to_pylist()
        return {r["crop"]: (r["image"], (r["width"], r["height"])) for r in rows}
    if format == "huggingface":
        rows = [r for f in folder.rglob("*.parquet") for r in pq.read_table(f).to_pylist()]
        return {r["crop_id"]: (r["image"]["bytes"], None) for r in rows}
    if format == "labelstudio":
        return {f.stem: (f.read_bytes(), None) for f in (folder / "images").iterdir()}
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["crop_id"]: ((folder / row["file_name"]).read_bytes(), None)
            for row in csv.DictReader(file)
        }


@pytest.mark.parametrize("format", EXPORT_FORMATS.names())
def test_every_export_shows_it(
    camera: tuple[Catalog, dict[str, str]], tmp_path: Path, format: str
) -> None:
    catalog, name_of = camera
    export_dataset(
        catalog, select_labels(catalog), EXPORT_FORMATS.load(format)(), tmp_path / "made"
    )
    found = _exported(tmp_path / "made", format)
    assert found.keys() == name_of.keys()
    for crop_id, (image, size) in found.items():
        _, seen, loss = VARIANTS[name_of[crop_id]]
        for pixels in shown(image):
            close(pixels, seen, loss, f"{format}, {name_of[crop_id]}")
        assert size in (None, (WIDTH, HEIGHT)), name_of[crop_id]
    told = (tmp_path / "made" / "README.md").read_text()
    assert "Written as upright PNG" in told
    assert "All other pictures are the catalog's, byte for byte." in told


@pytest.mark.parametrize(
    ("format", "file"), [("labelstudio", "t.json"), ("cvat", "t.xml"), ("csv", "t.csv")]
)
def test_tasks_for_other_tools_show_it(
    camera: tuple[Catalog, dict[str, str]], tmp_path: Path, format: str, file: str
) -> None:
    catalog, name_of = camera
    tasks = [Task(crop_id) for crop_id in catalog.index().crop_id.tolist()]
    write_tasks(catalog, tasks, EXCHANGE_FORMATS.load(format)(), tmp_path / file)
    images = list((tmp_path / "t-images").iterdir())
    assert {image.stem for image in images} == name_of.keys()
    for image in images:
        _, seen, loss = VARIANTS[name_of[image.stem]]
        for pixels in shown(image.read_bytes()):
            close(pixels, seen, loss, f"{format}, {name_of[image.stem]}")
    if format == "cvat":
        root = ElementTree.fromstring((tmp_path / file).read_bytes())
        sizes = {(i.get("width"), i.get("height")) for i in root.iterfind("image")}
        assert sizes == {(str(WIDTH), str(HEIGHT))}


def test_damaged_metadata_costs_no_picture() -> None:
    """A sound picture with an EXIF block of rubbish is shown as it is stored."""
    for junk in (b"\xff" * 40, b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9, b""):
        file = io.BytesIO()
        Image.fromarray(scene()).save(
            file, "JPEG", quality=100, subsampling=0, exif=b"Exif\0\0" + junk
        )
        close(decode(file.getvalue()), scene(), 8, repr(junk))
        assert (portable(file.getvalue()).width, portable(file.getvalue()).height) == (40, 24)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("entry", [(0x0112, 155, 1), (0x0112, 3, 99)])
def test_an_orientation_that_only_others_read_is_not_handed_on(
    kind: str, entry: tuple[int, int, int]
) -> None:
    """Of a type or number that is wrong: cv2 takes it, Pillow does not."""
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", *entry, 6, 0) + bytes(4)
    file = io.BytesIO()
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    Image.fromarray(scene()).save(file, kind, exif=b"Exif\0\0" + exif, **options)
    for found in shown(portable(file.getvalue()).image):
        close(found, scene(), 8, kind)


def test_a_png_whose_checksums_are_wrong_is_set_aside(tmp_path: Path) -> None:
    """Pillow shows noise."""
    sound = _saved(Image.fromarray(scene()), "PNG")
    at = sound.index(b"IDAT") + 4 + int.from_bytes(sound[sound.index(b"IDAT") - 4 :][:4])
    broken = sound[:at] + b"\0\0\0\0" + sound[at + 4 :]
    for name, image in (("0.png", broken), ("1.png", sound), ("2.png", sound[:-12])):
        (tmp_path / name).write_bytes(image)
    summary = ingest_crops(Catalog.register(tmp_path / "root", "S1"), tmp_path, "proposed")
    assert [(Path(where).name, fault) for where, fault in summary.quarantined] == [
        ("0.png", "damaged: the checksum of its part b'IDAT' is wrong")
    ]
    assert summary.added == 2
    for image in (broken, sound[:-12]):  # an older version let it in
        for found in shown(portable(image).image):
            close(found, scene(), 0, "converted")


def test_a_second_frame_that_is_damaged_costs_no_picture() -> None:
    frames = [Image.fromarray(np.roll(scene(), k, 1)).quantize(16) for k in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    whole = file.getvalue()
    second = whole.rindex(b"!\xf9\x04")
    for damaged in (whole[: second + 3], whole[: second + 1], whole[:second] + b",\0\0;"):
        close(portable_pixels(damaged), np.asarray(decode(damaged)), 0, "second frame")


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_said(content: bytes) -> None:
    for call in (decode, portable):
        with pytest.raises(UndecodablePicture, match="not a picture of a known format"):
            call(content)


@pytest.fixture
def with_broken(tmp_path: Path) -> tuple[Catalog, list[str]]:
    """Four sound crops, and three that cannot be decoded; an older version let them in."""
    catalog = Catalog.register(tmp_path / "outputs", "S1", ["car", "ship"])
    pictures = [_saved(Image.fromarray(np.roll(scene(), k, 1)), "PNG") for k in range(4)]
    gif = _saved(Image.fromarray(scene()).quantize(16), "GIF")
    broken = [b"no picture", gif[:-40], VARIANTS["PNG RGBA 1"][0][:-60]]
    crops = [Crop(image) for image in (*pictures[:2], *broken, *pictures[2:])]
    catalog.add_crops(crops)
    catalog.append_labels(
        [
            LabelEvent(crop.crop_id, "car", source, purpose)
            for crop in crops
            for source, purpose in (("detector", "proposal"), ("person", "seed"))
        ]
    )
    return catalog, [Crop(image).crop_id for image in broken]


@pytest.mark.parametrize("format", EXPORT_FORMATS.names())
def test_broken_pictures_never_stop_an_export(
    with_broken: tuple[Catalog, list[str]], tmp_path: Path, call: Call, format: str
) -> None:
    catalog, broken = with_broken
    to = tmp_path / "made"
    said = call("export", f"root={catalog.folder.parent}", "camera=S1", f"format={format}",
                f"to={to}")  # fmt: skip
    assert said.code == 1
    assert "4 labelled crops" in said.out
    assert "left out 3: their picture cannot be opened" in said.out
    assert all(f"crop {crop_id}: " in said.out for crop_id in broken)
    assert len(_exported(to, format)) == 4
    assert "4 crops of 7" in (to / "README.md").read_text()


def test_broken_pictures_never_stop_the_tasks(
    with_broken: tuple[Catalog, list[str]], tmp_path: Path, call: Call
) -> None:
    before, broken = with_broken
    catalog = Catalog.register(tmp_path / "outputs", "S2", ["car", "ship"])
    crops = [Crop(image) for image in before.images(range(7))]
    catalog.add_crops(crops)
    labels = ["ship", *["car"] * 6]
    catalog.append_labels(
        [
            LabelEvent(c.crop_id, said, "detector", "proposal")
            for c, said in zip(crops, labels, strict=True)
        ]
    )
    said = call("review", f"root={catalog.folder.parent}", "camera=S2",
                f"export={tmp_path / 'tasks.json'}", "seed_per_class=7")  # fmt: skip
    assert said.code == 1, said.err
    assert "left out 3: their picture cannot be opened" in said.out
    assert all(f"crop {crop_id}: " in said.out for crop_id in broken)
    assert len(list((tmp_path / "tasks-images").iterdir())) == 4


def test_a_broken_picture_is_named_to_the_team_and_the_dataset(
    with_broken: tuple[Catalog, list[str]],
) -> None:
    catalog, broken = with_broken
    with pytest.raises(UserError, match="picture of crop number 2 not a picture"):
        CropPixels(catalog, Transform(32))[np.arange(7)]
    dataset = LabelledCrops(catalog.folder.parent, "S1")
    with pytest.raises(UserError, match=broken[0]):
        dataset[2]
    with Image.open(io.BytesIO(_small(b"no picture"))) as shown_instead:
        assert shown_instead.size[0] > 0
