"""Decoding compared with an independent resize; every kind of file besides plain JPEG; opened sets."""

import json
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from PIL.Image import Transpose as Turn

from regcls.data import images as images_module
from regcls.data.archives import Place
from regcls.data.images import decode, write_images
from regcls.data.store import deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import StandIn
from tasks.images import made_up_images

DATA = replace(made_up_images.DATA, source="stand-in", stand_in=StandIn(images=200, seed=0))


def picture(height=45, width=60, channels=3):
    """A smooth picture, so that JPEG keeps it, different in every corner and channel."""
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    return (120 + 60 * np.sin(x / 9 + c) + 60 * np.cos(y / 7 - c)).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def jpeg(**options):
    return encoded(Image.fromarray(picture()), "JPEG", quality=95, **options)


def test_resizing_is_bilinear_with_antialiasing_to_a_square():
    content = encoded(Image.fromarray(picture(97, 151)))
    pixels = torch.from_numpy(picture(97, 151)).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(pixels, size=(40, 40), mode="bilinear", antialias=True, align_corners=False)[0]
    assert np.abs(decode(content, 40) - expected.permute(1, 2, 0).numpy()).max() <= 1  # Pillow rounds between the two directions


def test_a_jpeg_is_fully_decoded_before_resizing():
    assert np.abs(decode(jpeg(), 20).astype(int) - decode(encoded(Image.fromarray(picture())), 20)).mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "orientation, turn", [(1, None), (2, Turn.FLIP_LEFT_RIGHT), (3, Turn.ROTATE_180), (6, Turn.ROTATE_90), (8, Turn.ROTATE_270)]
)
def test_the_exif_orientation_is_applied_if_asked_for(kind, orientation, turn):
    exif, lossless = Image.Exif(), {"lossless": True} if kind == "WEBP" else {"quality": 95}
    exif[0x0112] = orientation
    upright = Image.fromarray(picture())
    turned = upright if turn is None else upright.transpose(turn)
    content = encoded(turned, kind, exif=exif, **lossless)
    assert np.array_equal(decode(content, 20), decode(encoded(turned, kind, **lossless), 20))
    difference = np.abs(decode(content, 20, exif=True).astype(int) - decode(encoded(upright), 20))
    assert difference.mean() < 2 and (kind == "JPEG" or difference.max() == 0)


def test_the_orientation_of_a_tiff_is_applied_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(PLAIN.transpose(Turn.ROTATE_90), "TIFF", exif=exif)
    assert np.array_equal(decode(content, 20, exif=True), decode(encoded(PLAIN), 20))


@pytest.mark.parametrize("exif", [True, False])
def test_images_without_orientation_stay_as_they_are(exif):
    for content in (encoded(PLAIN), encoded(PLAIN, "TIFF"), encoded(DEEP), jpeg(exif=b"Exif\0\0not an Exif header")):
        assert np.array_equal(decode(content, 20, exif=exif), decode(content, 20))


