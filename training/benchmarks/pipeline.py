"""
Where the time of a training row goes on its way from its files into a batch, as shares of the whole.

    python training/benchmarks/pipeline.py --out training/benchmarks/pipeline.json

A row is a photograph-like JPEG and a map of regions, of 640x480 pixels or of two megapixels, for a model of 224x224
pixels, with crop, flip and jitter. All stages and the whole row run in turns; a share is the median over turns of the
stage's time over the row's in the same turn, in time of the processor, which other work on the machine changes little.
What the stages leave is Arrow, Python, and memory: a stage that is repeated finds what it reads in the cache.

`ways` compares ways of doing the same: the median ratio of the way that was taken to the other one. `draft` would be
libjpeg's reduced decoding, to at least twice the final size: it changes the picture, by the given number of grey
values, and is not used.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from loader import conclude, heat, photograph
from PIL import Image, ImageEnhance
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import AlignedTransform, SaliencyCollator
from sage_hf.data.dataset import Augmentation, TransformedDataset
from sage_hf.data.jitter import jittered
from sage_hf.data.map_png import grey_png
from sage_hf.data.replay import Change, _looked_up, _resized
from sage_hf.data.row_pictures import decoded
from sage_hf.data.saliency import saliency_map
from sage_hf.data.transforms import crop_map, picture_bands

SIDE, BATCH = 224, 8
SIZES = {"640x480": (640, 480), "1632x1224": (1632, 1224)}
AUGMENTATION: dict[str, Any] = {"random_crop_scale": 0.5, "horizontal_flip": 1.0, "color_jitter": 0.2}
ON_DEVICE = ("flip", "jitter", "rescale and normalise")
"""Stages that a device could do in batches: they come last, at the final size."""
Work = dict[str, Callable[[], Any]]


def stored(content: bytes) -> dict[str, Any]:
    """A file as `datasets` keeps it."""
    return {"bytes": content, "path": None}


def pils_png(values: np.ndarray) -> bytes:
    """A map as PIL writes it."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def stages(width: int, height: int) -> tuple[Work, Work, dict[str, float]]:
    """Each stage alone, pairs of ways (`NAME` and `NAME, otherwise`), and by how much `draft` changes a picture."""
    generator = np.random.default_rng(0)
    content = photograph(generator, width, height)
    region = np.where(heat(generator, width, height) > 0.4, 255, 0).astype(np.uint8)
    smooth = np.round(heat(generator, width, height) * 255).astype(np.uint8)
    image, saliency = stored(content), stored(grey_png(region))
    transform = AlignedTransform(ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}), **AUGMENTATION)
    features = datasets.Features(
        {"image": datasets.Image(), "saliency": datasets.Image(mode="L"), "label": datasets.Value("int64")}
    )
    columns = {"image": [image] * BATCH, "saliency": [saliency] * BATCH, "label": [0] * BATCH}
    rows = TransformedDataset(datasets.Dataset.from_dict(columns, features), transform, "benchmark", Augmentation(0))
    batch = [rows[index] for index in range(BATCH)]
    numbers = iter(range(10**9))

    picture, grey = decoded(image), decoded(saliency)
    box = (width // 10, height // 10, width // 10 + round(width * 0.87), height // 10 + round(height * 0.87))
    cropped, cropped_map = picture.crop(box), crop_map(grey, box, picture.size)
    size, factors = torch.Size((SIDE, SIDE)), (1.1, 0.9, 1.15)
    small, small_map = cropped.resize((SIDE, SIDE), Image.Resampling.BILINEAR), _resized(cropped_map, size)
    replay = transform._replay
    parts = replay._parts
    assert parts is not None
    collate = SaliencyCollator()
    work: Work = {
        "row": lambda: rows[next(numbers) % BATCH],
        "decode the picture": lambda: picture_bands(decoded(image), 3),
        "decode the map": lambda: decoded(saliency),
        "check the map": lambda: saliency_map(grey, picture.size, stretch=False),
        "crop picture and map": lambda: (picture.crop(box), crop_map(grey, box, picture.size)),
        "resize the picture": lambda: cropped.resize((SIDE, SIDE), Image.Resampling.BILINEAR),
        "resize the map": lambda: _resized(cropped_map, size).float().div_(255),
        "flip": lambda: (Change(mirrored=True)(small), small_map.flip(-1)),
        "jitter": lambda: jittered(small, factors),
        "rescale and normalise": lambda: _looked_up(parts.values, small),
        "collate": lambda: collate(batch),
    }

    unfinished, _ = rows.in_batches()
    unfinished_batch = [unfinished[index] for index in range(BATCH)]

    def enhanced(whole: Image.Image) -> Image.Image:
        for enhance, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            whole = enhance(whole).enhance(factor)
        return whole

    def draft() -> Image.Image:
        opened = Image.open(io.BytesIO(content))
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))
        opened.load()
        return opened

    heat_map, pils_map = stored(grey_png(smooth)), stored(pils_png(smooth))
    pils_region = stored(pils_png(region))
    change = Change(mirrored=True, jitter=factors)

    def early() -> None:
        mirrored = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cropped_map.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        replay._processed(enhanced(mirrored))

    ways: Work = {
        "resize, rescale, normalise": lambda: replay.pixel_values([cropped]),
        "resize, rescale, normalise, otherwise": lambda: replay._processed(cropped),
        "the same with flip and jitter": lambda: (replay.pixel_values([cropped], change), small_map.flip(-1)),
        "the same with flip and jitter, otherwise": early,
        "decode a map of regions": lambda: decoded(saliency),
        "decode a map of regions, otherwise": lambda: decoded(pils_region),
        "decode a heat map": lambda: decoded(heat_map),
        "decode a heat map, otherwise": lambda: decoded(pils_map),
        "decode the picture": lambda: decoded(image),
        "decode the picture, otherwise": draft,
        "collate unfinished rows": lambda: collate(unfinished_batch),
        "collate unfinished rows, otherwise": lambda: collate(batch),
        "leave a row unfinished": lambda: unfinished[next(numbers) % BATCH],
        "leave a row unfinished, otherwise": lambda: rows[next(numbers) % BATCH],
    }
    difference = np.abs(
        np.asarray(draft().resize((SIDE, SIDE), Image.Resampling.BILINEAR)).astype(float)
        - np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    )
    return work, ways, {"mean": round(float(difference.mean()), 2), "largest": float(difference.max())}


