"""
Coffee leaf diseases from pretrained networks: does guidance help on real pictures, and where?

    training/coffee_leaf.sh DIR 0                          # makes dataset and checkpoints, see there
    python training/benchmarks/coffee_leaf.py run          # resumable: a JSON line a run, none repeated
    python training/benchmarks/coffee_leaf.py report       # results.json, table.md and plot.svg from the lines

490 leaves of five classes; maps are hand-drawn lesions, which healthy leaves don't have. Training pictures are those
of the data's own training split, the test is its own test split, 49 pictures, the same for every seed. Scenarios:

- "25 %", "10 %": so many of the training pictures, drawn by the seed, of each class alike; "full": all 392;
- "25 % of the maps": all pictures, and the maps of a quarter of them; healthy leaves, where there is nothing to mark,
  have blank ones in every scenario;
- "unknown disease": 25 % of the training pictures of four classes; the fifth, a disease that the seed names, is
  unknown, and all of its pictures, which no training saw, are test pictures.

Figures: macro F1 and accuracy on test pictures, and the share of healthy ones that are found healthy; accuracy on
diseased test pictures whose unmarked region is replaced by that of a healthy test leaf, three for each; AUROC and
FPR95 of known test pictures against the unknown disease.

Settings are searched at 25 %, three for each method, and used in all scenarios (with DINOv2, for few maps, they are
searched with few). They are chosen by the mean of macro
F1 and the accuracy with replaced regions on the pictures of the training and validation splits that the search did not
train on: about 340, so the choice is not left to chance.

EfficientNet-Lite0 sees 96 pixels a side; DINOv2-small, a ViT, 112, and trains in bfloat16. The first 11 of the 16
blocks of the one and 8 of the 12 of the other are frozen, for all methods alike: half the cost.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import f1_score
from study import Block, Figure, Model, Run, Study, accuracy, fit, logits, main
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    Dinov2ForImageClassification,
    EfficientNetForImageClassification,
    set_seed,
)

from sage_hf import AlignedTransform
from sage_hf.data import load_saliency_dataset
from sage_hf.evaluation import OpenSet
from sage_hf.views import grow_marks

OUTPUTS = Path(__file__).parents[2] / "outputs" / "coffee_leaf"
MODEL = "efficientnet-lite0"
DINOV2 = "dinov2-small"
HEALTHY = "healthy"
BACKGROUNDS = 3
"""Healthy leaves that each diseased one is put on in a test; in a search, which has many more pictures, it is one."""
PASTED = 0.06
"""Marks are grown by this share of the picture's side before they are pasted; training grows them less, if at all."""
BACKGROUND_SEED = 2018
FEW_MAPS = "25 % of the maps"
FEW_MAPS_SEARCH = "25 % of the maps of 75 %"
"""Where settings for few maps are searched: with fewer pictures, that some are left to choose by."""
SHARES = {"full": 1.0, FEW_MAPS: 1.0, FEW_MAPS_SEARCH: 0.75, "25 %": 0.25, "unknown disease": 0.25, "10 %": 0.1}
"""Of the training pictures."""
EPOCHS = {"full": 0.5, FEW_MAPS: 0.5, FEW_MAPS_SEARCH: 0.5, "10 %": 1.5}
"""Of the study's epochs: fewer passes over more pictures. 1 where a scenario is not named."""
TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
}
# Half the time of float32 on a CPU with AMX; Trainer wants to hear that it is a CPU that it is for.
PRECISION: dict[str, dict[str, Any]] = {DINOV2: {"bf16": True, "use_cpu": not torch.accelerator.is_available()}}
"""What a model trains with beside `TRAINING`."""
AUGMENTATION: dict[str, Any] = {"random_crop_scale": 0.5, "horizontal_flip": 0.5, "color_jitter": 0.2}
Row = dict[str, Any]


@dataclass(frozen=True)
class Leaves:
    """The dataset by split, its class names, and the checkpoint to start from."""

    splits: dict[str, list[Row]]
    names: list[str]
    checkpoint: str
    transform: AlignedTransform
    augmenting: AlignedTransform

    @property
    def diseases(self) -> list[int]:
        """The classes that can be marked."""
        return [index for index, name in enumerate(self.names) if name != HEALTHY]


@cache
def load_leaves(data: str, checkpoint: str) -> Leaves:
    """
    Read all pictures into memory.

    Args:
        data (`str`): what `sage-hf data build` made, with the splits train, validation and test.
        checkpoint (`str`): an EfficientNet with its image processor.
    """
    splits = load_saliency_dataset(data)
    names = list(splits["train"].features["label"].names)
    if HEALTHY not in names:
        raise ValueError(f"{data!r} has the classes {', '.join(names)}, and none of them is {HEALTHY!r}.")
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    return Leaves(
        {name: list(splits[name]) for name in ("train", "validation", "test")},
        names,
        checkpoint,
        AlignedTransform(processor),
        AlignedTransform(processor, **AUGMENTATION),
    )


