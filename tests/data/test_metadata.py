import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sage_hf import DataError
from sage_hf.data.metadata import strip_metadata

ARTIST, ORIENTATION, GPS = 0x013B, 0x0112, 0x8825
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">Jane Doe</x:xmpmeta>'


def picture():
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8))


def tell_tale(kind, orientation=None):
    exif = Image.Exif()
    exif[ARTIST] = "Jane Doe"
    exif.get_ifd(GPS)[1] = "N"
    if orientation is not None:
        exif[ORIENTATION] = orientation
    file = io.BytesIO()
    profile = b"profile" * 20
    if kind in ("JPEG", "progressive"):
        options = {"comment": "Jane Doe", "xmp": XMP, "progressive": kind == "progressive", "restart_marker_blocks": 1}
        picture().save(file, "JPEG", exif=exif, icc_profile=profile, **options)
    elif kind == "PNG":
        texts = PngInfo()
        texts.add_text("Author", "Jane Doe")
        texts.add_text("Author", "Jane Doe" * 9, zip=True)
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        picture().save(file, "PNG", exif=exif, pnginfo=texts, icc_profile=profile)
    else:
        picture().save(file, "WEBP", exif=exif, xmp=XMP, icc_profile=profile, lossless=kind == "lossless")
    return file.getvalue() + b"Jane Doe"


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "WEBP", "lossless"])
def test_pixels_stay_and_people_go(kind, orientation):
    content = tell_tale(kind, orientation)
    assert b"Jane Doe" in content
    stripped = strip_metadata(content)
    assert b"Jane Doe" not in stripped
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(stripped)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
        assert after.info.get("icc_profile") == before.info["icc_profile"]
        kept = {ORIENTATION: 6} if orientation == 6 else {}
        assert dict(after.getexif()) == kept
        assert not {"xmp", "comment", "Author", "XML:com.adobe.xmp"} & set(after.info)
    assert strip_metadata(stripped) == stripped


def test_what_can_not_be_stripped():
    file = io.BytesIO()
    picture().save(file, "TIFF")
    with pytest.raises(DataError, match="JPEG, PNG and WebP"):
        strip_metadata(file.getvalue())
    bitmap = io.BytesIO()
    picture().save(bitmap, "BMP")
    assert strip_metadata(bitmap.getvalue()) == bitmap.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damage_is_an_error_of_the_data(kind):
    content = strip_metadata(tell_tale(kind, 6))
    generator = np.random.default_rng(0)
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(DataError):
            strip_metadata(content[:length])
        damaged = bytearray(content)
        damaged[generator.integers(2, len(content))] ^= 0xFF
        try:
            strip_metadata(bytes(damaged))
        except DataError:
            continue