OTHERWISE = {
    "resize, rescale, normalise": "the processor itself",
    "the same with flip and jitter": "flip and jitter of the whole picture, then the processor",
    "decode a map of regions": "PIL's PNG in place of `data build`'s",
    "decode a heat map": "PIL's PNG in place of `data build`'s",
    "collate unfinished rows": "finished ones",
    "leave a row unfinished": "flip, jitter and normalise it",
    "decode the picture": "draft",
}


def turns(work: Work, rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor of each by turn, the fewest of three; after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for index in range(rounds + 1):
        for name, do in work.items():
            tries = []
            for _ in range(3):
                started = time.process_time()
                do()
                tries.append(time.process_time() - started)
            if index:
                times[name].append(min(tries))
    return times


def measure(name: str, rounds: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shares of the stages, and ratios of the ways, of pictures of one size."""
    work, ways, difference = stages(*SIZES[name])
    times = turns(work, rounds)
    times["collate"] = [seconds / BATCH for seconds in times["collate"]]
    whole = [row + collate for row, collate in zip(times.pop("row"), times["collate"], strict=True)]

    def share(seconds: list[float]) -> float:
        return round(statistics.median(one / row for one, row in zip(seconds, whole, strict=True)), 4)

    results = [{"picture": name, "stage": stage, "share": share(seconds)} for stage, seconds in times.items()]
    movable = [sum(column) for column in zip(*(times[stage] for stage in ON_DEVICE), strict=True)]
    results.append({"picture": name, "stage": " + ".join(ON_DEVICE), "share": share(movable)})
    taken = turns(ways, rounds)
    compared: list[dict[str, Any]] = []
    for way, other in OTHERWISE.items():
        pairs = zip(taken[way], taken[f"{way}, otherwise"], strict=True)
        ratio = statistics.median(one / another for one, another in pairs)
        compared.append({"picture": name, "way": way, "otherwise": other, "ratio": round(ratio, 3)})
    compared[-1]["grey_values_changed"] = difference
    return results, compared


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="turns of each stage (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two turns, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rounds = 2 if args.quick else args.rounds
    measured = [measure(name, rounds) for name in SIZES]
    results = [row for rows, _ in measured for row in rows]
    record = {
        "results": results,
        "ways": [row for _, rows in measured for row in rows],
        "settings": {"side": SIDE, "batch_size": BATCH, "rounds": rounds} | AUGMENTATION,
    }
    conclude(record, args, table(results))


def table(results: list[dict[str, Any]]) -> str:
    """The shares as Markdown."""
    stages = dict.fromkeys(row["stage"] for row in results)
    shares = {(row["picture"], row["stage"]): row["share"] for row in results}
    pictures = list(dict.fromkeys(row["picture"] for row in results))
    lines = ["| share of a row's time | " + " | ".join(pictures) + " |", "|---|" + "---:|" * len(pictures)]
    for stage in stages:
        cells = " | ".join(f"{100 * shares[picture, stage]:.1f} %" for picture in pictures)
        lines.append(f"| {stage} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
