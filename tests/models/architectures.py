"""
Tiny configs of every image-classification architecture of transformers.

`python -m tests.models.architectures` tries each in a process of its own and writes what works into
`sage_hf/architectures.json`, which `sage-hf models` prints, and into the tables of the README and of docs/models.md.
timm's models need timm: `PYTHONPATH=.venv/torchvision` has it, beside torchvision.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Before transformers looks for torchvision.
import tests.torchvision_operators  # noqa: F401  # isort: skip

import torch
import transformers
from transformers import AutoModelForImageClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.cli.models import TABLE, markdown_table

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "models.md")
"""Where the table is shown, between two markers."""
START, END = "<!-- architectures -->", "<!-- /architectures -->"

CLASSES = {
    kind: (names,) if isinstance(names, str) else names
    for kind, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
}
"""Names of the classes of each entry in the auto mapping."""

VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TWO_STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
FOUR_STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
# Perceiver's classes fix in their code how wide their inputs are: 3 heads divide the 261 channels of one of them.
PERCEIVER = {
    "image_size": 32,
    "num_latents": 4,
    "d_latents": 9,
    "d_model": 322,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "beit": VIT,
    "bit": {"embedding_size": 8, "num_groups": 2, **TWO_STAGES},
    "clip": {"vision_config": VIT},
    "convnext": {"num_stages": 2, **TWO_STAGES},
    "convnextv2": {"num_stages": 2, **TWO_STAGES},
    "cvt": {"embed_dim": [8, 16, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "data2vec-vision": VIT,
    "deit": VIT,
    "dinat": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
    "dinov2": VIT,
    "dinov2_with_registers": VIT,
    "donut-swin": SWIN,
    "efficientnet": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128, "image_size": 32},
    "focalnet": {"image_size": 32, "embed_dim": 8, "focal_levels": [1, 1], "focal_windows": [3, 3], **TWO_STAGES},
    "hgnet_v2": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 16, 16],
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 8, 16, 16],
        "stage_mid_channels": [4, 4, 8, 8],
        "stage_out_channels": [8, 16, 16, 16],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
    },
    "hiera": {
        "embed_dim": 8,
        "image_size": [32, 32],
        "patch_size": [3, 3],
        "patch_stride": [2, 2],
        "patch_padding": [1, 1],
        "depths": [1, 1],
        "num_heads": [1, 2],
        "num_query_pool": 1,
        "query_stride": [2, 2],
        "masked_unit_size": [4, 4],
    },
    "ijepa": VIT,
    "imagegpt": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "levit": {
        "image_size": 32,
        "hidden_sizes": [16, 32, 48],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [4, 4, 4],
        "mlp_ratio": [1, 1, 1],
        "attention_ratio": [1, 1, 1],
    },
    "metaclip_2": {"vision_config": VIT},
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 32},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 32},
    "mobilevit": {"image_size": 32, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]},
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.25},
    "perceiver": PERCEIVER,
    "poolformer": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "pp_lcnet": {"scale": 0.25, "class_expand": 16},
    "pvt": {"image_size": 32, "sequence_reduction_ratios": [8, 4, 2, 1], **FOUR_STAGES},
    "pvt_v2": {"image_size": 32, "mlp_ratios": [2, 2, 2, 2], **FOUR_STAGES},
    "regnet": {"embedding_size": 8, "groups_width": 4, **TWO_STAGES},
    "resnet": {"embedding_size": 8, "layer_type": "basic", **TWO_STAGES},
    "segformer": {"decoder_hidden_size": 8, **FOUR_STAGES},
    "shieldgemma2": {
        "text_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "vocab_size": 128,
        },
        "vision_config": VIT,
    },
    "siglip": {"vision_config": VIT},
    "siglip2": {"vision_config": VIT},
    "swiftformer": {"image_size": 32, "embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "mlp_ratio": 1},
    "swin": SWIN,
    "swinv2": SWIN,
    "textnet": {
        "stem_out_channels": 8,
        "hidden_sizes": [8, 8, 8, 8, 8],
        "conv_layer_kernel_sizes": [[[3, 3]]] * 4,
        "conv_layer_strides": [[2]] * 4,
    },
    "timm_wrapper": {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2},
    },
    "vit": VIT,
    "vit_msn": VIT,
}
SIZES = {"mobilevitv2": 64}
"""Pictures of other than 32 pixels."""


def make_classifier(kind: str, class_name: str) -> PreTrainedModel:
    """A tiny classifier with three classes."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**CONFIGS[kind], num_labels=3)
    return getattr(transformers, class_name)(config)


class Pictures(torch.utils.data.Dataset):
    """Four fixed pictures, three of them with a map."""

    def __init__(self, size: int):
        generator = torch.Generator().manual_seed(0)
        self.pictures = torch.randn(4, 3, size, size, generator=generator)
        self.maps = torch.rand(4, 1, size, size, generator=generator)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        saliency = self.maps[index] if index else None
        return {"pixel_values": self.pictures[index], "saliency": saliency, "labels": index % 3}


def train_save_reload(kind: str, class_name: str, folder: Path) -> None:
    """
    Three steps of SAGE, then the checkpoint's logits against those of the model in memory.

    Raises:
        `AssertionError`: a term that never was computed, weights that did not move, or other logits after reloading.
    """
    model = make_classifier(kind, class_name)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    pictures = Pictures(SIZES.get(kind, 32))
    args = SageTrainingArguments(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SageTrainer(model, args, train_dataset=pictures)
    trainer.train()
    logs = trainer.state.log_history
    for name in ("loss", "cross_entropy", "triplet", "consistency"):
        assert sum(name in entry for entry in logs) == 3, f"{name} was not logged at every step"
    assert any(not torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True)), (
        "no weight moved"
    )

    trainer.save_model()
    # The auto class takes the first class of an entry; the others are loaded by their own name.
    loader = AutoModelForImageClassification if class_name == CLASSES[kind][0] else type(model)
    reloaded = loader.from_pretrained(folder)
    with torch.no_grad():
        expected = model.eval()(pixel_values=pictures.pictures)
        found = reloaded.eval()(pixel_values=pictures.pictures)
    for one, other in zip(expected.to_tuple(), found.to_tuple(), strict=True):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(other, one)


def outcome(kind: str) -> dict[str, Any]:
    """Whether every class of an architecture trains, and the error that a user gets if not."""
    try:
        for class_name in CLASSES[kind]:
            with tempfile.TemporaryDirectory() as folder:
                train_save_reload(kind, class_name, Path(folder) / "run")
    except (ValueError, ImportError) as error:
        first_sentence = re.split(r"(?<=\.)\s", str(error).strip())[0]
        return {"architecture": kind, "works": False, "reason": " ".join(first_sentence.split())}
    return {"architecture": kind, "works": True, "reason": None}


def main() -> None:
    """Try every architecture, or print the outcome of the one that is named."""
    if len(sys.argv) > 1:
        print(json.dumps(outcome(sys.argv[1])))
        return
    rows = []
    for kind in CLASSES:
        command = [sys.executable, "-m", "tests.models.architectures", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{kind}: {done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1])
    TABLE.write_text(json.dumps(rows, indent=2) + "\n")
    for page in PAGES:
        before, _, rest = page.read_text().partition(START)
        page.write_text(f"{before}{START}\n\n{markdown_table(rows)}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
