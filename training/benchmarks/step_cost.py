"""
What a training step costs, in time and peak memory, as a ratio to plain training (`guidance="none"`).

    python training/benchmarks/step_cost.py --device cpu --out training/benchmarks/step_cost_cpu.json
    python training/benchmarks/step_cost.py --device cuda --out training/benchmarks/step_cost_cuda.json

All modes of a model run in one process, in turns, after a warm-up: a round is one step of each, or k steps for a mode
that guides every k-th step or one in k rows, with two plain steps between any two. Reported is the median over rounds
of the ratio to the plain steps before and after, because other work on the machine slows all of them; on a CPU, it is
the processor's time, with memory that is kept once freed. Steps are those of `SageTrainer` (forward, backward, AdamW);
pictures and maps, one for each picture, are ready on the device. Peak memory is that of one step, the largest:
weights, gradients and optimizer state as well as activations.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig, ViTForImageClassification

import sage_hf
from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.objectives import Encoding

MODES: dict[str, dict[str, Any]] = {
    "none": {"guidance": "none"},
    "sage, separate": {"view_forward": "separate"},
    "sage, concatenated": {"view_forward": "concatenated"},
    "sage, recomputed": {"view_forward": "recomputed"},
    "sage, interval 2": {"guidance_interval": 2},
    "sage, interval 4": {"guidance_interval": 4},
    "sage, interval 8": {"guidance_interval": 8},
    "sage, one in 2": {"guidance_one_in": 2},
    "sage, one in 4": {"guidance_one_in": 4},
    "sage, fast": {"preset": "fast"},
    "augment": {"guidance": "augment"},
    "cyborg": {"guidance": "cyborg"},
    "gradient": {"guidance": "gradient"},
    "harmonization": {"guidance": "harmonization"},
    "attention": {"guidance": "attention"},
}
COMPILED = ("none", "sage, concatenated")
"""Modes that are measured compiled as well, with --compile."""


@dataclass(frozen=True)
class Setting:
    """A model, its pictures' side in pixels and the batch."""

    model: str
    size: int
    batch: int
    bf16: bool = False


SETTINGS = {
    "cpu": (Setting("ViT, 6 layers, 384 wide", 112, 32), Setting("ConvNeXt atto", 112, 32)),
    "cuda": (Setting("ViT-B/16", 224, 64, bf16=True), Setting("ConvNeXt tiny", 224, 64, bf16=True)),
}


def make_model(name: str, size: int) -> nn.Module:
    """A model with fresh weights; what a step costs does not depend on them. Attention is eager, for all modes."""
    torch.manual_seed(0)
    if name == "ViT, 6 layers, 384 wide":
        config = ViTConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536)
    elif name == "ViT-B/16":
        config = ViTConfig()
    elif name == "ConvNeXt atto":
        config = ConvNextConfig(hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2])
    else:
        config = ConvNextConfig()
    config.num_labels = 10
    if isinstance(config, ViTConfig):
        config.image_size = size
        # Double backward, as input gradients need it, is not there for the fused kernels.
        config._attn_implementation = "eager"
        return ViTForImageClassification(config)
    return ConvNextForImageClassification(config)


class Mode:
    """One way to train, and a step of it."""

    def __init__(self, setting: Setting, settings: dict[str, Any], device: str, folder: str):
        args = SageTrainingArguments(
            output_dir=folder, use_cpu=device == "cpu", bf16=setting.bf16, report_to="none", max_steps=1, **settings
        )
        self.trainer = SageTrainer(model=make_model(setting.model, setting.size), args=args, train_dataset=[{}])
        self.model = self.trainer.accelerator.prepare(self.trainer.model).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.every = args.guidance_interval * (args.guidance_one_in or 1)

    def steps(self, batch: dict[str, torch.Tensor], device: str) -> float:
        """Seconds for a step, over as many as guide one in k steps or rows."""
        _synchronize(device)
        started = clock(device)
        for step in range(self.every):
            self.trainer.state.global_step = step
            self.trainer.training_step(self.model, dict(batch))
            self.optimizer.step()
            self.optimizer.zero_grad()
        _synchronize(device)
        return (clock(device) - started) / self.every

    def peak(self, batch: dict[str, torch.Tensor], device: str) -> int:
        """Most bytes in use during a guided step; where one in k rows is guided, during one that guides most."""
        one_in = self.trainer.args.guidance_one_in or 1
        self.trainer.state.global_step = (one_in - 1) * self.trainer.args.guidance_interval
        gc.collect()
        if device == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.trainer.training_step(self.model, dict(batch))
            self.optimizer.step()
            used = torch.cuda.max_memory_allocated() - before
        else:
            activities = [torch.profiler.ProfilerActivity.CPU]
            with torch.profiler.profile(activities=activities, profile_memory=True) as profiled:
                self.trainer.training_step(self.model, dict(batch))
                self.optimizer.step()
            used = _peak_of(profiled)
        self.optimizer.zero_grad()
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        held = [*self.model.parameters(), *(value for value in state if isinstance(value, torch.Tensor))]
        return used + sum(tensor.nbytes for tensor in held)


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak_of(profiled: torch.profiler.profile) -> int:
    """Most bytes that were allocated at a time, above what there was at the start."""
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    if not changes:
        raise RuntimeError("The profiler saw no allocation.")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def clock(device: str) -> float:
    """Seconds: of the processor where that does the work, which other work on the machine changes little."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def keep_freed_memory() -> None:
    """
    Have glibc keep what is freed, as a GPU's allocator does: it would return large blocks to the system, more of them
    the larger the batch, and the page faults of their next use would be timed as well.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block outside the heap
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink the heap


