"""The store: whoever writes, whenever it is cut off, nothing that somebody drew is lost."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.annotate import AnnotationStore, StaleRevisionError
from sage_hf.annotate import store as store_module
from sage_hf.annotate.record import Change, Record
from sage_hf.data import DataError

ABOUT = Record(picture="a/leaf.jpg", sha256="00", size=(4, 2), annotator="Ann")


def png(number):
    """Stands for the PNG of a map: the store takes bytes."""
    return b"\x89PNG" + number.to_bytes(4, "big")


def all_kept(store):
    """Everything that is in the store for the picture: the notes of revisions and of what was put aside."""
    place = store.place("Ann", ABOUT.picture)
    return {json.loads(path.read_text())["note"] for path in place.glob("*.json")}


def test_a_record_comes_back(tmp_path):
    store = AnnotationStore(tmp_path / "store")
    assert store.latest("Ann", "a/leaf.jpg") is None
    assert store.annotators() == []
    saved = store.save(ABOUT, Change("draft", "rust", "née\n2", session="t"), png(1), base=0)
    again = AnnotationStore(tmp_path / "store")
    assert again.latest("Ann", "a/leaf.jpg") == saved
    assert (saved.revision, saved.label, saved.note, saved.size) == (1, "rust", "née\n2", (4, 2))
    assert again.map_png(saved) == png(1)
    assert again.annotators() == ["Ann"]
    assert list(again.records("Ann")) == [saved]


def test_annotators_are_told_apart_and_case_is_not(tmp_path):
    store = AnnotationStore(tmp_path)
    for name in ("Ann", "Änn", "../../Ann", "李", "ann."):
        store.save(Record(**ABOUT.to_json() | {"annotator": name}), Change(note=name), None, base=0)
    assert store.latest("ANN ", "a/leaf.jpg").note == "Ann"
    assert store.latest("李", "a/leaf.jpg").note == "李"
    assert set(store.annotators()) == {"Ann", "Änn", "../../Ann", "李", "ann."}
    inside = [path for path in tmp_path.rglob("*") if path.is_dir() and path.parent.name == "annotators"]
    assert len(inside) == 5


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\nb", "a\x00"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(DataError, match="annotator's name"):
        AnnotationStore(tmp_path).latest(name, "a")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), min_size=1, max_size=30),
)
def test_writers_in_any_order_lose_nothing(steps):
    """Tabs that read and write in any order: a save is either the next revision, or refused and kept aside."""
    with tempfile.TemporaryDirectory() as folder:
        store = AnnotationStore(folder)
        read = dict.fromkeys("ABC", 0)
        current, newest, writer = None, 0, None
        written = set()
        for number, (tab, reads) in enumerate(steps):
            if reads:
                read[tab] = newest
                continue
            note = str(number)
            written.add(note)
            fresh = read[tab] == newest or writer == tab
            change = Change(note=note, session=tab)
            if not fresh:
                with pytest.raises(StaleRevisionError) as stale:
                    store.save(ABOUT, change, png(number), base=read[tab])
                assert stale.value.latest.note == current
                aside = store.place("Ann", ABOUT.picture) / stale.value.aside
                assert json.loads(aside.read_text())["note"] == note
                continue
            record = store.save(ABOUT, change, png(number), base=read[tab])
            newest, writer, current = newest + 1, tab, note
            assert record.revision == newest
            read[tab] = newest
        if current is not None:
            latest = store.latest("Ann", ABOUT.picture)
            assert latest.note == current
            assert store.map_png(latest) == png(int(current))
        if len(written) <= store_module.KEPT:
            assert all_kept(store) == written


def test_long_runs_of_one_tab_are_thinned_out_and_those_of_others_are_not(tmp_path):
    store = AnnotationStore(tmp_path)
    base = 0
    for session, count in (("first", 3), ("second", 60)):
        for number in range(count):
            change = Change(note=f"{session} {number}", session=session)
            base = store.save(ABOUT, change, png(base), base=base).revision
    kept = store.revisions("Ann", ABOUT.picture)
    assert kept[-20:] == list(range(44, 64))
    assert 3 in kept  # the first tab's last
    assert "first 2" in all_kept(store)
    maps = list(store.place("Ann", ABOUT.picture).glob("*.png"))
    assert len(maps) == len(kept)


def save_many(folder, session):
    store = AnnotationStore(folder)
    for number in range(25):
        while True:
            latest = store.latest("Ann", ABOUT.picture)
            try:
                change = Change(note=f"{session}-{number}", session=f"{session}-{number}")
                store.save(ABOUT, change, png(number), base=latest.revision if latest else 0)
                break
            except StaleRevisionError:
                continue


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_two_writers_at_once(tmp_path, kind):
    spawn = multiprocessing.get_context("spawn")
    make = threading.Thread if kind == "threads" else spawn.Process
    writers = [make(target=save_many, args=(str(tmp_path), session)) for session in "AB"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)
    store = AnnotationStore(tmp_path)
    assert store.revisions("Ann", ABOUT.picture) == list(range(1, 51))
    assert all_kept(store) == {f"{session}-{number}" for session in "AB" for number in range(25)}
    notes = [store.record("Ann", ABOUT.picture, number).note for number in range(1, 51)]
    for session in "AB":
        assert [note for note in notes if note[0] == session] == [f"{session}-{number}" for number in range(25)]


def test_a_process_killed_in_the_middle_of_a_save(tmp_path):
    """Killed between two steps of writing: the revision before is there, whole, and the next save works."""
    store = AnnotationStore(tmp_path)
    store.save(ABOUT, Change(note="before", session="a"), png(1), base=0)
    script = """
