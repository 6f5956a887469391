"""Every example of docs/models.md runs as it stands, with tiny checkpoints under the names that it uses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import transformers
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tests.conftest import make_dataset, make_rows
from tests.hub.server import hub

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
VIT = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
CHECKPOINTS = {
    "google/vit-base-patch16-224": ("ViTForImageClassification", VIT | {"num_labels": 10}),
    "facebook/deit-base-distilled-patch16-224": ("DeiTForImageClassificationWithTeacher", VIT | {"num_labels": 10}),
    "microsoft/resnet-50": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 10},
    ),
    "facebook/dinov2-small": ("Dinov2Model", VIT),
    "facebook/dinov3-vits16-pretrain-lvd1689m": ("DINOv3ViTModel", VIT),
    "openai/clip-vit-base-patch16": ("CLIPModel", {"vision_config": VIT, "text_config": VIT}),
    "google/siglip-base-patch16-224": ("SiglipModel", {"vision_config": VIT, "text_config": VIT}),
}
CLASSES = ["healthy", "rust", "miner"]


def push(dataset, root, name):
    for split in ("train", "validation"):
        file = root / "datasets" / name / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset.to_parquet(file)


def with_labels(feature, labels):
    rows = make_rows(len(labels))
    features = datasets.Features(image=datasets.Image(), saliency=datasets.Image(mode="L"), label=feature)
    columns = {"image": [row["image"] for row in rows], "saliency": [row["saliency"] for row in rows], "label": labels}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "hub"
    for name, (kind, settings) in CHECKPOINTS.items():
        model = getattr(transformers, kind)
        model(model.config_class(**settings)).save_pretrained(root / "models" / name)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(root / "models" / name)
    push(make_dataset(8), root, "you/lesions")
    several = datasets.List(datasets.ClassLabel(names=CLASSES))
    push(with_labels(several, [[0], [], [1, 2], [2]] * 2), root, "you/findings")
    push(with_labels(datasets.Value("float32"), [0.5, 1.0, -1.0, 0.2] * 2), root, "you/ages")
    return root


def test_every_example_runs(root, tmp_path):
    chosen = [block for block in BLOCKS if "timm/" not in block]
    assert len(chosen) == len(BLOCKS) - 1
    assert len(chosen) >= 12
    for name in re.findall(r'"((?:google|facebook|microsoft|openai)/[^"]+)"', PAGE):
        assert name in CHECKPOINTS, name
    work = tmp_path / "work"
    work.mkdir()
    # One process for all, as a reader would go down the page; a block that fails says which it is.
    lines = [f"print('block {index}', flush=True)\n{block}" for index, block in enumerate(chosen)]
    (work / "page.py").write_text("\n".join(lines))
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    with hub(root) as endpoint:
        environment |= {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        done = subprocess.run(
            [sys.executable, "page.py"],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    merged = transformers.AutoModelForImageClassification.from_pretrained(work / "vit-sage-merged")
    assert list(merged.config.id2label.values()) == CLASSES
    assert (work / "dinov3-vits16-pretrain-lvd1689m-sage" / "model.safetensors").is_file()
    assert (work / "own-sage" / "config.json").is_file()
