"""What the metadata of a picture file tell about people and machines: EXIF, XMP, IPTC, PNG text, comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

NAMES = {"Artist", "XPAuthor", "CameraOwnerName"}
"""EXIF tags that hold a person's name."""
IDENTIFYING = {"Copyright", "BodySerialNumber", "LensSerialNumber", "CameraSerialNumber", "HostComputer", "MakerNote"}
"""EXIF tags that may point at a person: a maker's own notes often hold serial numbers and owners, in secret formats. A
copyright notice may have to stay, so it is for the user to judge."""
XMP_PERSONAL = {
    "GPSLatitude": "GPS",
    "GPSLongitude": "GPS",
    "creator": "creator",
    "OwnerName": "OwnerName",
    "CameraOwnerName": "CameraOwnerName",
    "PersonInImage": "PersonInImage",
    "PersonDisplayName": "PersonDisplayName",
    "CaptionWriter": "CaptionWriter",
}
XMP_IDENTIFYING = {"SerialNumber", "LensSerialNumber", "BodySerialNumber", "rights"}
IPTC_PERSONAL = {(2, 80): "By-line", (2, 118): "Contact", (2, 122): "Writer"}
IPTC_IDENTIFYING = {(2, 116): "CopyrightNotice"}
PNG_PERSONAL, PNG_IDENTIFYING = {"author", "artist", "creator"}, {"copyright"}

# The first part of an absolute path: Windows' drives and shares, file URLs, home folders and usual roots. A bare slash
# is not enough: identifiers such as Freebase's `/m/0bt9lr` begin with one.
_ROOTS = (
    "home|Users|root|mnt|media|Volumes|tmp|var|private|opt|srv|scratch|data|datasets|work|workspace|projects|storage"
)
_ABSOLUTE = re.compile(rf"(?:file://|~/|/(?:{_ROOTS})/\S|[A-Za-z]:[\\/]\S|\\\\\w[\w.-]*\\\S)")
# Not behind a host's name: `https://example.org/home/index.html` is nobody's home folder.
_HOME = re.compile(r"(?<![\w.-])(?:/home/|/Users/|[A-Za-z]:\\+Users\\+)[^/\\\s\"'<>]+")


@dataclass(frozen=True)
class Metadata:
    """What was found in a file; only the names of the fields are kept, never a person's data."""

    personal: tuple[str, ...] = ()
    """Fields with a place or a person's name."""
    identifying: tuple[str, ...] = ()
    """Fields that may point at a person: serial numbers, copyright notices."""
    paths: tuple[str, ...] = ()
    """Fields with a path into somebody's home folder."""
    error: str | None = None
    """Why a part of the metadata can't be read."""


NOTHING = Metadata()


def is_absolute_path(text: str) -> bool:
    r"""
    Whether a string begins as an absolute path on some computer does, or holds a path into a home folder.

    Example:

    ```python
    >>> from sage_hf.data.checking.metadata import is_absolute_path
    >>> [is_absolute_path(text) for text in ("/home/ann/1.jpg", r"D:\scans\1.png", "images/1.jpg", "/m/0bt9lr")]
    [True, True, False, False]

    ```
    """
    return bool(_ABSOLUTE.match(text) or _HOME.search(text))


def read_metadata(image: Image.Image) -> Metadata:
    """
    Search the metadata of an opened picture. It is loaded, because PNG may hold text behind its pixels.

    Args:
        image (`PIL.Image.Image`): as `PIL.Image.open` gives it.
    """
    image.load()
    personal: set[str] = set()
    identifying: set[str] = set()
    texts: dict[str, str] = {}
    errors: list[str] = []
    for part in (_exif, _xmp, _iptc, _text):
        try:
            for field, kind, text in part(image):
                if not text.strip():
                    continue
                if kind:
                    (personal if kind == "personal" else identifying).add(field)
                texts[field] = text
        except Exception as error:  # metadata are written by anything, and PIL's readers raise anything
            errors.append(f"{part.__name__.strip('_')}: {type(error).__name__}: {error}")
    paths = tuple(sorted(field for field, text in texts.items() if _HOME.search(text)))
    return Metadata(tuple(sorted(personal)), tuple(sorted(identifying)), paths, "; ".join(errors) or None)


_Fields = Iterator[tuple[str, str, str]]
"""Name of a field, `"personal"`, `"identifying"` or nothing, and its text."""


def _exif(image: Image.Image) -> _Fields:
    exif = image.getexif()
    if exif.get_ifd(ExifTags.IFD.GPSInfo).keys() - {ExifTags.GPS.GPSVersionID}:
        yield "EXIF GPS", "personal", "a place"
    for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
        for tag, value in tags.items():
            name = ExifTags.TAGS.get(tag, str(tag))
            kind = "personal" if name in NAMES else "identifying" if name in IDENTIFYING else ""
            yield f"EXIF {name}", kind, _as_text(value, "utf-16-le" if name.startswith("XP") else "utf-8")


def _xmp(image: Image.Image) -> _Fields:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if not packet:
        return
    packet = packet.encode() if isinstance(packet, str) else packet
    yield "XMP", "", packet.decode("utf-8", "replace")
    try:
        root = fromstring(packet.strip(b"\x00 \r\n\t"))
    except (ParseError, DefusedXmlException):
        # Not well formed: what looks like one of the fields counts as one.
        for name in sorted(XMP_PERSONAL.keys() | XMP_IDENTIFYING):
            if f":{name}".encode() in packet:
                yield f"XMP {name}", "personal" if name in XMP_PERSONAL else "identifying", name
        return
    for element in root.iter():
        texts = [(element.tag, "".join(element.itertext())), *element.attrib.items()]
        for tag, text in texts:
            name = tag.rpartition("}")[2]
            if name in XMP_PERSONAL:
                yield f"XMP {XMP_PERSONAL[name]}", "personal", text
            elif name in XMP_IDENTIFYING:
                yield f"XMP {name}", "identifying", text


def _iptc(image: Image.Image) -> _Fields:
    if not isinstance(image, ImageFile.ImageFile):
        return
    for key, value in (IptcImagePlugin.getiptcinfo(image) or {}).items():
        text = b" ".join(value) if isinstance(value, list) else value
        if key in IPTC_PERSONAL:
            yield f"IPTC {IPTC_PERSONAL[key]}", "personal", _as_text(text)
        elif key in IPTC_IDENTIFYING:
            yield f"IPTC {IPTC_IDENTIFYING[key]}", "identifying", _as_text(text)


def _text(image: Image.Image) -> _Fields:
    texts = dict(getattr(image, "text", None) or {})
    for name in ("comment", "Comment", "Description"):
        if name in image.info:
            texts.setdefault(name, image.info[name])
    for name, value in texts.items():
        lower = name.lower()
        kind = "personal" if lower in PNG_PERSONAL else "identifying" if lower in PNG_IDENTIFYING else ""
        if lower != "xml:com.adobe.xmp":
            yield f"text {name}", kind, _as_text(value)


def _as_text(value: object, encoding: str = "utf-8") -> str:
    return value.decode(encoding, "replace").strip("\x00") if isinstance(value, bytes) else str(value)
