"""The configuration page: every field of `SageTrainingArguments`, from its docstring and its defaults."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import griffe

from .docstrings import HuggingFaceDocstrings
from .names import load_package

LEAD = """\
# Configuration

A run is configured by [`SageTrainingArguments`][sage_hf.training_args.SageTrainingArguments]: every argument of
transformers' `TrainingArguments` (learning rate, epochs, precision, logging, pushing, ...) and those below. The same
name is an argument in Python, a key of the YAML file that `sage-hf train --config run.yaml` reads, and a flag; flags
win over the file. This page is made from the class itself.

```yaml
# run.yaml
model: facebook/convnextv2-tiny-1k-224
dataset: you/lesions
output_dir: lesions-sage
guidance: sage
degradation: shuffle
consistency_weight: 1.0
horizontal_flip: 0.5
```

A setting that the chosen guidance does not read is refused, so that none is believed to work that doesn't;
`guidance: none` takes them all, because a baseline should be one change away.
"""

GROUPS: dict[str, tuple[str, ...]] = {
    "Guidance": (
        "guidance",
        "guidance_weight",
        "degradation",
        "distance",
        "margin",
        "triplet_weight",
        "consistency",
        "divergence",
        "temperature",
        "consistency_weight",
        "preset",
        "guidance_one_in",
        "substitution",
        "guidance_interval",
        "saliency_control",
        "view_forward",
    ),
    "Model": ("embedding_layer", "freeze_backbone", "class_weights", "interpolate_pos_encoding"),
    "Data": (
        "image_column",
        "saliency_column",
        "label_column",
        "annotators",
        "unmarked_classes",
        "random_crop_scale",
        "horizontal_flip",
        "color_jitter",
        "shuffle_buffer_size",
        "check_rows",
        "on_error",
    ),
}
OTHERS = "More"
"""Where a field stands that no group names."""


def own_fields() -> dict[str, Any]:
    """The fields that `SageTrainingArguments` adds, by name."""
    from transformers import TrainingArguments

    from sage_hf import SageTrainingArguments

    inherited = {one.name for one in fields(TrainingArguments)}
    return {one.name: one for one in fields(SageTrainingArguments) if one.name not in inherited}


def configuration_page() -> str:
    """The page, in Markdown."""
    from sage_hf.objectives import GUIDANCE

    described = _described()
    own = own_fields()
    if missing := own.keys() - described.keys():
        raise ValueError(f"The docstring of SageTrainingArguments does not describe {', '.join(sorted(missing))}.")
    readers = {name: [kind for kind, one in GUIDANCE.items() if name in one.__dataclass_fields__] for name in own}
    grouped = {name for names in GROUPS.values() for name in names}
    groups = GROUPS | {OTHERS: tuple(name for name in own if name not in grouped)}
    lines = [LEAD]
    for title, names in groups.items():
        if not names:
            continue
        lines += [f"## {title}", ""]
        for name in names:
            kind, text = described[name]
            facts = [f"`{kind}`", f"default `{_default(own[name])}`"]
            if readers[name]:
                facts.append(f"read by guidance {', '.join(f'`{one}`' for one in readers[name])}")
            lines += [f"### `{name}` {{ #{name} }}", "", f"{' · '.join(facts)}", "{ .facts }", "", text, ""]
    return "\n".join(lines)


def _default(one: Any) -> str:
    return f'"{one.default}"' if isinstance(one.default, str) else str(one.default)


def _described() -> dict[str, tuple[str, str]]:
    """Type and description of each argument, as the docstring has them."""
    package = load_package(griffe.load_extensions(HuggingFaceDocstrings))
    docstring = package["training_args.SageTrainingArguments"].docstring
    found = {}
    for section in docstring.parse("google"):
        if section.kind is griffe.DocstringSectionKind.parameters:
            for one in section.value:
                text = one.description.strip()
                found[one.name] = (str(one.annotation), text[0].upper() + text[1:])
    return found
