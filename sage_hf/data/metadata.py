"""Picture files without what they tell about people and places; their pixels are not touched."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from .formats import picture_formats
from .saliency import DataError

ORIENTATION = 0x0112
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DROPPED = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")
WEBP_EXIF_FLAG, WEBP_XMP_FLAG = 0x08, 0x04


def strip_metadata(content: bytes) -> bytes:
    """
    Remove EXIF (places, cameras, thumbnails), XMP, IPTC, comments and texts from a JPEG, PNG or WebP file.

    Compressed pixels are copied as they are, and so are colour profiles. The orientation is kept, alone in an EXIF
    block of its own, since pixels are turned by it when they are shown; whatever follows the picture's end (a second
    picture, a film) goes.

    Args:
        content (`bytes`): a picture file.

    Returns:
        `bytes`: the file without; the very same bytes for a BMP file, which can't hold any.

    Raises:
        [`DataError`]: another format, or a damaged file.

    Example:

    ```python
    >>> import io
    >>> from PIL import Image
    >>> from sage_hf.data.metadata import strip_metadata
    >>> file, exif = io.BytesIO(), Image.Exif()
    >>> exif[0x013B] = "Jane Doe"
    >>> Image.new("RGB", (8, 8)).save(file, format="JPEG", exif=exif)
    >>> b"Jane Doe" in file.getvalue(), b"Jane Doe" in strip_metadata(file.getvalue())
    (True, False)

    ```
    """
    kinds = {b"\xff\xd8": _strip_jpeg, PNG: _strip_png, b"RIFF": _strip_webp, b"BM": lambda content, _: content}
    for start, strip in kinds.items():
        if content.startswith(start) and (start != b"RIFF" or content[8:12] == b"WEBP"):
            try:
                return strip(content, _orientation(content))
            except (struct.error, IndexError):
                raise DataError("its metadata can't be removed: the file is cut off.") from None
    raise DataError("metadata can be removed from JPEG, PNG and WebP files. Save the picture as one of these.")


def _orientation(content: bytes) -> bytes | None:
    """An EXIF block that says how to turn the picture, if it is to be turned."""
    try:
        with Image.open(io.BytesIO(content), formats=picture_formats()) as image:
            orientation = image.getexif().get(ORIENTATION)
    except Exception as error:
        raise DataError(f"its metadata can't be read: {type(error).__name__}: {error}") from None
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return None
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def _strip_jpeg(content: bytes, exif: bytes | None) -> bytes:
    kept = [b"\xff\xd8"]
    place, exif_written = 2, exif is None
    while place < len(content):
        if content[place] != 0xFF:
            raise DataError("its metadata can't be removed: it is no well-formed JPEG file.")
        marker = content[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == 0xD9:
            return b"".join([*kept, b"\xff\xd9"])
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a segment
            kept.append(content[place : place + 2])
            place += 2
            continue
        end = place + 2 + struct.unpack_from(">H", content, place + 2)[0]
        segment = content[place:end]
        if not exif_written and marker != 0xE0:  # JFIF comes first, then EXIF
            block = exif if exif is not None and exif.startswith(b"Exif") else b"Exif\0\0" + (exif or b"")
            kept.append(b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
            exif_written = True
        if _is_needed(marker, segment):
            kept.append(segment)
        place = end
        if marker == 0xDA:  # compressed pixels, up to the next marker
            while place < len(content) and not (
                content[place] == 0xFF and content[place + 1] != 0 and not 0xD0 <= content[place + 1] <= 0xD7
            ):
                following = content.find(b"\xff", place + 1)
                place = len(content) if following < 0 else following
            kept.append(content[end:place])
    raise IndexError


def _is_needed(marker: int, segment: bytes) -> bool:
    """JFIF, colour profiles and Adobe's colour transform are; other application data and comments are not."""
    if marker == 0xE0:
        return segment[4:8] == b"JFIF"
    if marker == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    if marker == 0xEE:
        return segment[4:9] == b"Adobe"
    return not (0xE1 <= marker <= 0xEF or marker == 0xFE)


def _strip_png(content: bytes, exif: bytes | None) -> bytes:
    kept = [PNG]
    place = len(PNG)
    while True:
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            raise IndexError
        if name == b"IDAT" and exif is not None:
            block = exif.removeprefix(b"Exif\0\0")
            check = zlib.crc32(b"eXIf" + block)
            kept.append(struct.pack(">I4s", len(block), b"eXIf") + block + struct.pack(">I", check))
            exif = None
        if name not in PNG_DROPPED:
            kept.append(content[place:end])
        if name == b"IEND":
            return b"".join(kept)
        place = end


def _strip_webp(content: bytes, exif: bytes | None) -> bytes:
    chunks: list[tuple[bytes, bytes]] = []
    place, end = 12, 8 + struct.unpack_from("<I", content, 4)[0]
    while place < min(end, len(content)):
        name, length = struct.unpack_from("<4sI", content, place)
        body = content[place + 8 : place + 8 + length]
        if len(body) < length:
            raise IndexError
        if name not in (b"EXIF", b"XMP "):
            chunks.append((name, body))
        place += 8 + length + length % 2
    if chunks and chunks[0][0] == b"VP8X":  # which tells of the chunks to come; simple files have none
        flags = chunks[0][1][0] & ~(WEBP_EXIF_FLAG | WEBP_XMP_FLAG)
        if exif is not None:
            flags |= WEBP_EXIF_FLAG
            chunks.append((b"EXIF", exif.removeprefix(b"Exif\0\0")))
        chunks[0] = (b"VP8X", bytes([flags]) + chunks[0][1][1:])
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
