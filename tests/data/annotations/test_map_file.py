import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sage_hf import DataError
from sage_hf.data.annotations import MapFile

VALUES = np.array([[0, 1, 2], [4, 8, 16]])
EXPECTED = VALUES / 16


def encoded(image, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "PNG"} | kwargs))
    return buffer.getvalue()


def npy(values, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, values, **kwargs)
    return buffer.getvalue()


def picture(dtype, factor=1):
    return Image.fromarray((VALUES * factor).astype(dtype))


def tiff_of_unsigned_32_bits(values):
    """Written by hand, since Pillow has no such mode: a header, one strip, nine tags."""
    height, width = values.shape
    strip = values.astype("<u4").tobytes()
    tags = [(256, width), (257, height), (258, 32), (259, 1), (262, 1), (273, 8), (278, height), (279, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (339, 1)])
    directory = struct.pack("<H", len(tags) + 1) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + directory


FILES = {
    "8-bit PNG": encoded(picture(np.uint8)),
    "16-bit PNG": encoded(picture(np.uint16, 4000)),
    "8-bit TIFF": encoded(picture(np.uint8), format="TIFF"),
    "16-bit TIFF": encoded(picture(np.uint16, 4000), format="TIFF"),
    "32-bit TIFF": encoded(picture(np.int32, 10**6), format="TIFF"),
    "unsigned 32-bit TIFF": tiff_of_unsigned_32_bits(VALUES * 2**27),
    "float TIFF": encoded(picture(np.float32, 1 / 7), format="TIFF"),
    "palette PNG of greys": encoded(picture(np.uint8).convert("P")),
    "RGB PNG of greys": encoded(picture(np.uint8).convert("RGB")),
    "8-bit NPY": npy(VALUES.astype(np.uint8)),
    "16-bit NPY": npy(VALUES.astype(np.uint16)),
    "big-endian NPY": npy(VALUES.astype(">i4")),
    "64-bit NPY": npy(VALUES * 10**12),
    "half NPY": npy((VALUES / 16).astype(np.float16)),
    "float NPY": npy((VALUES / 16).astype(np.float32)),
    "double NPY beyond floats": npy(VALUES * 1e300),
    "double NPY below floats": npy(VALUES * 1e-300),
    "Fortran NPY": npy(np.asfortranarray(VALUES)),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_same_map(kind):
    found = MapFile(FILES[kind]).saliency((3, 2))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, EXPECTED, atol=1e-6)


def test_unsigned_values_beyond_31_bits():
    values = np.array([[0, 2**31], [2**32 - 1, 2**30]])
    np.testing.assert_allclose(MapFile(tiff_of_unsigned_32_bits(values)).saliency((2, 2)), values / (2**32 - 1))


def test_a_file_on_disk(tmp_path):
    for name, content in (("map.png", FILES["16-bit PNG"]), ("map.npy", FILES["float NPY"])):
        (tmp_path / name).write_bytes(content)
        annotation = pickle.loads(pickle.dumps(MapFile(tmp_path / name)))
        np.testing.assert_allclose(annotation.saliency((3, 2)), EXPECTED, atol=1e-6)


def test_a_map_keeps_its_resolution_but_not_another_aspect():
    assert MapFile(FILES["8-bit PNG"]).saliency((300, 200)).shape == (2, 3)
    with pytest.raises(DataError, match=r"heat.png: the map is 3x2, its image 2x3: their aspects differ"):
        MapFile(FILES["8-bit PNG"], "heat.png").saliency((2, 3))
    with pytest.raises(DataError, match="the map is 3x2, its image 2x3"):
        MapFile(FILES["float NPY"]).saliency((2, 3))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "16-bit PNG"])
def test_exif_rotation_is_applied(kind):
    # Orientation 6: the camera was turned, the picture is to be shown a quarter turn clockwise.
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.rot90(VALUES, 1)  # counter-clockwise, which the rotation undoes
    deep = kind == "16-bit PNG"
    image = Image.fromarray(np.ascontiguousarray(stored).astype(np.uint16 if deep else np.uint8))
    content = encoded(image, format=kind.split()[-1], exif=exif)
    np.testing.assert_allclose(MapFile(content).saliency((3, 2)), EXPECTED, atol=1e-6)


def test_blank_maps_mark_nothing():
    assert MapFile(encoded(Image.new("L", (3, 2)))).saliency((3, 2)) is None
    assert MapFile(npy(np.zeros((2, 3)))).saliency((3, 2)) is None


# Classes 0 to 3 of a mask, class 2 in the palette's red, and class 3 in green.
CLASSES = np.array([[0, 1, 2], [3, 2, 0]], dtype=np.uint8)
PALETTE = [0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 128, 0]


def palette_mask():
    image = Image.new("P", (3, 2))
    image.putdata(CLASSES.ravel().tolist())
    image.putpalette(PALETTE)
    return image


MASKS = {
    "palette": (encoded(palette_mask()), (2, 3)),
    "palette by colour": (encoded(palette_mask()), ("#ff0000", "#008000")),
    "palette by both": (encoded(palette_mask()), (2, "#008000")),
    "colours": (encoded(palette_mask().convert("RGB")), ("#FF0000", "#008000")),
    "colours with alpha": (encoded(palette_mask().convert("RGBA")), ("#FF0000", "#008000")),
    "grey": (encoded(Image.fromarray(CLASSES * 50)), (100, 150)),
    "grey as colours": (encoded(Image.fromarray(CLASSES * 50).convert("RGB")), (100, 150)),
    "grey by colour": (encoded(Image.fromarray(CLASSES * 50)), ("#646464", "#969696")),
    "16 bits": (encoded(Image.fromarray(CLASSES.astype(np.uint16) * 1000)), (2000, 3000)),
    "32-bit TIFF": (encoded(Image.fromarray(CLASSES.astype(np.int32) * 10**6), format="TIFF"), (2 * 10**6, 3 * 10**6)),
    "NPY": (npy(CLASSES), (2, 3)),
    "NPY of floats": (npy(CLASSES.astype(float)), (2, 3)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_classes_of_a_mask(kind):
    content, classes = MASKS[kind]
    found = MapFile(content, classes=classes).saliency((3, 2))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 1], [1, 1, 0]]


