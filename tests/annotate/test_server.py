"""The server: only this machine's own page gets in, and no file but the pictures gets out."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from sage_hf.annotate import AnnotationStore, Project, open_pictures
from sage_hf.annotate.guard import MOST_BYTES, Rules
from sage_hf.annotate.maps import packed, unpacked
from sage_hf.data import DataError
from tests.annotate.conftest import SIZE, drawn, save_photographs, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "secret.jpg").write_bytes(b"a file beside the folder")
    photos = save_photographs(root / "photos", ["china.jpg", "more/flower.jpg"])
    (photos / "link.jpg").symlink_to(root / "secret.jpg")
    (photos / "away").symlink_to(root)
    (photos / "notes.txt").write_text("no picture")
    project = Project(open_pictures(str(photos)), AnnotationStore(root / "store"), ["temple", "flower"])
    with serving(photos, "--store", root / "store", "--classes", "temple", "flower") as server:
        server.project, server.root = project, root
        yield server


def change(**values):
    usual = {"base": 0, "status": "draft", "label": None, "note": "", "source": "human", "session": "t", "map": None}
    return usual | values


def test_the_page_is_served_with_a_strict_policy(served):
    answer = served.ask("GET", "/")
    assert answer.status == 200
    assert b"<title>Annotate</title>" in answer.body
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "'unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("app.js", "style.css", "icon.svg"):
        assert served.ask("GET", f"/page/{name}").status == 200


def test_pictures_are_known_by_number(served):
    assert served.project.pictures.names == ["china.jpg", "more/flower.jpg"]
    state = json.loads(served.ask("GET", "/api/pictures/1?annotator=Ann").body)
    assert (state["name"], state["size"], state["record"]) == ("more/flower.jpg", list(SIZE), None)
    image = served.ask("GET", "/api/pictures/0/image")
    assert image.body == (served.root / "photos" / "china.jpg").read_bytes()
    assert image.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize(
    "target",
    [
        "/api/pictures/2/image",
        "/api/pictures/-1/image",
        "/api/pictures/..%2F..%2Fsecret.jpg/image",
        "/api/pictures/0/../../../secret.jpg",
        "/page/../server.py",
        "/page/..%2fserver.py",
        "/page/%2e%2e/server.py",
        "/page//etc/passwd",
        "//etc/passwd",
        "/../secret.jpg",
        "/%2e%2e/secret.jpg",
        "/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file%3D/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/config",
        "/gradio_api/info",
        "/gradio_api/startup-events/../config",
        "/config",
        "/theme.css",
        "/docs",
        "/openapi.json",
        "/monitoring",
        "/favicon.ico",
    ],
)
def test_nothing_else_can_be_opened(served, target):
    for method in ("GET", "POST"):
        answer = served.ask(method, target, b"" if method == "POST" else None)
        assert answer.status in (404, 405)
        assert b"root:" not in answer.body
        assert b"beside the folder" not in answer.body
        assert b"import" not in answer.body


def test_a_number_is_no_way_out(served):
    for index in ("99999999999999999999999", "0x1", "1e0", "%00", "0;1"):
        assert served.ask("GET", f"/api/pictures/{index}/image").status == 404


def test_a_picture_that_became_a_link_after_the_start_is_still_only_a_picture(tmp_path):
    photos = save_photographs(tmp_path / "photos")
    (tmp_path / "secret").write_text("no picture at all")
    project = Project(open_pictures(str(photos)), AnnotationStore(tmp_path / "store"))
    (photos / "china.jpg").unlink()
    (photos / "china.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="not inside"):
        project.shown(0)


def test_without_the_key_nothing_is_told(served):
    for target in ("/", "/api/project", "/api/pictures/0/image", "/page/app.js"):
        assert served.ask("GET", target, signed_in=False).status == 401
        assert served.ask("GET", f"{target}?token=wrong", signed_in=False).status == 401
    opened = served.ask("GET", f"/?token={served.token}", signed_in=False)
    assert (opened.status, opened.headers["Location"]) == (303, "/")
    assert "HttpOnly" in opened.headers["Set-Cookie"]
    assert "SameSite=Strict" in opened.headers["Set-Cookie"]


def test_the_key_is_nowhere_in_what_is_served_or_kept(served):
    served.ask("PUT", "/api/pictures/0?annotator=Key", change())
    targets = ["/", "/api/project", "/api/pictures/0?annotator=Key", "/page/app.js"]
    assert all(served.token.encode() not in served.ask("GET", target).body for target in targets)
    kept = [path for path in served.project.store.folder.rglob("*") if path.is_file()]
    assert kept
    assert all(served.token.encode() not in path.read_bytes() for path in kept)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_foreign_names_of_this_machine_are_refused(served, host):
    assert served.ask("GET", "/api/project", Host=host).status == 421


def test_own_names_are_not(served):
    for host in (f"127.0.0.1:{served.port}", f"localhost:{served.port}", "[::1]", "192.168.1.7:80"):
        assert served.ask("GET", "/api/project", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
def test_foreign_pages_change_nothing(served, headers):
    answer = served.ask("PUT", "/api/pictures/0?annotator=Mallory", change(), **headers)
    assert answer.status == 403
    assert served.project.store.latest("Mallory", "china.jpg") is None


def test_a_map_is_saved_and_comes_back(served):
    values = drawn(value=200)
    answer = served.ask(
        "PUT",
        "/api/pictures/0?annotator=Ann",
        change(status="done", label="temple", note="roof", map=base64.b64encode(packed(values)).decode()),
    )
    assert (answer.status, json.loads(answer.body)["revision"]) == (200, 1)
    back = served.ask("GET", "/api/pictures/0/map?annotator=ann&revision=1").body
    assert np.array_equal(unpacked(back, SIZE), values)
    progress = json.loads(served.ask("GET", "/api/progress?annotator=Ann").body)
    assert progress == {"states": ["done", "open"], "first": 1}


def test_a_stale_tab_is_told_what_is_newer(served):
    served.ask("PUT", "/api/pictures/1?annotator=Two", change(note="first", session="a"))
    answer = served.ask("PUT", "/api/pictures/1?annotator=Two", change(note="second", session="b"))
    assert answer.status == 409
    assert json.loads(answer.body)["latest"]["note"] == "first"
    again = served.ask("PUT", "/api/pictures/1?annotator=Two", change(note="both", session="b", base=1))
    assert json.loads(again.body)["revision"] == 2


def test_a_repeated_save_of_one_tab_is_no_conflict(served):
    for revision in (1, 2):
        answer = served.ask("PUT", "/api/pictures/1?annotator=Again", change(note="same", session="a"))
        assert (answer.status, json.loads(answer.body)["revision"]) == (200, revision)


SMALL = base64.b64encode(packed(np.ones((2, 2)))).decode()
BOMB = base64.b64encode(packed(np.zeros((3000, 3000)))).decode()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (change(map=SMALL), "does not have the 640x427 values"),
        (change(map=BOMB), "does not have the 640x427 values"),
        (change(map="AAAA"), "the map is damaged"),
        (change(map="!"), ""),
        (change(map=3), ""),
        (change(status="done", label="temple"), "nothing is marked"),
        (
            change(status="nothing", label="temple", map=base64.b64encode(packed(drawn())).decode()),
            "something is marked",
        ),
        (change(label="car"), "'car' is not one of the classes"),
        (change(source="machine: other/model"), "no guess of 'machine: other/model'"),
        (change(base="1"), "a change has base"),
        (change(path="/etc/passwd"), "a change has base"),
        (change(annotator="Eve"), "a change has base"),
        ([1], "a JSON object"),
        (b"{", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_bad_changes_are_refused(served, values, message):
    answer = served.ask("PUT", "/api/pictures/1?annotator=Bad", values)
    assert answer.status == 400
    assert message in json.loads(answer.body)["error"]
    assert served.project.store.latest("Bad", "more/flower.jpg") is None


def test_requests_of_any_size_are_not_read(served):
    answer = served.ask("PUT", "/api/pictures/0?annotator=Ann", b"", Content_Length=str(MOST_BYTES + 1))
    assert answer.status == 413
    answer = served.ask(
        "PUT", "/api/pictures/0?annotator=Ann", b"0\r\n\r\n", Transfer_Encoding="chunked", Content_Length=None
    )
    assert answer.status == 413


def test_classes_are_fixed_if_they_are_given(served):
    answer = served.ask("POST", "/api/classes", {"name": "car"})
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "the classes are given: temple, flower.")


def test_it_listens_on_loopback_alone(served):
    import psutil

    addresses = {
        one.laddr.ip
        for one in psutil.Process(served.process.pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == served.port
    }
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/", True), ("/x", False), ("/api", False), ("/api/", True), ("/api/x", True), ("/apix", False), ("", False)],
)
def test_paths_of_the_rules(path, allowed):
    assert Rules(None, ("/", "/api/")).allows_path(path) is allowed


def test_formats_that_browsers_do_not_show_are_converted(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    deep = np.linspace(0, 65535, 12 * 10).reshape(10, 12).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(folder / "scan.tiff")
    turned = Image.fromarray(np.zeros((10, 12, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.tiff", exif=exif)
    project = Project(open_pictures(str(folder)), AnnotationStore(tmp_path / "store"))
    for index, size in enumerate([(12, 10), (12, 10), (10, 12)]):
        content, media = project.shown(index)
        assert media == "image/png"
        assert Image.open(io.BytesIO(content)).size == size == project.picture(index).size


@pytest.mark.parametrize(
    ("name", "note", "as_it_is"),
    [("exif.jpg", "exif", True), ("exif.webp", "exif", False), ("exif.png", "exif", False), ("xmp.jpg", "xmp", False)],
)
def test_pictures_that_browsers_do_not_turn_are_turned_for_them(tmp_path, name, note, as_it_is):
    """By half a turn, which no size gives away."""
    values = np.zeros((16, 24, 3), np.uint8)
    values[:6, :6] = 255
    (tmp_path / "photos").mkdir()
    path, exif = tmp_path / "photos" / name, Image.Exif()
    exif[0x0112] = 3
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    Image.fromarray(values).save(path, **({"exif": exif} if note == "exif" else {"xmp": xmp}))
    project = Project(open_pictures(str(path.parent)), AnnotationStore(tmp_path / "store"))
    content, media = project.shown(0)
    if as_it_is:
        assert content == path.read_bytes()
        return
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert media == "image/png"
    assert shown[-3, -3] > 200
    assert shown[2, 2] < 50


def test_a_picture_of_numbers_some_of_which_are_none(tmp_path):
    values = np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12)
    values[0, :2] = np.nan, np.inf
    (tmp_path / "photos").mkdir()
    Image.fromarray(values).save(tmp_path / "photos" / "depth.tiff")
    content, _ = Project(open_pictures(str(tmp_path / "photos")), AnnotationStore(tmp_path / "store")).shown(0)
    shown = np.asarray(Image.open(io.BytesIO(content)))[..., 0]
    assert shown[0, :2].tolist() == [0, 255]
    assert shown[-1, -1] == 255
