"""
Views of tokens in place of pixels, for ViTs: do they hold SAGE's gain at less cost?

    python training/benchmarks/token_views.py --out training/benchmarks/token_views.json [--seeds 5]

A view of pixels is a picture of its own: x, x+ and x- cost three passes. A view of tokens is a part of the tokens of
x, after the patch and position embeddings: x+ those in marked places, x- the others, so that both together cost a
pass over about as many tokens as x has. Compared are, in one training loop with the same weights, order and budget:

- none: cross entropy alone;
- pixels: views with `degradation="shuffle"`, as `SageTrainer` makes them;
- tokens, half / quarter: x+ and x- are a half, or a quarter, of the number of tokens of x each. Where there are more,
  some are drawn at random; where there are fewer, some stand there twice.

A token counts as marked if the mean of its map is above 0.99 on Decoy-MNIST, where everything but the square is marked
(lower, and the square itself would stay), and above 0.25 on the digits. Scores are those of the validation digits:
nothing here is part of the tests of the benchmarks.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import decoy_mnist
import digits_shortcut
import torch
import torch.nn.functional as F
import transformers
from study import accuracy, hardware, logits
from study_record import Record
from study_report import cell, interval
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from sage_hf.objectives import Encoding, SageObjective
from sage_hf.views import make_views

MODES = {"none": None, "pixels": 1.0, "tokens, half": 0.5, "tokens, quarter": 0.25}
"""Tokens of a view as a share of those of x."""
FIRST_SEED = 3000
BATCH = 32
Split = tuple[Tensor, Tensor, Tensor]
"""Pictures and maps (rows, channels, height, width), labels (rows,)."""


def decoy_data(seed: int) -> tuple[Split, list[Split]]:
    """Training digits of Decoy-MNIST, and what is scored: validation digits with random shades."""
    splits = decoy_mnist.load_digits(seed, test=False)
    return splits["train"], [splits["validation"]]


def digits_data(seed: int) -> tuple[Split, list[Split]]:
    """Training digits with a shortcut, and what is scored: validation digits, with colours as in training and not."""
    splits = digits_shortcut.load_digits(0.99, seed)

    def stacked(name: str) -> Split:
        rows = splits[name]
        pictures = torch.stack([row["pixel_values"] for row in rows])
        blank = torch.zeros_like(pictures[0, :1])
        maps = torch.stack([blank if row.get("saliency") is None else row["saliency"] for row in rows])
        return pictures, maps, torch.tensor([row["labels"] for row in rows])

    return stacked("train"), [stacked("validation"), stacked("shifted_validation")]


TASKS: dict[str, dict[str, Any]] = {
    "Decoy-MNIST": {
        "data": decoy_data,
        "model": decoy_mnist.make_model,
        "marked": 0.99,
        "epochs": 20,
        "learning_rate": 6e-3,
        "objective": SageObjective(consistency_weight=3.0),
    },
    "digits with a shortcut": {
        "data": digits_data,
        "model": digits_shortcut.make_model,
        "marked": 0.25,
        "epochs": 20,
        "learning_rate": 3e-3,
        "objective": SageObjective(consistency="uniform"),
    },
}
"""Weights and rates are those that the benchmarks' searches chose for SAGE with a ViT."""