def own_share(mode: Mode, batch: dict[str, torch.Tensor], device: str, rounds: int) -> float:
    """Seconds that views and terms take, forward and backward, without the model."""
    objective = mode.trainer.guidance_objective
    assert objective is not None
    rows = torch.arange(len(batch["labels"]), device=device)
    encodings = [
        Encoding(*(torch.randn(len(rows), width, device=device, requires_grad=True) for width in (10, 768)))
        for _ in range(3)
    ]
    times = []
    for _ in range(rounds):
        _synchronize(device)
        started = clock(device)
        objective.views(batch["pixel_values"], batch["saliency"], rows)
        terms = objective.terms(*encodings, batch=None)  # type: ignore[arg-type]  # SAGE does not read it
        sum(terms[name].mean() for name in objective.weights).backward()  # type: ignore[union-attr]
        _synchronize(device)
        times.append(clock(device) - started)
    return statistics.median(times)


ALWAYS = ("none", "sage, concatenated")
"""Modes that all others are compared with."""


def measure(
    setting: Setting, device: str, rounds: int, *, compiled: bool, only: tuple[str, ...] = tuple(MODES)
) -> list[dict[str, Any]]:
    """A row for each mode that the model can be trained in, or for those alone that are asked for."""
    pictures = torch.randn(setting.batch, 3, setting.size, setting.size)
    blob = torch.zeros(setting.batch, 1, setting.size, setting.size)
    blob[..., : setting.size // 2, : setting.size // 3] = 1
    batch = {
        "pixel_values": pictures,
        "saliency": blob,
        "saliency_mask": torch.ones(setting.batch, dtype=torch.bool),
        "labels": torch.arange(setting.batch) % 10,
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    wanted = {name: value for name, value in MODES.items() if name in (*ALWAYS, *only)}
    if not setting.model.startswith("ViT"):
        wanted.pop("attention", None)
    if compiled:
        wanted |= {f"{name}, compiled": MODES[name] | {"torch_compile": True} for name in COMPILED}
    with tempfile.TemporaryDirectory() as folder:
        modes = {name: Mode(setting, settings, device, folder) for name, settings in wanted.items()}
        plain, others = modes["none"], [name for name in modes if name != "none"]
        plain.every = 2
        for mode in modes.values():
            for _ in range(2 if mode.every == 1 else 1):
                mode.steps(batch, device)
        seconds: dict[str, list[float]] = {name: [] for name in modes}
        ratios: dict[str, list[float]] = {name: [] for name in modes} | {"none": [1.0] * rounds}
        seconds["none"].append(plain.steps(batch, device))
        for _ in range(rounds):
            for name in others:
                seconds[name].append(modes[name].steps(batch, device))
                seconds["none"].append(plain.steps(batch, device))
                ratios[name].append(seconds[name][-1] / statistics.mean(seconds["none"][-2:]))
        peaks = {name: mode.peak(batch, device) for name, mode in modes.items()}
        whole = statistics.median(seconds["sage, concatenated"])
        own = own_share(modes["sage, concatenated"], batch, device, max(rounds, 5)) / whole
    rows = []
    for name in modes:
        ratio = round(statistics.median(ratios[name]), 3)
        row: dict[str, Any] = {"model": setting.model, "mode": name, "time_ratio": ratio}
        quartiles = statistics.quantiles(ratios[name], n=4, method="inclusive")[::2]
        row["time_ratio_quartiles"] = [round(value, 3) for value in quartiles]
        row["memory_ratio"] = round(peaks[name] / peaks["none"], 3)
        if name == "sage, concatenated":
            row["views_and_terms_share"] = round(own, 4)
        if device == "cuda":
            row["milliseconds"] = round(1000 * statistics.median(seconds[name]), 2)
            row["peak_mb"] = round(peaks[name] / 1e6)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| model | mode | time | peak memory |", "|---|---|---:|---:|"]
    lines += [
        f"| {row['model']} | {row['mode']} | {row['time_ratio']:.2f} | {row['memory_ratio']:.2f} |" for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=tuple(SETTINGS), default="cpu")
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, help="pictures a batch, in place of 32 on a CPU and 64 on a GPU")
    parser.add_argument("--compile", action="store_true", help="measure compiled modes too")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=tuple(MODES),
        default=tuple(MODES),
        metavar="MODE",
        help="these alone, and what they are compared with",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a try: small pictures, two rounds, ratios that say little"
    )
    parser.add_argument("--out", type=Path, help="file to write the JSON to")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(argv)
    transformers.logging.set_verbosity_error()
    rounds, settings = options.rounds, SETTINGS[options.device]
    if options.device == "cpu" and not options.quick:
        keep_freed_memory()
    if options.quick:
        rounds, settings = 2, tuple(Setting(one.model, 32, 2, one.bf16) for one in settings)
    if options.batch:
        settings = tuple(replace(one, batch=options.batch) for one in settings)
    asked = {"compiled": options.compile, "only": tuple(options.only)}
    rows = [row for setting in settings for row in measure(setting, options.device, rounds, **asked)]
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU"
    record = {
        "benchmark": "cost of a training step, relative to plain training",
        "versions": {one.__name__: one.__version__ for one in (sage_hf, torch, transformers)},
        "hardware": {"device": hardware, "threads": torch.get_num_threads()},
        "settings": [vars(setting) for setting in settings] + [{"rounds": rounds, "quick": options.quick}],
        "results": rows,
    }
    text = json.dumps(record, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text if options.json else table(rows))


if __name__ == "__main__":
    main()
