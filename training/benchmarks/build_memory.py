"""
Memory and time of `sage-hf data build` at several numbers of rows: memory should stay flat.

    python training/benchmarks/build_memory.py --rows 5000 50000 --out training/benchmarks/build_memory.json

Pictures (96x96 JPEG) and maps (PNG) are written into a temporary folder, 200 different ones in turn, and built by the
command in a process of its own. The resident memory of that process and of its children is added up twenty times a
second, so that pages which they share count several times.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

import sage_hf

SIZE = 96
DIFFERENT = 200
FOLDER = 1000
"""Pictures in one folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--num-proc", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    args = parser.parse_args()
    runs = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_source(Path(folder), rows)
            for num_proc in args.num_proc:
                runs.append({"rows": rows, "num_proc": num_proc} | measure(Path(folder), num_proc))
                if not args.json:
                    print(
                        "{rows:>8} rows, {num_proc} processes: {peak_mb:>6} MB, {seconds:>6} s".format(**runs[-1]),
                        flush=True,
                    )
    record = {"runs": runs, "picture": f"{SIZE}x{SIZE} JPEG with a PNG map", **environment()}
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    if args.json:
        print(json.dumps(record))


def write_source(folder: Path, rows: int) -> None:
    """Pictures, maps for nine of ten of them, and a table of labels."""
    generator = np.random.default_rng(0)
    files = [_files(generator) for _ in range(DIFFERENT)]
    with (folder / "labels.csv").open("w") as table:
        table.write("file,class,split\n")
        for index in range(rows):
            name = f"{index // FOLDER:04d}/{index:07d}"
            if index % FOLDER == 0:
                (folder / "images" / name).parent.mkdir(parents=True)
                (folder / "maps" / name).parent.mkdir(parents=True)
            picture, saliency = files[index % DIFFERENT]
            (folder / "images" / f"{name}.jpg").write_bytes(picture)
            if index % 10:
                (folder / "maps" / f"{name}.png").write_bytes(saliency)
            table.write(f"{name}.jpg,class {index % 7},{'test' if index % 5 == 0 else 'train'}\n")


def _files(generator: np.random.Generator) -> tuple[bytes, bytes]:
    picture, saliency = io.BytesIO(), io.BytesIO()
    coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(picture, "JPEG", quality=90)
    values = np.zeros((SIZE, SIZE), dtype=np.uint8)
    top, left = generator.integers(0, SIZE // 2, 2)
    values[top : top + 30, left : left + 30] = 200
    Image.fromarray(values).save(saliency, "PNG")
    return picture.getvalue(), saliency.getvalue()


def measure(folder: Path, num_proc: int) -> dict[str, Any]:
    """Build, and sum up the resident memory of all processes meanwhile."""
    command = [sys.executable, "-m", "sage_hf", "data", "build", "--images", "images", "--saliency", "maps"]
    command += ["--labels", "labels.csv", "--label-column", "class", "--split-column", "split"]
    command += ["--out", f"out-{num_proc}", "--num-proc", str(num_proc), "--json"]
    start = time.monotonic()
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        build = psutil.Popen(command, cwd=folder, stdout=stdout, stderr=stderr)
        peak = highest = 0
        while build.poll() is None:
            sizes = _resident(build)
            peak, highest = max(peak, sum(sizes)), max(highest, *sizes)
            time.sleep(0.05)
        stdout.seek(0)
        stderr.seek(0)
        if build.returncode:
            raise subprocess.CalledProcessError(build.returncode, command, stderr=stderr.read())
        figures = json.loads(stdout.read())
    return {
        "kept": figures["kept"],
        "annotated": figures["annotated"],
        "peak_mb": round(peak / 1e6),
        "peak_of_one_process_mb": round(highest / 1e6),
        "seconds": round(time.monotonic() - start, 1),
    }


def _resident(process: psutil.Process) -> list[int]:
    sizes = [0]
    try:
        for one in (process, *process.children(recursive=True)):
            sizes.append(one.memory_info().rss)
    except psutil.NoSuchProcess:  # it has ended since it was listed
        pass
    return sizes


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "versions": {
            "sage_hf": sage_hf.__version__,
            "python": platform.python_version(),
            "pillow": Image.__version__,
            "pyarrow": pa.__version__,
            "datasets": datasets.__version__,
        },
        "hardware": {
            "machine": platform.machine(),
            "cpus": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9),
            "system": platform.system(),
        },
    }


if __name__ == "__main__":
    main()
