"""
What the benchmarks share: a plan of runs that goes on where it stopped, settings chosen on validation data, and tests.

A benchmark states its models, scenarios, methods and search space as a [`Study`], and a function that trains one model
and scores it; `main(study)` is then its command line:

    python training/benchmarks/NAME.py run [--model NAME] [--seeds 5] [--minutes 30] [--quick]
    python training/benchmarks/NAME.py report

`run` writes a JSON line for each run to `NAME/runs.jsonl` and repeats none that is there. `report` makes
`results.json`, `table.md` and `plot.svg` from the lines.

The rules are the same for all methods: the same trainer, batches and budget; as many settings to choose from, with
seeds of their own; the choice by the score `validation`; test data are read only with the settings chosen, by other
seeds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from study_record import matching
from torch import Tensor, nn

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.models import logits_of
from sage_hf.training_args import PRESETS

HERE = Path(__file__).parent
VALIDATION = "validation"
"""The score that settings are chosen by; higher is better."""
SAGE: dict[str, Any] = {
    "degradation": "shuffle",
    "distance": "cosine",
    "margin": 0.2,
    "triplet_weight": 1.0,
    "consistency": "positive",
    "divergence": "kl",
    "temperature": 1.0,
    "consistency_weight": 1.0,
    "saliency_dilation": 0.0,
}
"""The defaults of SAGE, written out, so that a record says what ran whatever they are later."""


def base_and_variant(method: str) -> tuple[str, str]:
    """`"sage"` and `"inverted"` of `"sage, inverted"`; no variant is an empty text."""
    base, _, variant = method.partition(", ")
    return base, variant


def settings_of(variant: str) -> dict[str, Any]:
    """What a variant changes: a preset by its name, or else a control in place of the maps."""
    if not variant:
        return {}
    return {"preset": variant} if variant in PRESETS else {"saliency_control": variant}


@dataclass(frozen=True)
class Run:
    """
    What tells one run from the others; together with its scores, a line of `runs.jsonl`.

    Args:
        stage (`str`): `"search"`, with scores on validation data alone, or `"test"`.
        model (`str`): which model.
        scenario (`str`): which form of the data.
        method (`str`): what guides. `"METHOD, VARIANT"` is a method, with the settings chosen for it, and with a
            control in place of the maps or with a preset.
        settings (`dict`): of the training arguments.
        seed (`int`): of data, weights and order.
        epochs (`int`): passes over the training data.
        quick (`bool`): a try that says nothing: few rows.
    """

    stage: str
    model: str
    scenario: str
    method: str
    settings: dict[str, Any]
    seed: int
    epochs: int
    quick: bool

    @property
    def base(self) -> str:
        """The method without its variant."""
        return base_and_variant(self.method)[0]


@dataclass(frozen=True)
class Model:
    """
    What the methods get for a model: as many settings each.

    Args:
        epochs (`int`): passes over the training data in every run.
        search (`Mapping[str, Sequence[dict]]`): the settings that each method chooses from.
        search_seeds (`tuple[int, ...]`): of the search; not among those of the tests, which count from 0.
    """

    epochs: int
    search: Mapping[str, Sequence[dict[str, Any]]]
    search_seeds: tuple[int, ...] = (1000,)

    def __post_init__(self) -> None:
        if len({len(settings) for settings in self.search.values()}) > 1:
            raise ValueError("Every method must search as many settings as the others.")


@dataclass(frozen=True)
class Block:
    """
    Methods to test with a model in a scenario. Blocks are done in their order: what matters most comes first.

    Args:
        model (`str`): which of the study's models.
        scenario (`str`): which form of the data.
        methods (`tuple[str, ...]`): see [`Run`].
        search_in (`str`, *optional*): the scenario that settings are searched in, if it is another one.
        seeds (`int`, *optional*, defaults to 0): of the tests at least, where a small difference is asked about.
    """

    model: str
    scenario: str
    methods: tuple[str, ...]
    search_in: str | None = None
    seeds: int = 0


@dataclass(frozen=True)
class Figure:
    """A score of the tests: the key that it has in a run, what it is called, and in which direction it is better."""

    key: str
    title: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Study:
    """
    A benchmark.

    Args:
        name (`str`): of its folder.
        title (`str`): for tables and plots.
        train (`Callable`): trains the model of a [`Run`] and returns its scores, in search runs `validation` alone.
        models (`Mapping[str, Model]`): by name.
        blocks (`tuple[Block, ...]`): what is tested.
        tables (`Mapping[str, tuple[Figure, ...]]`): by title; differences are those of the first figure.
        scenarios (`str`, *optional*, defaults to `"scenario"`): what tells the scenarios apart, for tables and plots.
        unharmed (`str`, *optional*): the method that a share of 1 means, as none is a share of 0.
        share (`str`, *optional*): what that share is called.
        published (`dict`, *optional*): figures of others, for the record.
        packages (`tuple[str, ...]`): whose versions are recorded beside those of the project.
    """

    name: str
    title: str
    train: Callable[[Run], dict[str, float]]
    models: Mapping[str, Model]
    blocks: tuple[Block, ...]
    tables: Mapping[str, tuple[Figure, ...]]
    scenarios: str = "scenario"
    unharmed: str | None = None
    share: str = "share of the damage undone"
    published: dict[str, Any] | None = None
    packages: tuple[str, ...] = ()

    def versions(self) -> dict[str, str]:
        """Versions of what computes the results."""
        names = ("sage_hf", "torch", "transformers", "numpy", *self.packages)
        return {name: importlib.metadata.version(name) for name in names}


class Runs:
    """Runs in a file of JSON lines, so that an interrupted benchmark goes on where it stopped."""

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[dict[str, Any]] = []
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
            try:
                self.lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}, is no JSON: {error}. Remove the line.") from error

    def find(self, **key: Any) -> list[dict[str, Any]]:
        """The runs of that key, in their order."""
        return matching(self.lines, key)

    def add(self, run: Run, **more: Any) -> None:
        """Append a run to the file."""
        line = asdict(run) | more
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


# ---- The plan ----


def search_runs(study: Study, block: Block, method: str, *, quick: bool) -> Iterator[Run]:
    """The runs that choose a method's settings."""
    model = study.models[block.model]
    scenario, epochs = block.search_in or block.scenario, 1 if quick else model.epochs
    base, _ = base_and_variant(method)
    for settings in model.search[base][: 1 if quick else None]:
        for seed in model.search_seeds[: 1 if quick else None]:
            yield Run("search", block.model, scenario, base, settings, seed, epochs, quick)


