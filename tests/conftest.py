"""Small models, pictures and datasets that the tests share."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

# Before the Hugging Face libraries read them: no test may reach the network, or see what another run has cached.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # which speaks to hosts of its own
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="sage-hf-tests-")
# Before torch reads it: tests that run at once share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before transformers looks for torchvision.
import tests.torchvision_operators  # noqa: F401  # isort: skip

import datasets
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import ConvNextConfig, ResNetConfig, ViTConfig
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import SageTrainingArguments

SIZE = 32
CLASSES = ["healthy", "rust", "miner"]


def make_model(kind: str, num_labels: int = 3) -> transformers.PreTrainedModel:
    """A tiny classifier without dropout, the same weights at each call."""
    torch.manual_seed(0)
    if kind == "vit":
        config = ViTConfig(
            image_size=SIZE,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.3,  # so that logits differ between pictures
            num_labels=num_labels,
        )
        return transformers.ViTForImageClassification(config)
    if kind == "convnext":
        config = ConvNextConfig(
            image_size=SIZE,
            patch_size=4,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_stages=2,
            layer_scale_init_value=1.0,
            num_labels=num_labels,
        )
        return transformers.ConvNextForImageClassification(config)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=num_labels
    )
    return transformers.ResNetForImageClassification(config)


@pytest.fixture(params=["vit", "convnext", "resnet"])
def model(request: pytest.FixtureRequest) -> transformers.PreTrainedModel:
    return make_model(request.param)


@pytest.fixture
def processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Four pictures in [-1, 1], two of them with a map."""
    generator = torch.Generator().manual_seed(1)
    saliency = torch.rand(4, 1, SIZE, SIZE, generator=generator)
    mask = torch.tensor([True, False, True, False])
    return {
        "pixel_values": torch.rand(4, 3, SIZE, SIZE, generator=generator) * 2 - 1,
        "saliency": saliency * mask.view(-1, 1, 1, 1),
        "saliency_mask": mask,
        "labels": torch.tensor([0, 2, 1, 0]),
    }


def make_args(folder: Path, **settings) -> SageTrainingArguments:
    """Arguments of a short run on the CPU that reports to nobody."""
    usual = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return SageTrainingArguments(output_dir=str(folder), **usual | settings)


def make_rows(count: int, size: tuple[int, int] = (48, 40), annotated: int | None = None) -> list[dict]:
    """Rows of noise with a marked rectangle, the first `annotated` of them (all, if not given) with a map."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(count):
        saliency = np.zeros((size[1], size[0]), dtype=np.uint8)
        saliency[5:20, 8:30] = 200
        image = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        marked = annotated is None or index < annotated
        rows.append(
            {
                "image": Image.fromarray(image),
                "saliency": Image.fromarray(saliency) if marked else None,
                "label": index % len(CLASSES),
            }
        )
    return rows


def make_dataset(count: int = 8, rows: list[dict] | None = None, split: str = "train", **kwargs) -> datasets.Dataset:
    """A raw dataset with the three columns of the contract."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": datasets.Image(mode="L"),
            "label": datasets.ClassLabel(names=CLASSES),
        }
    )
    rows = make_rows(count, **kwargs) if rows is None else rows
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features, split=datasets.NamedSplit(split))


@pytest.fixture
def dataset() -> datasets.Dataset:
    return make_dataset()


def load_script(name: str) -> ModuleType:
    """A script of `training/`, which is no package, as a module."""
    path = Path(__file__).parents[1] / "training" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Rows(torch.utils.data.Dataset):
    """Sixteen fixed rows; maps stand in the first half only, so that micro-batches hold four, two or no maps."""

    def __init__(self, annotated=tuple(range(6))):
        generator = torch.Generator().manual_seed(0)
        self.pictures = torch.randn(16, 3, 32, 32, generator=generator)
        self.maps = torch.rand(16, 1, 32, 32, generator=generator)
        self.annotated = annotated

    def __len__(self):
        return 16

    def __getitem__(self, index):
        saliency = self.maps[index] if index in self.annotated else None
        return {"pixel_values": self.pictures[index], "saliency": saliency, "labels": index % 3}


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sage-hf train` leaves, with and without guidance: for reading alone, see [`make_runs`]."""
    from tests.reporting.runs import make_runs

    return make_runs(tmp_path_factory.mktemp("finished"))