def chosen_tokens(tokens: Tensor, kept: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """
    The class token and `count` of the kept tokens of each row; of all tokens, where none is kept.

    Args:
        tokens (`torch.Tensor`): (rows, 1 + tokens, dimension), the class token first.
        kept (`torch.Tensor`): (rows, tokens), booleans.
        count (`int`): how many to take.
        generator (`torch.Generator`): draws them.
    """
    kept = kept | ~kept.any(dim=1, keepdim=True)
    order = torch.where(kept, 0.0, 1.0).add(torch.rand(kept.shape, generator=generator)).argsort(dim=1)
    places = order.gather(1, torch.arange(count) % kept.sum(dim=1, keepdim=True))
    body = tokens[:, 1:].gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    return torch.cat([tokens[:, :1], body], dim=1)


def encode(model: nn.Module, tokens: Tensor) -> Encoding:
    """What a ViT makes of embedded tokens, (rows, tokens, dimension)."""
    for layer in model.vit.layers:  # type: ignore[union-attr]
        tokens = layer(tokens)
    embedding = model.vit.layernorm(tokens)[:, 0]  # type: ignore[operator, union-attr]
    return Encoding(model.classifier(embedding), embedding)  # type: ignore[operator]


def encodings(
    model: nn.Module, pictures: Tensor, maps: Tensor, share: float, marked: float, generator: torch.Generator
) -> list[Encoding]:
    """Encodings of x, x+ and x-, by views of pixels if the share is 1, else of tokens."""
    if share == 1:
        views = make_views(pictures, maps, "shuffle", generator=generator)
        whole = encode(model, model.vit.embeddings(torch.cat([pictures, *views])))  # type: ignore[operator, union-attr]
        return [Encoding(*parts) for parts in zip(*(values.split(len(pictures)) for values in whole), strict=True)]
    tokens = model.vit.embeddings(pictures)  # type: ignore[operator, union-attr]
    kept = F.avg_pool2d(maps, model.config.patch_size).flatten(1) > marked  # type: ignore[union-attr, arg-type]
    count = round(share * kept.shape[1])
    parts = torch.cat([chosen_tokens(tokens, which, count, generator) for which in (kept, ~kept)])
    both = encode(model, parts)
    return [
        encode(model, tokens),
        *(Encoding(*pair) for pair in zip(*(values.chunk(2) for values in both), strict=True)),
    ]


def train(task: dict[str, Any], mode: str, seed: int) -> tuple[float, float]:
    """The score on validation digits, the mean accuracy of what is scored; and the seconds of the training."""
    (pictures, maps, labels), scored = task["data"](seed)
    if len(pictures) % BATCH == 1:  # shuffling needs another picture
        pictures, maps, labels = pictures[:-1], maps[:-1], labels[:-1]
    torch.manual_seed(seed)
    model = task["model"]("vit").train()
    generator, objective, share = torch.Generator().manual_seed(seed), task["objective"], MODES[mode]
    optimizer = torch.optim.AdamW(model.parameters(), lr=task["learning_rate"])
    steps = task["epochs"] * math.ceil(len(pictures) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    for _ in range(task["epochs"]):
        for rows in torch.randperm(len(pictures), generator=order).split(BATCH):
            if share is None:
                loss = F.cross_entropy(model(pictures[rows]).logits, labels[rows])
            else:
                x, *views = encodings(model, pictures[rows], maps[rows], share, task["marked"], generator)
                terms = objective.terms(x, *views)
                loss = F.cross_entropy(x.logits, labels[rows])
                loss = loss + sum(weight * terms[name].mean() for name, weight in objective.weights.items())
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - started
    scores = [accuracy(logits(model, split_pictures), truth) for split_pictures, _, truth in scored]
    return sum(scores) / len(scores), seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSON file to write and go on from")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each mode (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a try: one epoch, which says nothing")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of what is there")
    options = parser.parse_args(argv)
    record = Record(options.out)
    if not options.table:
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(1)
        versions = {one.__name__: one.__version__ for one in (torch, transformers)}
        record.content |= {"hardware": hardware(), "versions": versions}
        keys = (
            {"task": name, "mode": mode, "seed": seed, "epochs": 1 if options.quick else task["epochs"]}
            for seed in range(FIRST_SEED, FIRST_SEED + options.seeds)
            for name, task in TASKS.items()
            for mode in MODES
        )
        for key in record.todo(keys):
            score, seconds = train(TASKS[key["task"]] | {"epochs": key["epochs"]}, key["mode"], key["seed"])
            record.add(key | {"score": score, "seconds": round(seconds, 2)})
            print(key["task"], key["mode"], key["seed"], round(score, 3), flush=True)
    print(table(record.runs))


def table(runs: list[dict[str, Any]]) -> str:
    """Means with 95 % intervals (Student's t), and the share of the gain of pixels, as Markdown."""
    lines = ["| digits | mode | seeds | validation accuracy | share of the gain |", "|---|---|---:|---:|---:|"]
    for name in TASKS:
        means: dict[str, float] = {}
        for mode in MODES:
            scores = [run["score"] for run in runs if (run["task"], run["mode"]) == (name, mode)]
            if not scores:
                continue
            means[mode] = sum(scores) / len(scores)
            gain = means.get("pixels", means[mode]) - means.get("none", means[mode])
            share = f"{(means[mode] - means['none']) / gain:.2f}" if gain and "none" in means else ""
            lines.append(f"| {name} | {mode} | {len(scores)} | {cell(interval(scores))} | {share} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
