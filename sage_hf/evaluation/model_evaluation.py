"""Everything that can be measured of a classifier on a dataset, from their names alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from huggingface_hub import HfApi
from transformers import AutoImageProcessor, PrinterCallback
from transformers.utils import CONFIG_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from ..data.labels import class_names_of, problem_type_of
from ..data.loading import has_labels, load_saliency_dataset
from ..data.paths import check_folder
from ..data.saliency import DataError
from ..embeddings import config_of
from ..heads import how_to_load, load_image_classifier
from ..hub.revisions import model_revision, revision_of
from ..models import output_names, unadapted
from ..tasks import SINGLE_LABEL
from ..trainer import SageTrainer
from ..training_args import SageTrainingArguments
from .logit_figures import (
    attack_figures,
    calibration_figures,
    equal_error_threshold,
    open_set_figures,
    ranking_figures,
)
from .model_alignment import align_splits
from .model_faithfulness import faithfulness_of_splits
from .protocols import LeftOut
from .split_predictions import AttackTypes, SplitPredictions, divide
from .trainer_metrics import METRICS, figures_of, metric_intervals


def evaluate_model(
    model: str | Path,
    dataset: str | Path,
    *,
    revision: str = "main",
    dataset_name: str | None = None,
    dataset_revision: str | None = None,
    splits: Sequence[str] | None = None,
    unknown: Sequence[str] = (),
    bona_fide: str | None = None,
    attack_type_column: str | None = None,
    threshold_split: str | None = None,
    saliency: bool = False,
    faithfulness: bool = False,
    bootstrap_resamples: int = 1000,
    predictions: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """
    Evaluate a published or local classifier on a published or local dataset.

    Rows are prepared and predicted as [`SageTrainer`] does it during training, so a split has the figures that the
    run's `results.json` and card state. The dataset's classes are matched with the model's by name, for which bare
    indices count as well; it need not have all of them. The model's config must name its classes (`id2label`).

    Args:
        model (`str` or `Path`): Hub id or folder, as for [`load_image_classifier`]; adapters too.
        dataset (`str` or `Path`): Hub id or folder, as for [`load_saliency_dataset`].
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit of the model.
        dataset_name (`str`, *optional*): configuration of the dataset.
        dataset_revision (`str`, *optional*): branch, tag or commit of the dataset.
        splits (`Sequence[str]`, *optional*): splits to evaluate on; all labelled ones but `train` if not given.
        unknown (`Sequence[str]`, *optional*): classes of the dataset that the model doesn't know; one other dataset,
            whose split of the same name (or its only one) is used, whatever its labels; or both together. What the
            model's run left out (`--leave_out`) is unknown without being named, as far as the dataset has it; if
            another dataset alone is named, open-set figures are of that dataset's rows alone.
        bona_fide (`str`, *optional*): the class that is no attack: figures of presentation attack detection, with the
            probability of all other classes together as the score. Rows of unknown classes of the dataset are attacks
            of further types. Splits without bona fide rows, or without attacks, have no such figures.
        attack_type_column (`str`, *optional*): names the type of attack of each row, for `bona_fide`; the class if not
            given, or the column that the model's run went by when it left something out, in splits that have it.
        threshold_split (`str`, *optional*): the split whose equal error rate sets the threshold of APCER and BPCER,
            without rows that are unknown; it gets no such figures itself. The threshold is 0.5 if not given.
        saliency (`bool`, *optional*, defaults to `False`): compare where the model looks with the dataset's maps.
        faithfulness (`bool`, *optional*, defaults to `False`): measure what becomes of predictions when pixels are
            removed by order of the model's maps and of the dataset's.
        bootstrap_resamples (`int`, *optional*, defaults to 1000): for the 95% intervals; 0 for none.
        predictions (`bool`, *optional*, defaults to `False`): return what was predicted as well, row by row.
        **settings: more of [`SageTrainingArguments`], such as `per_device_eval_batch_size`, `label_column`, `use_cpu`;
            `annotators` is that of the model's run if not given.

    Returns:
        `dict`: `model`, `dataset` and their `..._revision` (the commit, `None` for a local one), `problem_type`,
        `classes`, `left_out` (if the model's run left anything out), `rows` by split, and by split
        - `metrics`: the loss and the metrics of the problem type;
        - `intervals`: `value`, `low` and `high` of each;
        - `ranking`: likewise, the macro AUROC of a single-label classifier;
        - `calibration`: likewise, [`Calibration`] of a single-label classifier;
        - `open_set`: likewise, [`OpenSet`], with `unknown`;
        - `presentation_attack`: likewise, [`PresentationAttack`], with `bona_fide`;
        - `saliency_alignment`: see [`model_alignment`], with `saliency`;
        - `faithfulness`: see [`model_faithfulness`], with `faithfulness`;
        - `predictions`: `logits` (rows, classes) and `labels` as arrays, and with `unknown` the `unknown_logits` of
          rows of unknown classes, with `predictions`.

    Raises:
        [`DataError`]: a split, column or class that isn't there, or rows that can't be read.
        `ValueError`: a model or figures that don't go with the problem.

    Limitations:
        A run that was trained with `bf16` or `fp16` was evaluated in that precision: give the same setting, or expect
        figures that differ in their last digits. A loss of one's own (`compute_loss_func`) is not known here.

    Example:

    ```python
    >>> import tempfile
    >>> from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    >>> from PIL import Image as Picture
    >>> from sage_hf.evaluation import evaluate_model
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    >>> size = {"image_size": 32, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 1}
    >>> names = {"id2label": {0: "dark", 1: "light"}, "label2id": {"dark": 0, "light": 1}}
    >>> features = Features(image=Image(), label=ClassLabel(names=["light", "dark"]))
    >>> columns = {"image": [Picture.new("RGB", (32, 32), shade) for shade in ("white", "black")], "label": [0, 1]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ViTForImageClassification(ViTConfig(num_attention_heads=2, **size, **names)).save_pretrained(folder)
    ...     processor = ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    ...     rows = DatasetDict(test=Dataset.from_dict(columns, features=features))
    ...     rows.save_to_disk(f"{folder}/data")
    ...     found = evaluate_model(folder, f"{folder}/data", bootstrap_resamples=0, use_cpu=True)
    >>> found["rows"], sorted(found["metrics"]["test"])
    ({'test': 2}, ['accuracy', 'balanced_accuracy', 'loss', 'macro_f1'])

    ```
    """
    classifier, trained = _load_trained(str(model), revision)
    for name in ("embedding_layer", "interpolate_pos_encoding", "class_weights", "annotators"):
        if trained.get(name) is not None:
            settings.setdefault(name, trained[name])
    config = config_of(classifier, settings.get("embedding_layer"))
    with tempfile.TemporaryDirectory() as folder:
        args = SageTrainingArguments(output_dir=folder, guidance="none", report_to="none", **settings)
        rows = load_saliency_dataset(
            str(dataset),
            name=dataset_name,
            revision=dataset_revision,
            label_column=args.label_column,
            problem_type=config.problem_type,
            known_classes=output_names(config),
        )
        evaluated = _evaluated_splits(rows, splits, args.label_column)
        if threshold_split is not None:
            _check_split(rows, threshold_split, args.label_column)
        if config.problem_type is None:
            feature = rows[evaluated[0]].features[args.label_column]
            config.problem_type = problem_type_of(feature, config.num_labels)  # type: ignore[assignment]
        problem_type = str(config.problem_type)
        left_out = LeftOut.of(trained)
        stored = _stored_classes(rows, args.label_column)
        by_class = left_out is not None and left_out.column == args.label_column
        left_classes = [value for value in left_out.values if value in stored] if left_out and by_class else []
        _check_attacks(
            problem_type, output_names(config), [*unknown, *left_classes], bona_fide, threshold_split, evaluated
        )
        measured = [name for name in evaluated if name != threshold_split]
        _check_attack_types(rows, measured, bona_fide, attack_type_column)
        if left_out is not None and not by_class:
            attack_type_column = attack_type_column or left_out.column
        other = _other_dataset(stored, unknown)
        elsewhere = {} if other is None else _rows_elsewhere(other, evaluated)
        unknown_classes = [value for value in unknown if value != other]
        read = dict.fromkeys([*evaluated, *filter(None, [threshold_split])])
        divided = {
            name: divide(
                rows[name],
                name,
                args.label_column,
                output_names(config),
                [*unknown_classes, *left_classes],
                None if by_class else left_out,
            )
            for name in read
        }
        # Another dataset alone is measured by itself: what the run left out is set aside.
        concerned = [name for name in evaluated if name in elsewhere or (other is None and len(divided[name].unknown))]
        if unknown and not concerned:
            raise DataError(f"unknown: no row of the splits {', '.join(evaluated)} is of {', '.join(unknown)}.")
        types = (
            None
            if bona_fide is None
            else AttackTypes.read(divided, args.label_column, bona_fide, attack_type_column, threshold_split)
        )
        trainer = SageTrainer(
            classifier,
            args,
            processing_class=AutoImageProcessor.from_pretrained(str(model), revision=revision),
            compute_metrics=METRICS[problem_type],
        )
        trainer.remove_callback(PrinterCallback)
        found = SplitPredictions(trainer, divided, elsewhere, str(other))
        parts = [found.elsewhere, *([found.unknown] if unknown_classes or other is None else [])]
        strange = {name: np.concatenate([part[name] for part in parts if name in part]) for name in concerned}
        resamples = bootstrap_resamples
        config_file = CONFIG_NAME if how_to_load(classifier) != "adapter" else ADAPTER_CONFIG_NAME
        results: dict[str, Any] = {
            "model": str(model),
            "model_revision": model_revision(str(model), revision, config_file),
            "dataset": str(dataset),
            "dataset_revision": None
            if Path(dataset).exists()
            else revision_of(rows, str(dataset), dataset_revision, HfApi()),
            "problem_type": problem_type,
            "classes": found.classes,
            **({} if left_out is None else {"left_out": left_out.to_dict()}),
            "rows": {name: len(divided[name].known) for name in evaluated},
            "metrics": {name: figures_of(found.of[name], name) for name in evaluated},
            "intervals": {name: metric_intervals(found.of[name], problem_type, resamples) for name in evaluated},
        }
        if problem_type == SINGLE_LABEL:
            results["calibration"] = {
                name: calibration_figures(*found.logits_and_labels(name), resamples) for name in evaluated
            }
            results["ranking"] = {
                name: ranking_figures(*found.logits_and_labels(name), resamples) for name in evaluated
            }
        if strange:
            results["unknown_rows"] = {name: len(logits) for name, logits in strange.items()}
            results["open_set"] = {
                name: open_set_figures(*found.logits_and_labels(name), logits, resamples)
                for name, logits in strange.items()
            }
        if bona_fide is not None and types is not None:
            threshold = None
            if threshold_split is not None and types.for_threshold is not None:
                scores = found.attack_scores(threshold_split, bona_fide, known_only=True)
                threshold = equal_error_threshold(scores, np.array([kind is not None for kind in types.for_threshold]))
            results["presentation_attack"] = {
                name: attack_figures(found.attack_scores(name, bona_fide), kinds, threshold, resamples)
                for name, kinds in types.measured.items()
            }
        known = {name: divided[name].known for name in evaluated}
        if saliency:
            results["saliency_alignment"] = align_splits(trainer, known, resamples)
        if faithfulness:
            results["faithfulness"] = faithfulness_of_splits(trainer, known, resamples)
        if predictions:
            results["predictions"] = {
                name: dict(zip(("logits", "labels"), found.logits_and_labels(name), strict=True))
                | ({"unknown_logits": strange[name]} if name in strange else {})
                for name in evaluated
            }
    return results


def _load_trained(path: str, revision: str) -> tuple[Any, dict[str, Any]]:
    """The model, and what its run says that it must be used with."""
    check_folder(path)
    is_adapter = find_adapter_config_file(path, revision=revision) is not None
    # A Trainer refuses models of which nothing could be trained.
    model = load_image_classifier(path, revision=revision, **({"is_trainable": True} if is_adapter else {}))
    return model, dict(getattr(unadapted(model).config, "sage", {}))


def _check_split(rows: datasets.DatasetDict, name: str, label_column: str) -> None:
    if name not in rows:
        raise DataError(f"the dataset has no split {name!r}; it has {', '.join(rows)}.")
    if not has_labels(rows[name], label_column):
        raise DataError(f"{name} split: column {label_column!r} is missing, or no row has a label there.")


def _evaluated_splits(rows: datasets.DatasetDict, splits: Sequence[str] | None, label_column: str) -> list[str]:
    for name in splits or []:
        _check_split(rows, name, label_column)
    chosen = list(splits or [name for name in rows if name != "train" and has_labels(rows[name], label_column)])
    if not chosen:
        raise DataError(f"no split to evaluate on among {', '.join(rows)}: name one (splits=['train'], say).")
    return chosen


def _check_attacks(
    problem_type: str,
    classes: list[str],
    unknown: Sequence[str],
    bona_fide: str | None,
    threshold_split: str | None,
    evaluated: list[str],
) -> None:
    if problem_type != SINGLE_LABEL and (unknown or bona_fide is not None):
        raise ValueError(f"Unknown classes and presentation attacks need one label a picture, not {problem_type}.")
    if bona_fide is None and threshold_split is not None:
        raise ValueError("threshold_split is for presentation attacks: name the class that is none with bona_fide.")
    if bona_fide is not None and bona_fide not in classes:
        raise DataError(f"bona_fide: the model knows no class {bona_fide!r}, it knows {', '.join(classes)}.")
    if evaluated == [threshold_split]:
        raise ValueError(
            f"threshold_split is all that is evaluated ({threshold_split}): a threshold is for other rows."
        )


def _check_attack_types(
    rows: datasets.DatasetDict, names: Sequence[str], bona_fide: str | None, column: str | None
) -> None:
    """A column that the caller names must be there; one that the run went by need not."""
    for name in names:
        if column is not None and bona_fide is not None and column not in rows[name].column_names:
            raise DataError(
                f"attack_type_column: the {name} split has no column {column!r}; its columns are "
                f"{', '.join(rows[name].column_names)}. Name one of these, or other splits with splits."
            )


def _stored_classes(rows: datasets.DatasetDict, label_column: str) -> set[str]:
    features = [split.features[label_column] for split in rows.values() if label_column in split.features]
    return {name for feature in features for name in class_names_of(feature) or []}


def _other_dataset(stored: set[str], unknown: Sequence[str]) -> str | None:
    """What of `unknown` names another dataset, being no class of this one."""
    strange = [value for value in unknown if value not in stored]
    if len(strange) > 1:
        raise DataError(
            f"unknown: {strange} are no classes of the dataset, which has {', '.join(sorted(stored))}; and one other "
            "dataset at most can be named."
        )
    return strange[0] if strange else None


def _rows_elsewhere(path: str, evaluated: Sequence[str]) -> dict[str, datasets.Dataset]:
    """The rows of another dataset that go with each split."""
    try:
        other = load_saliency_dataset(path, label_column="")
    except DataError as error:
        raise DataError(f"unknown: {path!r} is no class of the dataset, and no dataset: {error}") from None
    for name in evaluated:
        if name not in other and len(other) > 1:
            raise DataError(
                f"unknown: {path} has no split {name!r}, it has {', '.join(other)}. Name a split with splits."
            )
    return {name: other[name] if name in other else next(iter(other.values())) for name in evaluated}