def chosen(study: Study, block: Block, method: str, runs: Runs, *, quick: bool) -> dict[str, Any] | None:
    """The settings with the highest mean on validation data, the first of equals; `None` while the search goes on."""
    scores: dict[str, list[float]] = {}
    for run in search_runs(study, block, method, quick=quick):
        found = runs.find(**asdict(run))
        if not found:
            return None
        scores.setdefault(json.dumps(run.settings), []).append(found[0]["scores"][VALIDATION])
    settings: dict[str, Any] = json.loads(max(scores, key=lambda one: sum(scores[one]) / len(scores[one])))
    _, variant = base_and_variant(method)
    return settings | settings_of(variant)


def final_runs(study: Study, block: Block, method: str, seeds: int, runs: Runs, *, quick: bool) -> list[Run]:
    """A method's test runs, one a seed; none while its settings are not chosen."""
    settings = chosen(study, block, method, runs, quick=quick)
    if settings is None:
        return []
    epochs = 1 if quick else study.models[block.model].epochs
    run = Run("test", block.model, block.scenario, method, settings, 0, epochs, quick)
    return [replace(run, seed=seed) for seed in range(seeds_of(block, seeds, quick=quick))]


def seeds_of(block: Block, seeds: int, *, quick: bool) -> int:
    """How many seeds a block is tested with, where so many were asked for."""
    return seeds if quick else max(seeds, block.seeds)


def blocks_of(study: Study, *, quick: bool, model: str | None = None) -> list[Block]:
    """The blocks of a model, or of all; of each model the first one for a quick try."""
    first = {block.model: block for block in reversed(study.blocks)}
    blocks = [first[name] for name in study.models if name in first] if quick else study.blocks
    return [block for block in blocks if model in (None, block.model)]


