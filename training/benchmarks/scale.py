"""
What a training on N GPUs needs, from the speed of one: time, cores, reading, files, batch and memory.

    python training/benchmarks/scale.py --images-per-second 500 --gpus 8 64 --images 100000000

It is arithmetic. The speed of a GPU in plain training is the user's to measure (`step_cost.py --device cuda --json`
has the milliseconds of a step); what guidance costs is read from `step_cost_cpu.json` or a file of one's own, and what
a core loads and a row weighs from `loader.json`. That N GPUs are N times as fast as one is an assumption, the best
case; `--efficiency` takes a share of it.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_hf.data.parquet import SHARD_BYTES

HERE = Path(__file__).parent
PIXEL_BYTES = 3 * 4
"""Of a pixel of a view: three channels in float32."""


@dataclass(frozen=True)
class Measured:
    """What was measured, and of what."""

    model: str
    mode: str
    time_ratio: float
    memory_ratio: float
    hardware: str
    files: str
    images_per_core: float
    """A second, loaded with their maps."""
    row_bytes: float
    """A picture and its map, as they are stored."""


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    images_per_second: float
    """Of one GPU in plain training."""
    gpus: int
    images: int
    batch: int = 64
    """A GPU."""
    side: int = 224
    """Of a picture, in pixels."""
    parameters: int = 86_000_000
    efficiency: float = 1.0


def read(step_cost: Path, loader: Path, *, model: str | None, mode: str, files: str) -> Measured:
    """
    The figures of a model, a mode and a kind of maps, as the benchmarks have left them.

    Raises:
        `ValueError`: there are none; the message lists what there is.
    """
    record = json.loads(step_cost.read_text())
    of_model = model or record["results"][0]["model"]
    steps = {(row["model"], row["mode"]): row for row in record["results"]}
    if (of_model, mode) not in steps:
        raise ValueError(f"{step_cost} has no {mode!r} of {of_model!r}; it has: {'; '.join(map(', '.join, steps))}.")
    rows = [row for row in json.loads(loader.read_text())["results"] if row["augmented"]]
    # With the most workers, if there are several: they share what one alone has for itself, such as the caches.
    loaded = {row["files"]: row for row in sorted(rows, key=lambda row: row["workers"])}
    if files not in loaded:
        raise ValueError(f"{loader} has no {files!r} with augmentation; it has: {'; '.join(loaded)}.")
    step, row = steps[of_model, mode], loaded[files]
    return Measured(
        model=of_model,
        mode=mode,
        time_ratio=step["time_ratio"],
        memory_ratio=step["memory_ratio"],
        hardware=record["hardware"]["device"],
        files=files,
        images_per_core=row["image_and_saliency"] / max(1, row["workers"]),
        row_bytes=1000 * sum(row["kilobytes"].values()),
    )


def needs(measured: Measured, plan: Plan) -> dict[str, float]:
    """What a plan needs. Every row has a map, and loading keeps up, with the workers that are said."""
    one = plan.images_per_second * plan.efficiency / measured.time_ratio
    total = one * plan.gpus
    files = math.ceil(plan.images * measured.row_bytes / SHARD_BYTES)
    # Ring all-reduce: each GPU sends, and receives, 2 (N - 1) / N times the gradients, which are float32.
    exchanged = 2 * (plan.gpus - 1) / plan.gpus * 4 * plan.parameters * one / plan.batch
    return {
        "images_per_second_of_one": one,
        "images_per_second": total,
        "hours_per_epoch": plan.images / total / 3600,
        "rows_per_step": plan.gpus * plan.batch,
        "steps_per_epoch": math.ceil(plan.images / (plan.gpus * plan.batch)),
        "workers_per_gpu": math.ceil(one / measured.images_per_core),
        "cores": plan.gpus * math.ceil(one / measured.images_per_core),
        "read_mb_per_second": total * measured.row_bytes / 1e6,
        "stored_tb": plan.images * measured.row_bytes / 1e12,
        "files": files,
        "files_shared_evenly": math.ceil(files / plan.gpus) * plan.gpus,
        "exchanged_mb_per_second": exchanged / 1e6,
        "memory_ratio": measured.memory_ratio,
        "views_mb": 2 * plan.batch * PIXEL_BYTES * plan.side**2 / 1e6,
    }


LINES = {
    "images_per_second_of_one": ("images/s, one GPU", "{:,.0f}"),
    "images_per_second": ("images/s, all GPUs", "{:,.0f}"),
    "hours_per_epoch": ("hours an epoch", "{:,.1f}"),
    "rows_per_step": ("rows an optimizer step", "{:,}"),
    "steps_per_epoch": ("optimizer steps an epoch", "{:,}"),
    "workers_per_gpu": ("loader workers a GPU, a core each", "{:,}"),
    "cores": ("cores for loading, all", "{:,}"),
    "read_mb_per_second": ("read, MB/s, all", "{:,.0f}"),
    "stored_tb": ("stored, TB", "{:,.1f}"),
    "files": ("parquet files of `data build`", "{:,}"),
    "files_shared_evenly": ("files that the GPUs share evenly", "{:,}"),
    "exchanged_mb_per_second": ("gradients sent by a GPU, MB/s", "{:,.0f}"),
    "memory_ratio": ("peak memory, to plain training's", "{:.2f}"),
    "views_mb": ("x+ and x- of a batch, MB a GPU", "{:,.0f}"),
}


def text(measured: Measured, plans: list[Plan]) -> str:
    """What was assumed, what was measured, and a table with a column for each plan, as Markdown."""
    plan, found = plans[0], [needs(measured, one) for one in plans]
    times = "N times" if plan.efficiency == 1 else f"{plan.efficiency:g} N times"
    lines = [
        f"Assumed: {plan.images_per_second:g} images/s on one GPU in plain training, N GPUs {times} as "
        f"fast, {plan.images:,} images, {plan.batch} a GPU, {plan.side} pixels, {plan.parameters / 1e6:g} million "
        "parameters, a map for every row.",
        "",
        f"Measured: `{measured.mode}` takes {measured.time_ratio:.2f} times as long as plain training "
        f"({measured.model}; {measured.hardware}); a core loads {measured.images_per_core:.0f} pictures and maps a "
        f"second, of {measured.row_bytes / 1000:.1f} kB ({measured.files}).",
        "",
        "| | " + " | ".join(f"{one.gpus} GPU{'s' * (one.gpus > 1)}" for one in plans) + " |",
        "|---|" + "---:|" * len(plans),
    ]
    for name, (label, form) in LINES.items():
        lines.append(f"| {label} | " + " | ".join(form.format(one[name]) for one in found) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = "(default: %(default)s)"
    parser.add_argument("--images-per-second", type=_positive, required=True, help="of one GPU, in plain training")
    parser.add_argument("--gpus", type=_whole, nargs="+", default=[8, 64], help=shown)
    parser.add_argument("--images", type=_whole, default=100_000_000, help=shown)
    parser.add_argument("--batch", type=_whole, default=64, help=f"a GPU {shown}")
    parser.add_argument("--side", type=_whole, default=224, help=f"of a picture, in pixels {shown}")
    parser.add_argument("--parameters", type=_whole, default=86_000_000, help=f"that are trained {shown}")
    parser.add_argument(
        "--efficiency", type=_positive, default=1.0, help=f"of N GPUs, over N times one's speed {shown}"
    )
    parser.add_argument("--mode", default="sage, concatenated", help=f"of step_cost.py {shown}")
    parser.add_argument("--model", help="of step_cost.py (default: the first of its results)")
    parser.add_argument("--files", default="regions", help=f"kind of maps of loader.py {shown}")
    parser.add_argument("--step-cost", type=Path, default=HERE / "step_cost_cpu.json", help="results of step_cost.py")
    parser.add_argument("--loader", type=Path, default=HERE / "loader.json", help="results of loader.py")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(argv)
    try:
        measured = read(options.step_cost, options.loader, model=options.model, mode=options.mode, files=options.files)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    names = ("images_per_second", "images", "batch", "side", "parameters", "efficiency")
    shared: dict[str, Any] = {name: getattr(options, name) for name in names}
    plans = [Plan(gpus=gpus, **shared) for gpus in options.gpus]
    if options.json:
        results = [vars(plan) | {"needs": needs(measured, plan)} for plan in plans]
        print(json.dumps({"measured": vars(measured), "results": results}, indent=1))
    else:
        print(text(measured, plans))


def _positive(value: str) -> float:
    if not 0 < (number := float(value)) < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return number


def _whole(value: str) -> int:
    if (number := int(float(value))) < 1 or number != float(value):
        raise argparse.ArgumentTypeError(f"{value} is no whole number above 0")
    return number


if __name__ == "__main__":
    main()