def test_a_picture_without_the_class_has_no_map():
    assert MapFile(MASKS["palette"][0], classes=(7,)).saliency((3, 2)) is None


def test_one_bit_masks():
    content = encoded(Image.fromarray(CLASSES > 1))
    assert MapFile(content).saliency((3, 2)).tolist() == [[0, 0, 1], [1, 1, 0]]
    assert MapFile(content, classes=(1,)).saliency((3, 2)).tolist() == [[0, 0, 1], [1, 1, 0]]


def test_what_transparent_pixels_hide_is_no_class():
    image = palette_mask().convert("RGBA")
    image.putpixel((2, 0), (255, 0, 0, 0))
    assert MapFile(encoded(image), classes=("#ff0000",)).saliency((3, 2)).tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        (encoded(palette_mask().convert("RGB")), (2,), "the mask has colours .mode RGB.*'#rrggbb'"),
        (MASKS["16 bits"][0], ("#ff0000",), "it has numbers, not colours"),
        (npy(CLASSES), ("#ff0000",), "it has numbers, not colours"),
        (encoded(Image.fromarray(CLASSES), format="JPEG"), (2,), "it is a JPEG.*Save the mask as PNG"),
    ],
)
def test_classes_that_a_file_cannot_hold(content, classes, message):
    with pytest.raises(DataError, match=message):
        MapFile(content, classes=classes).saliency((3, 2))


@pytest.mark.parametrize("classes", [("red",), (1.5,), (True,), ("#ff00",), (None,)])
def test_classes_that_are_none(classes):
    with pytest.raises(ValueError, match="is no class of a mask"):
        MapFile(b"", classes=classes)


def test_empty_classes():
    with pytest.raises(ValueError, match="classes is empty"):
        MapFile(b"", classes=())


def png_that_announces(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def npy_that_announces(shape, dtype="<f4"):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


def many(*images):
    return encoded(images[0], format="TIFF", save_all=True, append_images=images[1:])


DAMAGED = {
    "empty": (b"", "the file is empty"),
    "no picture": (b"<html>", "it can't be read: UnidentifiedImageError"),
    "cut PNG": (encoded(Image.effect_noise((50, 50), 9))[:900], "it can't be read: OSError"),
    "cut TIFF": (FILES["float TIFF"][:60], "it can't be read"),
    "cut JPEG": (encoded(Image.effect_noise((90, 90), 9), format="JPEG")[:700], "it can't be read: OSError"),
    "cut NPY": (FILES["float NPY"][:-4], "it has 20 bytes of values, its header announces 24. Was it cut off"),
    "cut NPY header": (FILES["float NPY"][:40], "it can't be read: ValueError"),
    "NPY with too much": (FILES["float NPY"] + b"1", "it has 25 bytes of values"),
    "NPY of objects": (npy(np.array([[{}]]), allow_pickle=True), "it holds object, not numbers"),
    "NPY of text": (npy(np.array([["a"]])), "it holds <U1, not numbers"),
    "NPY of complex numbers": (npy(np.array([[1j]])), "it holds complex128, not numbers"),
    "NPY of records": (npy(np.zeros((2, 3), dtype=[("value", "f4")])), r"it holds .*, not numbers"),
    "NPY of a later version": (b"\x93NUMPY\x03\x00" + bytes(90), "it is NPY 3.0"),
    "NPY with colours": (npy(np.zeros((2, 3, 3))), r"it has the shape \(2, 3, 3\), not \(height, width\)"),
    "NPY without pixels": (npy(np.zeros((0, 3))), r"the map can't be \(3, 0\) pixels large"),
    "huge NPY": (npy_that_announces((10**6, 10**6)), "the map has 1000000x1000000 pixels, more than"),
    "lying NPY": (npy_that_announces((9000, 9000)), "it has 64 bytes of values, its header announces 324000000"),
    "bomb": (png_that_announces(10_000, 10_000), "the map has 10000x10000 pixels, more than"),
    "larger bomb": (png_that_announces(100_000, 100_000), "it can't be read: DecompressionBombError"),
    "several pictures": (many(Image.new("L", (3, 2), 1), Image.new("L", (3, 2), 2)), "it holds 2 pictures"),
    "NaN": (npy(np.full((2, 3), np.nan)), "NaN or infinite"),
    "infinite": (npy(np.full((2, 3), np.inf)), "NaN or infinite"),
    "negative": (npy(np.full((2, 3), -1.5)), r"negative values \(lowest -1.5\)"),
    "colours": (encoded(Image.new("RGB", (3, 2), (200, 10, 10))), "the map has colours"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_files_that_cannot_be_used_are_named(what, tmp_path):
    content, message = DAMAGED[what]
    (tmp_path / "heat.map").write_bytes(content)
    for annotation in (MapFile(tmp_path / "heat.map"), MapFile(content, "heat.map")):
        with pytest.raises(DataError, match=f"^heat.map: .*{message}"):
            annotation.saliency((3, 2))


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(DataError, match=r"gone.png: it can't be opened: No such file"):
        MapFile(tmp_path / "gone.png").saliency((3, 2))
    with pytest.raises(DataError, match=r"it can't be opened"):
        MapFile(tmp_path).saliency((3, 2))