PLAIN = Image.fromarray(picture())
GREY = Image.fromarray(picture(channels=1)[..., 0])
DEEP = Image.fromarray(picture(channels=1)[..., 0].astype(np.uint16) << 8)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (GREY, "PNG", GREY.convert("RGB")),
        (Image.fromarray((picture(channels=1)[..., 0].astype(np.uint16) << 8) + 77), "PNG", GREY.convert("RGB")),
        (Image.fromarray((picture(channels=1)[..., 0].astype(np.uint16) << 8) + 77), "TIFF", GREY.convert("RGB")),
        (PLAIN.convert("CMYK"), "TIFF", PLAIN),
        (PLAIN.quantize(256), "PNG", PLAIN.quantize(256).convert("RGB")),
        (PLAIN.quantize(256), "GIF", PLAIN.quantize(256).convert("RGB")),
        (GREY.convert("1"), "PNG", GREY.convert("1").convert("RGB")),
        (Image.merge("LA", (GREY, GREY)), "PNG", GREY.convert("RGB")),
        (Image.merge("RGBA", (*PLAIN.split(), GREY)), "PNG", PLAIN),
    ],
    ids=["grey", "16 bits", "16 bits TIFF", "CMYK", "palette", "GIF", "1 bit", "grey and alpha", "alpha"],
)
def test_every_pixel_format_becomes_rgb(image, kind, expected):
    assert np.array_equal(decode(encoded(image, kind), 60), np.asarray(expected.resize((60, 60), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("brightest", [255, 4095, 65535])
def test_16_bits_become_8_by_the_same_rule_however_dark_the_image(brightest):
    grey = np.linspace(0, brightest, 60 * 60).astype(np.uint16).reshape(60, 60)
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), 60), np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_of_fewer_than_16_bits_the_upper_8_are_kept_and_larger_values_refused():
    grey = np.linspace(0, 4095, 60 * 60).astype(np.uint16).reshape(60, 60)
    content = encoded(Image.fromarray(grey))
    assert np.array_equal(decode(content, 60, bits=12)[..., 0], grey >> 4) and decode(content, 60).max() == 15
    assert np.array_equal(decode(encoded(PLAIN), 60, bits=12), decode(encoded(PLAIN), 60))
    with pytest.raises(ValueError, match=r"^more than 11 bits: its largest value is 4095$"):
        decode(content, 60, bits=11)


def test_a_cmyk_jpeg_keeps_its_intended_colours():
    assert np.abs(decode(encoded(PLAIN.convert("CMYK"), "JPEG", quality=95), 20).astype(int) - decode(encoded(PLAIN), 20)).mean() < 3


@pytest.mark.parametrize("transparency", [3, bytes(range(256))], ids=["a colour", "every colour"])
def test_a_palette_with_transparency_becomes_rgb_without_a_warning(transparency):
    palette = PLAIN.quantize(256)
    assert np.array_equal(decode(encoded(palette, transparency=transparency), 60), decode(encoded(palette), 60))


def test_a_single_pixel_fills_the_square():
    assert (decode(encoded(Image.new("RGB", (1, 1), (10, 20, 30))), 8) == [10, 20, 30]).all()


def huge():
    """A bitmap whose header promises 100 000 × 100 000 pixels."""
    content = bytearray(encoded(PLAIN, "BMP"))
    content[18:26] = np.array([100_000, 100_000], dtype="<i4").tobytes()
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty file$"),
        (b"<html>404</html>", "^not an image of a known format$"),
        (jpeg()[:5], "^not an image of a known format$"),
        (jpeg()[: len(jpeg()) // 2], r"^cut short or damaged: image file is truncated \(\d+ bytes not processed\)$"),
        (encoded(PLAIN)[:300], "^cut short or damaged: "),
        (huge(), r"^larger than 89 megapixels$"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "^not an image of a known format$"),
        (encoded(Image.fromarray(picture()[..., 0].astype(np.float32)), "TIFF"), "pixels of kind F have no known range"),
    ],
    ids=["empty", "text", "header", "half a JPEG", "part of a PNG", "huge", "PostScript", "float"],
)
def test_unreadable_files_are_rejected_with_a_reason(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode(content, 16)


def test_a_damaged_file_gives_either_pixels_or_a_reason():
    rng = np.random.default_rng(0)
    for whole in (jpeg(), encoded(PLAIN), encoded(PLAIN.quantize(16), "GIF"), encoded(PLAIN, "TIFF"), encoded(PLAIN, "BMP")):
        for _ in range(60):
            content = bytearray(whole)
            for position in rng.integers(0, min(len(content), 600), 4):
                content[position] = rng.integers(256)
            try:
                assert decode(bytes(content), 16).shape == (16, 16, 3)
            except ValueError as error:
                assert str(error)


def test_lack_of_memory_does_not_count_as_an_unreadable_file(monkeypatch):
    def full(*args):
        raise MemoryError

    monkeypatch.setattr(images_module, "as_rgb", full)
    with pytest.raises(MemoryError):
        decode(jpeg(), 16)


CONTENTS = [encoded(Image.new("RGB", (9, 7), (k, 2 * k, 3 * k))) for k in range(80)]  # more than a chunk


def write_set(folder, processes=1, made_from=DATA):
    """Write 80 single-coloured images in one file in reverse order; image 5 is empty and image 7 missing."""
    store, places = folder.parent / "raw.bin", {}
    with store.open("wb") as handle:
        for k in reversed(range(80)):
            places[k] = Place(str(store), handle.tell(), 0 if k == 5 else len(CONTENTS[k]))
            handle.write(CONTENTS[k])
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(80)], "row": range(80)})
    table["target"] = np.float32(20.5) + (table["row"] % 3).astype(np.float32)
    table["split"] = [("train", "val", "test", "train")[k % 4] for k in range(80)]
    with prepared_writer(folder, made_from=deciding_parameters(made_from)) as writer:
        reasons = write_images(writer, [places[k] if k != 7 else None for k in range(80)], size=4, processes=processes).rejected
        writer.save_table(table.drop(index=list(reasons)))
    return reasons


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data" / "imdb_wiki" / "prepared"
    folder.parent.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("processes", [1, 2])