class Augmented(torch.utils.data.Dataset[Row]):
    """Training pictures. A row's n-th picture is the same whatever guides, and whatever else draws random numbers."""

    def __init__(self, rows: list[Row], transform: AlignedTransform, seed: int):
        self.rows, self.transform, self.seed = rows, transform, seed
        self.drawn = [0] * len(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        generator = np.random.default_rng((self.seed, index, self.drawn[index]))
        self.drawn[index] += 1
        return self.transform(self.rows[index], generator)


def draw(rows: list[Row], share: float, generator: np.random.Generator) -> list[int]:
    """Indices of a share of the rows, of each class alike, two at least, in their order."""
    labels = np.array([row["label"] for row in rows])
    drawn: list[int] = []
    for label in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == label))
        drawn.extend(own[: max(2, round(share * len(own)))].tolist())
    return sorted(drawn)


@dataclass
class Split:
    """What a run trains on, and what it is scored on."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    unknown: list[Row]
    """Pictures of the unknown disease, if there is one."""
    healthy: int
    """The label that is not marked."""


def split_leaves(leaves: Leaves, run: Run) -> Split:
    """
    The pictures of a run. Labels count the known classes, in the order of their names.

    Args:
        leaves ([`Leaves`]): all pictures.
        run ([`Run`]): its scenario and seed.
    """
    generator = np.random.default_rng(run.seed)
    names = list(range(len(leaves.names)))
    unknown: list[Row] = []
    splits = leaves.splits
    if run.scenario == "unknown disease":
        held_out = leaves.diseases[run.seed % len(leaves.diseases)]
        names.remove(held_out)
        unknown = [row for rows in splits.values() for row in rows if row["label"] == held_out]
    known = {
        split: [row | {"label": names.index(row["label"])} for row in rows if row["label"] in names]
        for split, rows in splits.items()
    }
    chosen = draw(known["train"], SHARES[run.scenario], generator)
    train = [known["train"][index] for index in chosen]
    rest = [row for index, row in enumerate(known["train"]) if index not in set(chosen)]
    healthy = names.index(leaves.names.index(HEALTHY))
    if run.scenario in (FEW_MAPS, FEW_MAPS_SEARCH):
        kept = set(draw(train, 0.25, generator))
        train = [row if index in kept else row | {"saliency": None} for index, row in enumerate(train)]
    # Of a healthy leaf it is known that there is nothing to mark, and a blank map says so.
    blank = [
        row | {"saliency": Image.new("L", row["image"].size)} if row["label"] == healthy else row for row in train
    ]
    return Split(blank, rest + known["validation"], known["test"], unknown, healthy)


def tensors(rows: list[Row], transform: AlignedTransform) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (rows, 3, height, width), maps (rows, 1, height, width), blank where there is none, labels (rows,)."""
    done = [transform(row) for row in rows]
    pictures = torch.stack([row["pixel_values"] for row in done])
    blank = torch.zeros_like(pictures[0, :1])
    maps = torch.stack([blank if row["saliency"] is None else row["saliency"] for row in done])
    return pictures, maps, torch.tensor([row["labels"] for row in done])


def replaced(pictures: Tensor, maps: Tensor, labels: Tensor, healthy: int, backgrounds: int) -> tuple[Tensor, Tensor]:
    """
    Each marked picture with its unmarked region replaced by that of healthy leaves.

    Args:
        pictures (`torch.Tensor`): (rows, 3, height, width).
        maps (`torch.Tensor`): (rows, 1, height, width), in [0, 1].
        labels (`torch.Tensor`): (rows,).
        healthy (`int`): the class that backgrounds are taken from.
        backgrounds (`int`): how many a picture is put on.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: pictures, as many for each that is marked, and their labels.
    """
    marked = (maps.flatten(1).amax(dim=1) > 0).nonzero().squeeze(1).repeat(backgrounds)
    healthy_rows = (labels == healthy).nonzero().squeeze(1)
    drawn = torch.from_numpy(np.random.default_rng(BACKGROUND_SEED).integers(len(healthy_rows), size=len(marked)))
    pasted = torch.lerp(pictures[healthy_rows[drawn]], pictures[marked], grow_marks(maps[marked], PASTED))
    return pasted, labels[marked]