import os, sys
from sage_hf.annotate import AnnotationStore
from sage_hf.annotate.record import Change, Record

calls = []
plain = os.replace
def killed(*arguments):
    calls.append(arguments)
    if len(calls) == int(sys.argv[2]):
        os._exit(9)
    return plain(*arguments)
os.replace = killed
about = Record(picture="a/leaf.jpg", sha256="00", size=(4, 2), annotator="Ann")
AnnotationStore(sys.argv[1]).save(about, Change(note="after", session="b"), b"other map", base=1)
"""
    for step in ("1", "2"):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path), step], check=False, timeout=100)
        assert done.returncode == 9
        latest = store.latest("Ann", ABOUT.picture)
        assert (latest.revision, latest.note, store.map_png(latest)) == (1, "before", png(1))
    assert store.save(ABOUT, Change(note="after", session="c"), png(2), base=1).revision == 2
    assert [path.name for path in store.place("Ann", ABOUT.picture).glob("*.json")].count("000002.json") == 1


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    store = AnnotationStore(tmp_path)
    store.save(ABOUT, Change(note="before", session="a"), png(1), base=0)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.save(ABOUT, Change(note="after", session="a"), png(2), base=1)
    assert store.latest("Ann", ABOUT.picture).note == "before"
    assert not list(Path(tmp_path).rglob("*.tmp"))


def test_a_damaged_record_is_named(tmp_path):
    store = AnnotationStore(tmp_path)
    store.save(ABOUT, Change(note="one"), None, base=0)
    store.save(ABOUT, Change(note="two"), None, base=1)
    newest = store.place("Ann", ABOUT.picture) / "000002.json"
    newest.write_text("{")
    with pytest.raises(DataError, match=r"000002\.json can't be read"):
        store.latest("Ann", ABOUT.picture)
    newest.unlink()
    assert store.latest("Ann", ABOUT.picture).note == "one"


def test_a_record_that_names_another_file_is_refused(tmp_path):
    store = AnnotationStore(tmp_path)
    record = store.save(ABOUT, Change(), png(1), base=0)
    (tmp_path / "secret.png").write_bytes(b"secret")
    for name in ("../../../../secret.png", str(tmp_path / "secret.png"), "secret.png"):
        with pytest.raises(DataError, match="which no store writes"):
            store.map_png(Record(**record.to_json() | {"map": name}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"status": "finished"}, "it can be draft, done, nothing, skipped"),
        ({"status": "done"}, "needs a label"),
        ({"label": 3}, "label is int, not text"),
        ({"note": "x" * 10_001}, "10000 are allowed"),
        ({"source": "a model"}, "not 'human' or 'machine: MODEL'"),
    ],
)
def test_changes_that_are_none(values, message):
    with pytest.raises(DataError, match=message):
        Change(**values)