def test_every_readable_image_is_stored_in_its_row(folder, processes):
    assert write_set(folder, processes) == {5: "empty file", 7: "not in the archive"}
    opened = ImageSet(folder, verify=True, made_from=DATA)
    assert opened.images.shape == (80, 4, 4, 3) and opened.images.dtype == np.uint8 and opened.size == 4
    for k in range(80):
        assert (opened.images[k] == ([0, 0, 0] if k in (5, 7) else [k, 2 * k, 3 * k])).all()


def test_rows_paths_and_targets_of_a_split_match(folder):
    write_set(folder)
    opened = ImageSet(folder)
    rows = opened.rows("val")
    assert rows.tolist() == [k for k in range(1, 80, 4) if k != 5] and rows.dtype == np.int64
    assert opened.paths("val") == [f"{k}.png" for k in rows]
    assert opened.targets("val").tolist() == [20.5 + k % 3 for k in rows] and opened.targets("val").dtype == np.float32


def test_the_digest_covers_pixels_targets_and_splits(folder, monkeypatch):
    write_set(folder)
    first = ImageSet(folder).digest
    write_set(folder, made_from=replace(DATA, split_seed=1))
    assert ImageSet(folder).digest == first
    monkeypatch.setattr(f"{__name__}.CONTENTS", [*CONTENTS[:3], CONTENTS[4], *CONTENTS[4:]])
    write_set(folder)
    assert ImageSet(folder).digest != first


def test_data_from_other_parameters_are_refused_if_they_matter(folder):
    write_set(folder)
    ImageSet(folder, made_from=replace(DATA, archives=(), expected_images=7, unit="decades"))
    with pytest.raises(UserError, match=r"other values of size, stand_in than .*regcls prepare imdb_wiki"):
        ImageSet(folder, made_from=replace(DATA, size=64, stand_in=StandIn(images=300, seed=0)))
    raw = replace(DATA, source="raw")
    write_set(folder, made_from=raw)
    ImageSet(folder, made_from=replace(raw, stand_in=StandIn(images=300, seed=0)))


def test_a_switch_that_is_off_is_as_if_there_were_none(folder):
    write_set(folder)
    meta = (folder / "meta.json").read_text()
    assert not {"exif", "bits", "duplicates"} & json.loads(meta)["made_from"].keys()
    ImageSet(folder, made_from=replace(DATA, duplicates="allow"))
    for name, value in (("exif", True), ("bits", 12)):
        on = replace(DATA, **{name: value})
        write_set(folder)
        with pytest.raises(UserError, match=f"other values of {name} than"):
            ImageSet(folder, made_from=on)
        write_set(folder, made_from=on)
        ImageSet(folder, made_from=on)
        with pytest.raises(UserError, match=f"other values of {name} than"):
            ImageSet(folder, made_from=DATA)


def test_opening_a_set_does_not_read_its_images(folder):
    write_set(folder)
    assert isinstance(ImageSet(folder).images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ImageSet(folder).images[0, 0, 0, 0] = 1


def test_a_full_disk_is_noticed_before_any_image_is_decoded(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr(images_module, "load_image", None)
    with pytest.raises(UserError, match="no space left on the disk while writing .*prepared; nothing was replaced"):
        write_set(folder)
    assert [file.name for file in folder.parent.iterdir()] == ["raw.bin"]


def test_unrelated_warnings_still_appear_after_decoding():
    decode(jpeg(), 8)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