class PartlyFrozenEfficientNet(EfficientNetForImageClassification):
    """Its first blocks keep their running statistics in training as well."""

    @property
    def frozen(self) -> list[nn.Module]:
        """What comes before the blocks that train, and the gates, which are 1 in a Lite network."""
        body = self.efficientnet
        gates = [block.squeeze_excite for block in body.encoder.blocks]
        return [body.embeddings, *body.encoder.blocks[:11], *gates]

    def train(self, mode: bool = True) -> PartlyFrozenEfficientNet:
        super().train(mode)
        for part in self.frozen if hasattr(self, "efficientnet") else []:
            part.eval()
        return self


class PartlyFrozenDinov2(Dinov2ForImageClassification):
    """Without dropout and running statistics, so that its first layers need no more than to be frozen."""

    @property
    def frozen(self) -> list[nn.Module]:
        """What comes before the layers that train."""
        return [self.dinov2.embeddings, *self.dinov2.encoder.layer[:8]]


ARCHITECTURES = {"efficientnet": PartlyFrozenEfficientNet, "dinov2": PartlyFrozenDinov2}
"""By the `model_type` of a checkpoint."""


NEED_EAGER = ("attention", "gradient")
"""Methods that read attention, or differentiate through it twice, which other kernels can't."""


def make_model(checkpoint: str, classes: int, method: str = "none") -> nn.Module:
    """The pretrained network with a new head, and with its first blocks frozen."""
    architecture = ARCHITECTURES[AutoConfig.from_pretrained(checkpoint).model_type]
    kernel = "eager" if method in NEED_EAGER else None
    model = architecture.from_pretrained(
        checkpoint, num_labels=classes, ignore_mismatched_sizes=True, attn_implementation=kernel
    )
    # After loading, which makes new parameters.
    for part in model.frozen:
        part.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_model(leaves: Leaves, run: Run, split: Split) -> nn.Module:
    """A model trained as a run says on its training pictures."""
    set_seed(run.seed)
    model = make_model(leaves.checkpoint, len({row["label"] for row in split.train}), run.base)
    epochs = 1 if run.quick else round(run.epochs * EPOCHS.get(run.scenario, 1))
    rows = Augmented(split.train, leaves.augmenting, run.seed)
    fit(model, rows, replace(run, epochs=epochs), **TRAINING, **PRECISION.get(run.model, {}))
    return model


def score(
    leaves: Leaves, model: nn.Module, rows: list[Row], healthy: int, backgrounds: int
) -> tuple[dict[str, float], Tensor]:
    """
    What a model makes of pictures of known classes.

    Args:
        leaves ([`Leaves`]): how pictures are read.
        model (`torch.nn.Module`): as [`train_model`] returned it.
        rows (`list[dict]`): the pictures.
        healthy (`int`): the class that is not marked.
        backgrounds (`int`): see [`replaced`].

    Returns:
        `tuple[dict[str, float], torch.Tensor]`: `macro_f1`, `accuracy`, `healthy` (share of the healthy leaves that
        are found to be) and `replaced`; and the logits of the pictures.
    """
    pictures, maps, labels = tensors(rows, leaves.transform)
    predicted = logits(model, pictures, batch_size=64)
    others, their_labels = replaced(pictures, maps, labels, healthy, backgrounds)
    scores = {
        "macro_f1": float(f1_score(labels, predicted.argmax(dim=1), average="macro", zero_division=0)),
        "accuracy": accuracy(predicted, labels),
        "healthy": accuracy(predicted[labels == healthy], labels[labels == healthy]),
        "replaced": accuracy(logits(model, others, batch_size=64), their_labels),
    }
    return scores, predicted


def train_and_score(leaves: Leaves, run: Run) -> dict[str, float]:
    """Train one model; its score on validation pictures or, in a test, all figures on test pictures."""
    split = split_leaves(leaves, run)
    model = train_model(leaves, run, split)
    if run.stage == "search":
        scores, _ = score(leaves, model, split.validation, split.healthy, 1)
        return {"validation": (scores["macro_f1"] + scores["replaced"]) / 2}
    scores, predicted = score(leaves, model, split.test, split.healthy, BACKGROUNDS)
    if split.unknown:
        new = [row | {"label": 0} for row in split.unknown]
        both = torch.cat([predicted, logits(model, tensors(new, leaves.transform)[0], batch_size=64)])
        references = [row["label"] for row in split.test] + [-1] * len(new)
        figures = OpenSet(keep_in_memory=True).compute(predictions=both.numpy(), references=references)
        scores |= {name: value for name, value in figures.items() if name.endswith(("auroc", "at_95_tpr"))}
    return scores


# ---- The study ----

