"""Builds that are cut off, mended and repeated, in one process and in several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from sage_hf import DataError
from sage_hf.data import Source, build_dataset, convert_annotations, parts
from sage_hf.data.scratch import Scratch
from tests.data.annotated import box_rows, make_labels, make_pictures, write_table

ROWS = 24
SCRIPT = """
import os, pathlib, signal, sys, time
from sage_hf.data import build_dataset, parts, Source

folder, num_proc, what = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
make_part = parts.make_part

def slow_part(rows, settings, path):
    if what == "kill" and rows[0].file == "12.png":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    make_part(rows, settings, path)

if __name__ == "__main__":
    parts.PART_ROWS, parts.make_part = 3, slow_part
    source = Source(images=folder / "images", saliency=(folder / "boxes.csv",), labels=folder / "labels.csv",
                    label_column="class", file_column="file")
    try:
        build_dataset(source, folder / "out", num_proc=num_proc)
    except (KeyboardInterrupt, ChildProcessError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 3)
    names = [f"{index}.png" for index in range(ROWS)]
    make_pictures(tmp_path / "images", names)
    write_table(tmp_path / "labels.csv", [{"file": name, "class": f"class {len(name)}"} for name in names])
    box = {key: value for key, value in box_rows("xyxy")[0].items() if key not in ("file", "class")}
    write_table(tmp_path / "boxes.csv", [{"file": name, **box} for name in names])
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def source(folder):
    return Source(
        images=folder / "images", saliency=folder / "boxes.csv", labels=folder / "labels.csv", label_column="class"
    )


def build(folder, out="out", **kwargs):
    return build_dataset(source(folder), folder / out, **kwargs)


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


def started(folder, num_proc, what):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "script.py", str(folder), str(num_proc), what]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_parts(folder, process, count):
    end = time.monotonic() + 60
    while len(list((folder / ".out.parts").glob("*.parquet"))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_killed_build_goes_on_where_it_was(folder, num_proc, monkeypatch):
    process = started(folder, num_proc, "wait")
    wait_for_parts(folder, process, 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    done = len(list((folder / ".out.parts").glob("*.parquet")))
    assert 2 <= done < ROWS // 3
    assert not (folder / "out").exists()

    made = []
    make_part = parts.make_part
    monkeypatch.setattr(parts, "make_part", lambda rows, *rest: (made.append(len(rows)), make_part(rows, *rest)))
    report = build(folder)
    assert (report.kept, report.reused, sum(made)) == (ROWS, 3 * done, ROWS - 3 * done)
    build(folder, "whole")
    assert files(folder / "out") == files(folder / "whole")
    assert not list(folder.glob(".*"))


def test_an_interrupted_build_says_how_to_go_on(folder):
    process = started(folder, 2, "wait")
    wait_for_parts(folder, process, 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt: Interrupted." in said
    assert f"kept in {folder / '.out.parts'}: repeat to go on" in said
    assert build(folder).reused >= 6


def test_a_killed_worker_is_explained(folder):
    process = started(folder, 2, "kill")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ChildProcessError: A worker process was killed, perhaps for want of memory." in said
    assert build(folder).reused > 0


def test_order_and_bytes_are_the_same_in_two_processes(folder):
    assert build(folder, "one").summary() == build(folder, "two", num_proc=2).summary()
    assert files(folder / "one") == files(folder / "two")
    convert_annotations(source(folder), folder / "maps", num_proc=2)
    assert len(list((folder / "maps").glob("*.png"))) == ROWS


def test_one_mended_file_costs_its_part_alone(folder):
    good = (folder / "images" / "7.png").read_bytes()
    (folder / "images" / "7.png").write_bytes(good[:100])
    with pytest.raises(
        DataError, match=r"(?s)1 of 24 rows can't be used; nothing was written.*is kept in .*out\.parts"
    ):
        build(folder)
    (folder / "images" / "7.png").write_bytes(good)
    report = build(folder)
    assert (report.kept, report.reused) == (ROWS, ROWS - 3)
    assert build(folder, "again").reused == 0


def test_other_settings_make_other_parts(folder):
    (folder / "images" / "7.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 24 rows"):
            build(folder)
    assert len(list((folder / ".out.parts").glob("*.parquet"))) == ROWS // 3
    assert build(folder, on_error="skip", granularity="area").reused == 0


def test_parts_that_are_not_whole_are_made_again(folder):
    (folder / "images" / "7.png").write_bytes(b"")
    with pytest.raises(DataError):
        build(folder)
    some = sorted((folder / ".out.parts").glob("*.parquet"))[:3]
    some[0].write_bytes(some[0].read_bytes()[:-50])
    some[1].write_bytes(b"")
    some[2].unlink()
    assert build(folder, on_error="skip").reused in (ROWS - 9, ROWS - 10)  # the refused row may be in one of them


def test_two_builds_of_one_folder(folder):
    with Scratch(folder / "out"), pytest.raises(FileExistsError, match="being made by another process"):
        build(folder)
    assert build(folder).kept == ROWS


def test_rows_of_another_size_are_cut_by_their_bytes(folder, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    Image.new("RGB", (300, 200)).save(folder / "images" / "3.png")
    make_labels(folder / "labels.csv")
    assert build(folder).kept == 6