def plan(study: Study, seeds: int, runs: Runs, *, quick: bool, model: str | None = None) -> Iterator[Run]:
    """All runs in order: block by block, first the search, then seed by seed all methods."""
    for block in blocks_of(study, quick=quick, model=model):
        for method in block.methods:
            yield from search_runs(study, block, method, quick=quick)
        for seed in range(seeds_of(block, seeds, quick=quick)):
            for method in block.methods:
                yield final_runs(study, block, method, seeds, runs, quick=quick)[seed]


def run_all(
    study: Study, seeds: int, runs: Runs, *, quick: bool, model: str | None = None, minutes: float = math.inf
) -> bool:
    """Do the runs that are missing; whether all were done in time."""
    started = time.perf_counter()
    record = {"versions": study.versions(), "hardware": hardware()}
    for run in plan(study, seeds, runs, quick=quick, model=model):
        if runs.find(**asdict(run)):
            continue
        if time.perf_counter() - started > 60 * minutes:
            return False
        begun = time.perf_counter()
        scores = study.train(run)
        if run.stage == "search":
            # A search has no eyes for test data, whatever a benchmark returns.
            scores = {VALIDATION: scores[VALIDATION]}
        runs.add(run, scores=scores, seconds=round(time.perf_counter() - begun, 1), **record)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        print(run.stage, run.model, run.scenario, run.method, run.settings, f"seed {run.seed}: {figures}", flush=True)
    return True


def hardware() -> str:
    """What runs are computed on, in words."""
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        return torch.cuda.get_device_name() if device is not None and device.type == "cuda" else str(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {'one thread' if threads == 1 else f'{threads} threads'}"


# ---- Training ----


def fit(model: nn.Module, rows: Any, run: Run, **arguments: Any) -> None:
    """
    Train a model as a run says, without a trace on the disk or the screen.

    Args:
        model (`torch.nn.Module`): made after `set_seed(run.seed)`.
        rows (`Sequence[dict]` or `datasets.Dataset`): what [`SageTrainer`] takes as `train_dataset`.
        run ([`Run`]): the method, settings, seed and epochs.
        **arguments: more of [`SageTrainingArguments`]; the run's settings go before.
    """
    common: dict[str, Any] = {
        "guidance": run.base,
        "num_train_epochs": run.epochs,
        "seed": run.seed,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        args = SageTrainingArguments(output_dir=folder, **common | arguments | run.settings)
        trainer = SageTrainer(model, args, train_dataset=rows)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


def logits(model: nn.Module, pictures: Tensor, batch_size: int = 250) -> Tensor:
    """Logits (rows, labels), on the CPU, of pictures (rows, channels, height, width)."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return torch.cat([logits_of(model(part.to(device))).cpu() for part in pictures.split(batch_size)])


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit, of (rows, labels), is the label's, of (rows,)."""
    return float((predicted.argmax(dim=1) == labels).double().mean())


# ---- Command line ----


def main(study: Study, description: str | None, argv: list[str] | None = None) -> None:
    """Parse the arguments of a benchmark and do what they say."""
    from study_report import report

    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, prog=f"{study.name}.py"
    )
    folder = HERE / study.name
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--out", type=Path, default=folder, help="folder of the runs (default: %(default)s)")
    parser.add_argument("--model", choices=tuple(study.models), help="run this one alone (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="of the test runs (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the run that passes this time")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a try in seconds: one epoch, few rows, no search")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {options.seeds}.")
    if options.quick and options.out == folder:
        parser.error("--quick needs an --out of its own: its runs say nothing and don't belong to the others.")
    runs = Runs(options.out / "runs.jsonl")
    if options.command == "run":
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(options.threads)
        limits = {"model": options.model, "minutes": options.minutes}
        if not run_all(study, options.seeds, runs, quick=options.quick, **limits):
            print("Time is up. The same command goes on.")
            return
    print(report(study, options.out, runs, options.seeds, quick=options.quick))
