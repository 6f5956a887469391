"""Where a classifier looks: class activation maps and input gradients, of any architecture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..features import last_features, layer_outputs, undisturbed
from ..forwarding import Encoder

METHODS = ("cam", "gradient")


def model_saliency(
    model: nn.Module,
    pixel_values: Tensor,
    targets: Tensor | None = None,
    method: str = "cam",
    *,
    interpolate_pos_encoding: bool = False,
) -> Tensor:
    """
    Where a classifier looks when it gives pictures the logit of a class.

    - `"cam"` is Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of the model's last features that still have a
      place in the picture: `relu(sum_c a_c A_c)`, with `a_c` the mean over places of the gradient of the logit with
      respect to `A_c`. With global average pooling and a linear head it is the class activation map of Zhou et al.
      2016, without what is negative. It is scaled up bilinearly.
    - `"gradient"` is the magnitude of the logit's gradient with respect to the pixels (Simonyan et al. 2014), summed
      over channels.

    No architecture is named anywhere: the features are the latest output of a layer that lies on every way from the
    pixels to the logits, is laid out as (rows, channels, h, w), (rows, h, w, channels) or (rows, tokens, channels)
    over a grid of the picture's aspect ratio, 2 places or more, perhaps after a class token, distilled tokens or
    registers, and whose gradient is not confined to those. In a ViT that classifies by its class token, this is what
    enters the last block.

    Args:
        model (`torch.nn.Module`): as for [`SageTrainer`]. It runs in evaluation mode, and is left as it was found:
            modes, gradients, hooks and the random state.
        pixel_values (`torch.Tensor`): (rows, channels, height, width), normalised.
        targets (`torch.Tensor`, *optional*): whose logit, (rows,) of indices; the largest logit's if not given.
        method (`str`, *optional*, defaults to `"cam"`): `"cam"` or `"gradient"`.
        interpolate_pos_encoding (`bool`, *optional*, defaults to `False`): ask the model to fit its position encodings
            to the size of the pictures.

    Returns:
        `torch.Tensor`: (rows, height, width), float32 in [0, 1], on the device of the pictures. The largest value of a
        row is 1; a row that nothing speaks for is zero everywhere. Rows don't depend on each other.

    Raises:
        `ValueError`: an unknown method; targets that are no indices of logits; for `"cam"`, a model without such
            features.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.evaluation import model_saliency
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> config = ViTConfig(
    ...     image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
    ... )
    >>> where = model_saliency(ViTForImageClassification(config), torch.rand(2, 3, 32, 32))
    >>> where.shape, where.amax(dim=(1, 2))
    (torch.Size([2, 32, 32]), tensor([1., 1.]))

    ```
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}. Choose one of {', '.join(METHODS)}.")
    model = getattr(model, "_orig_mod", model)  # what torch.compile makes of a model runs without new hooks
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(model):
        dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), pixel_values.dtype)
        pictures = pixel_values.detach().to(dtype, copy=True).requires_grad_()
        encoder = Encoder(model, interpolate_pos_encoding=interpolate_pos_encoding)
        with layer_outputs(model) as outputs:
            logits = encoder.logits(model, {"pixel_values": pictures})
        logit = logits.gather(1, _checked(targets, logits).unsqueeze(1)).sum()
        if method == "gradient":
            (gradient,) = torch.autograd.grad(logit, pictures)
            found = gradient.float().abs().sum(dim=1)
        else:
            last = last_features(logit, pictures, outputs)
            if last is None:
                raise ValueError(
                    f"{type(model).__name__} has no features with a place in the picture that its logits depend on, "
                    "so there is no class activation map. Use method='gradient'."
                )
            (features, *_), grid = last
            (gradient,) = torch.autograd.grad(logit, features)
            found = _grad_cam(grid.maps(features.detach().float()), grid.maps(gradient.float()), pictures.shape[-2:])
        largest = found.amax(dim=(1, 2), keepdim=True)
        return torch.where(largest > 0, found / largest, torch.zeros_like(found)).detach()


def _checked(targets: Tensor | None, logits: Tensor) -> Tensor:
    if targets is None:
        return logits.argmax(dim=1)
    rows, classes = logits.shape
    if targets.shape != (rows,) or targets.is_floating_point() or not 0 <= targets.min() <= targets.max() < classes:
        raise ValueError(
            f"targets should hold {rows} class indices in [0, {classes - 1}], got shape {tuple(targets.shape)} of "
            f"{targets.dtype}, values {targets.flatten()[:8].tolist()}."
        )
    return targets.to(logits.device, torch.int64)


def _grad_cam(activations: Tensor, gradients: Tensor, size: torch.Size) -> Tensor:
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    cam = (weights * activations).sum(dim=1, keepdim=True).relu()
    return F.interpolate(cam, size, mode="bilinear", align_corners=False).squeeze(1)
