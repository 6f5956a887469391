"""A run and its data, small, with a class that is called like a script."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf.cli import main
from tests.conftest import SIZE, make_dataset, make_model

NAMES = ["healthy", "<script>alert(1)</script>", 'a "b" & c']
SPLITS = ["validation", "test"]


def make_runs(folder: Path) -> Path:
    """Two runs, `sage` and `none`, of the same `data`; `unknown` holds other pictures."""
    make_model("resnet").save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder / "model")
    splits = {"train": make_dataset(12, annotated=8), "validation": make_dataset(9), "test": make_dataset(6)}
    data = datasets.DatasetDict(splits).cast_column("label", datasets.ClassLabel(names=NAMES))
    data.save_to_disk(folder / "data")
    flat = [Image.fromarray(np.full((20, 20, 3), shade, np.uint8)) for shade in (0, 90, 180, 250)]
    datasets.Dataset.from_dict({"image": flat}, features=datasets.Features(image=datasets.Image())).save_to_disk(
        folder / "unknown"
    )
    for guidance in ("sage", "none"):
        code = main(
            [
                "train",
                *("--model", str(folder / "model"), "--dataset", str(folder / "data")),
                *("--output_dir", str(folder / guidance), "--guidance", guidance, "--num_train_epochs", "2"),
                *("--per_device_train_batch_size", "4", "--use_cpu", "--report_to", "none", "--json"),
                *("--eval_strategy", "epoch", "--logging_steps", "1", "--learning_rate", "0.01"),
                *("--bootstrap_resamples", "20", "--card_pictures", "2", "--saliency_alignment", "true"),
                *("--description", "Pictures of <b>noise</b>."),
            ]
        )
        assert code == 0
    return folder
