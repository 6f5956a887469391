"""
What a map costs the data loader: images per second with pictures and maps against pictures alone, on the same files.

    python training/benchmarks/loader.py --out training/benchmarks/loader.json
    python training/benchmarks/loader.py --data FOLDER --workers 0 2

Without `--data` the files are generated: photograph-like JPEGs of 640x480 pixels with three kinds of maps, as
`sage-hf data build` writes them: regions (black and white), heat maps of half the pictures' resolution, and heat maps
of their full one. Those of the full resolution are measured as other programs write them, too (`PIL's PNG`). Both
loaders run in turns, after a warm-up, and what is reported is the median of the turns' ratios: other work on the
machine slows both. In the main process it is the processor's time that counts, with workers the clock's.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from scipy import ndimage
from torch.utils.data import DataLoader
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import sage_hf
from sage_hf import AlignedTransform, SaliencyCollator
from sage_hf.data import load_saliency_dataset
from sage_hf.data.dataset import Augmentation, TransformedDataset
from sage_hf.data.map_png import grey_png

WIDTH, HEIGHT = 640, 480
LIMIT = 1.25
AUGMENTATION: dict[str, Any] = {"random_crop_scale": 0.5, "horizontal_flip": 0.5}


def photograph(generator: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """
    Grey noise with as much energy in each octave, which is how natural pictures are (amplitude 1/f: Field 1987,
    "Relations between the statistics of natural images"), and a little of it in colour.
    """
    layers = np.zeros((height, width, 3))
    for step in (1, 2, 4, 8, 16, 32, 64):
        coarse = generator.normal(size=(height // step + 1, width // step + 1, 3))
        coarse = coarse[..., :1] + 0.3 * coarse
        layers += ndimage.zoom(coarse, (step, step, 1), order=1)[:height, :width]
    layers = (layers - layers.min()) / (layers.max() - layers.min())
    return _encoded((layers * 255).astype(np.uint8), "JPEG", quality=90)


def heat(generator: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A dozen fixations, as wide as a sixteenth of the picture; in [0, 1]."""
    points = np.zeros((height, width))
    points[generator.integers(0, height, 12), generator.integers(0, width, 12)] = 1
    values = ndimage.gaussian_filter(points, width / 16)
    return values / values.max()


MAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "regions": lambda values: np.where(values > 0.4, 255, 0),
    "heat maps, half resolution": lambda values: np.round(values[::2, ::2] * 255),
    "heat maps, full resolution": lambda values: np.round(values * 255),
    "heat maps, full resolution, PIL's PNG": lambda values: np.round(values * 255),
}


def generated(kind: str, count: int) -> datasets.Dataset:
    """Rows of generated pictures with maps of one kind."""
    generator = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"image": [], "saliency": [], "label": []}
    for index in range(count):
        columns["image"].append({"bytes": photograph(generator), "path": None})
        values = MAPS[kind](heat(generator)).astype(np.uint8)
        file = _encoded(values, "PNG") if kind.endswith("PIL's PNG") else grey_png(values)
        columns["saliency"].append({"bytes": file, "path": None})
        columns["label"].append(index % 2)
    features = datasets.Features(
        {"image": datasets.Image(), "saliency": datasets.Image(mode="L"), "label": datasets.Value("int64")}
    )
    return datasets.Dataset.from_dict(columns, features=features)


def kilobytes(dataset: datasets.Dataset) -> dict[str, float]:
    """Mean size of the stored files by column."""
    sizes = {}
    for column in ("image", "saliency"):
        stored = dataset.cast_column(column, datasets.Image(decode=False))[column]
        files = [one["bytes"] or Path(one["path"]).read_bytes() for one in stored]
        sizes[column] = round(statistics.mean(map(len, files)) / 1000, 1)
    return sizes


def _encoded(values: np.ndarray, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **settings)
    return buffer.getvalue()


def loader(dataset: datasets.Dataset, *, maps: bool, workers: int, batch_size: int, augmented: bool) -> DataLoader:
    """The rows as `SageTrainer` loads them, at 224x224 pixels."""
    transform = AlignedTransform(
        ViTImageProcessorPil(size={"height": 224, "width": 224}),
        saliency_column="saliency" if maps else None,
        **AUGMENTATION if augmented else {},
    )
    rows = TransformedDataset(dataset, transform, "benchmark", Augmentation(0))
    return DataLoader(
        rows,
        batch_size,
        collate_fn=SaliencyCollator(),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def seconds(batches: DataLoader) -> float:
    """One pass: of the processor, or by the clock where workers do it."""
    clock = time.perf_counter if batches.num_workers else time.process_time
    start = clock()
    for _ in batches:
        pass
    return clock() - start


def measure(dataset: datasets.Dataset, rounds: int, **settings: Any) -> dict[str, Any]:
    """Images per second of both loaders, medians over rounds in which they take turns, and the median ratio."""
    loaders = [loader(dataset, maps=maps, **settings) for maps in (False, True)]
    for one in loaders:
        seconds(one)
    times = []
    for index in range(rounds):
        pair = [0.0, 0.0]
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            pair[which] = seconds(loaders[which])
        times.append(pair)
    ratios = sorted(with_maps / alone for alone, with_maps in times)
    alone, with_maps = (len(dataset) / statistics.median(column) for column in zip(*times, strict=True))
    return {
        "image": round(alone, 1),
        "image_and_saliency": round(with_maps, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", help="a saliency dataset to read in place of generated files")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="numbers of workers to try")
    parser.add_argument("--batch-size", type=int, default=32, help="images a batch (default: %(default)s)")
    parser.add_argument("--images", type=int, default=128, help="images at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each loader (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few images and turns, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    args = parser.parse_args()
    if args.quick:
        args.images, args.rounds, args.batch_size = 8, 2, 4
    torch.set_num_threads(1)
    if args.data:
        rows = load_saliency_dataset(args.data)["train"]
        rows = rows.filter(lambda saliency: saliency is not None, input_columns="saliency")
        if len(rows) == 0:
            parser.error(f"{args.data}: no row of its train split has a map")
        files = {Path(args.data).name: rows.select(range(min(args.images, len(rows))))}
    else:
        files = {kind: generated(kind, args.images) for kind in MAPS}
    results = [
        {"files": name, "kilobytes": kilobytes(dataset), "workers": workers, "augmented": augmented}
        | measure(dataset, args.rounds, workers=workers, batch_size=args.batch_size, augmented=augmented)
        for name, dataset in files.items()
        for workers in args.workers
        for augmented in (False, True)
    ]
    record = {
        "results": results,
        "limit": LIMIT,
        "settings": {"images": args.images, "rounds": args.rounds, "batch_size": args.batch_size} | AUGMENTATION,
    }
    conclude(record, args, table(results))


def conclude(record: dict[str, Any], args: argparse.Namespace, text: str) -> None:
    """Add to a record what it was measured on, write it to `args.out`, and print it for `args.json`, or the text."""
    record["versions"] = {
        "sage_hf": sage_hf.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "datasets": datasets.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }
    record["hardware"] = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1) if args.json else text)


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = ["| files | workers | augmented | image | image + saliency | ratio |", "|---|---:|---|---:|---:|---:|"]
    lines += [
        f"| {row['files']} | {row['workers']} | {'yes' if row['augmented'] else 'no'} | {row['image']:.0f}/s | "
        f"{row['image_and_saliency']:.0f}/s | {row['ratio']:.2f} |"
        for row in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