GROWN = {"degradation": "background", "saliency_dilation": 0.04}
LIGHT = GROWN | {"triplet_weight": 0.3, "consistency_weight": 0.5}
SEARCH: dict[str, list[dict[str, Any]]] = {
    "augment": [{"guidance_weight": 0.3}, GROWN | {"guidance_weight": 0.3}, GROWN],
    "cyborg": [{"guidance_weight": weight} for weight in (0.3, 1.0, 3.0)],
    # Tried first: 0.1, 1 and 10. At 0.1 it was below none on the search's pictures, and at 1 further.
    "gradient": [{"guidance_weight": weight} for weight in (0.001, 0.01, 0.1)],
    # The defaults; without the evidence of others; and with less weight, that the task keeps its own.
    "sage": [{}, GROWN, LIGHT],
}
# Three as well. The defaults were the worst of three with either model.
DINOV2_SEARCH = SEARCH | {
    "sage": [GROWN, LIGHT, GROWN | {"triplet_weight": 0.1, "consistency_weight": 0.2}],
    "attention": [{"guidance_weight": weight} for weight in (1.0, 3.0, 10.0)],
}
LEARNING_RATES = {MODEL: (5e-4, 1e-3, 2e-3), DINOV2: (1e-4, 2e-4, 4e-4)}
"""Those that none searches; guidance gets the one in the middle, and searches its own settings."""
MAIN = ("none", "sage", "augment")
CONTROLS = tuple(f"sage, {control}" for control in ("inverted", "shuffled", "center_gaussian", "random_blobs"))


def _model(name: str) -> Model:
    _, usual, _ = rates = LEARNING_RATES[name]
    search = DINOV2_SEARCH if name == DINOV2 else SEARCH
    guided = {method: [{"learning_rate": usual} | one for one in settings] for method, settings in search.items()}
    return Model(
        epochs=20,
        search_seeds=(1000, 1001),
        search={"none": [{"learning_rate": rate} for rate in rates], **guided},
    )


def _blocks(*methods: str, model: str = MODEL, scenarios: tuple[str, ...] = ("25 %",)) -> list[Block]:
    return [Block(model, scenario, methods, search_in="25 %") for scenario in scenarios]


def make_study(data: str, checkpoints: str) -> Study:
    """The benchmark on a dataset, from a folder of checkpoints by the names of the models; see [`load_leaves`]."""
    return Study(
        name="coffee_leaf",
        title="Coffee leaf diseases",
        train=lambda run: train_and_score(load_leaves(data, str(Path(checkpoints) / run.model)), run),
        models={name: _model(name) for name in LEARNING_RATES},
        blocks=(
            *_blocks(*MAIN, scenarios=("25 %", "full", "10 %", "unknown disease", FEW_MAPS)),
            *_blocks(*CONTROLS),
            *_blocks("cyborg"),
            *_blocks("gradient"),
            *_blocks("cyborg", scenarios=("10 %", "unknown disease", "full", FEW_MAPS)),
            *_blocks("gradient", scenarios=("10 %", "unknown disease", "full", FEW_MAPS)),
            *_blocks(*MAIN, model=DINOV2, scenarios=("25 %", "10 %", "unknown disease", "full")),
            Block(DINOV2, FEW_MAPS, MAIN, search_in=FEW_MAPS_SEARCH),
            *_blocks("cyborg", model=DINOV2),
            *_blocks("attention", model=DINOV2),
        ),
        tables={
            "As photographed": (Figure("macro_f1", "macro F1"), Figure("accuracy", "accuracy")),
            "Healthy leaves": (Figure("healthy", "share found healthy"),),
            "Unmarked region replaced": (Figure("replaced", "accuracy"),),
            "Open set": (
                Figure("energy_auroc", "AUROC, energy"),
                Figure("energy_fpr_at_95_tpr", "FPR95, energy", higher_is_better=False),
                Figure("msp_auroc", "AUROC, MSP"),
                Figure("msp_fpr_at_95_tpr", "FPR95, MSP", higher_is_better=False),
            ),
        },
        packages=("scikit-learn",),
    )


def run_main(argv: list[str] | None = None) -> None:
    """Read where data and checkpoint are; the rest is [`study.main`]'s."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", default=str(OUTPUTS / "data"))
    parser.add_argument("--checkpoints", default=str(OUTPUTS))
    options, rest = parser.parse_known_args(argv)
    more = "\n  --data DIR         the dataset\n  --checkpoints DIR  the folder of the pretrained networks"
    main(make_study(options.data, options.checkpoints), f"{__doc__}{more}", rest)


if __name__ == "__main__":
    run_main()
