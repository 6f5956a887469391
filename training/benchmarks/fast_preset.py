"""
The preset `fast`: which share of SAGE's gain is left if one in seven rows is guided, and most others show x+?

    python training/benchmarks/fast_preset.py run       # resumable: a JSON line a run, none repeated
    python training/benchmarks/fast_preset.py report    # results.json, table.md and plot.svg from the lines

Data, models, and the settings that none and SAGE were given are those of `decoy_mnist.py` and `digits_shortcut.py`
(the digits at a correlation of 0.99); `fast` has SAGE's, but for the preset's own, which were chosen with the ConvNeXt
on validation digits of other seeds (`ablations_long.json`). Training is three times as long as there: a step that
guides fewer rows teaches less, and what is compared is where both end, not how soon. On the digits also how soon: with
none and SAGE as long as there, and `fast` for twice the epochs, which take less time than SAGE's. Seeds are those of
the tests. The share of the gain is (accuracy - none) / (SAGE - none), seed by seed. What a step costs is measured by
`step_cost.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import decoy_mnist
import digits_shortcut
from study import HERE, Block, Figure, Model, Run, Runs, Study, blocks_of, chosen, main

LONGER = 3
METHODS = ("none", "sage", "sage, fast")
CASES = {
    "Decoy-MNIST, perceptron": (decoy_mnist, "mlp", "random shades", "test"),
    "Decoy-MNIST, ViT": (decoy_mnist, "vit", "random shades", "test"),
    "digits, ConvNeXt": (digits_shortcut, "convnext", "0.99", "shifted"),
    "digits, ViT": (digits_shortcut, "vit", "0.99", "shifted"),
}
"""The benchmark, its model and scenario, and the figure that shows the gain."""
SCENARIO, SAME_TIME = "three times as long", "as long as SAGE takes"
MORE_SEEDS = {"digits, ConvNeXt": 20, "Decoy-MNIST, perceptron": 20}
"""Where five left open whether the share is above or below 0.99."""
MORE_EPOCHS = 2
"""Of `fast` in the time that SAGE takes: its step takes less than half of the time of SAGE's."""


def chosen_settings(name: str, method: str) -> dict[str, Any]:
    """What the search of the other benchmark chose."""
    module, model, scenario, _ = CASES[name]
    (block, *_) = (one for one in blocks_of(module.STUDY, quick=False, model=model) if one.scenario == scenario)
    runs = Runs(HERE / module.STUDY.name / "runs.jsonl")
    settings = chosen(module.STUDY, block, method, runs, quick=False)
    if settings is None:
        raise ValueError(f"{module.STUDY.name}.py has not chosen settings for {method} and {model} yet: run it first.")
    return settings


def train(run: Run) -> dict[str, float]:
    """Train one model as its own benchmark does; the figure that shows the gain as `accuracy`, and the epochs."""
    module, model, scenario, figure = CASES[run.model]
    epochs = run.epochs
    if run.scenario == SAME_TIME and not run.quick:
        epochs = run.epochs // LONGER * (MORE_EPOCHS if run.method == "sage, fast" else 1)
    scores = module.train(replace(run, model=model, scenario=scenario, epochs=epochs))
    if run.stage == "search":
        return scores
    return {"accuracy": scores[figure], "validation": scores["validation"], "epochs": epochs}


STUDY = Study(
    name="fast_preset",
    title="The preset `fast`",
    train=train,
    models={
        name: Model(
            epochs=LONGER * module.STUDY.models[model].epochs,
            search={method: [chosen_settings(name, method)] for method in ("none", "sage")},
        )
        for name, (module, model, _, _) in CASES.items()
    },
    blocks=(
        *(Block(name, SCENARIO, METHODS, seeds=MORE_SEEDS.get(name, 0)) for name in CASES),
        *(Block(name, SAME_TIME, METHODS, search_in=SCENARIO) for name in CASES if name.startswith("digits")),
    ),
    tables={"Accuracy": (Figure("accuracy", "accuracy"),)},
    scenarios="training",
    unharmed="sage",
    share="share of the gain",
    packages=("mlxtend",),
)

if __name__ == "__main__":
    main(STUDY, __doc__)
