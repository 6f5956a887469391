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

from ..data.known_classes import known_and_unknown
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
    attack_scores,
    calibration_figures,
    equal_error_threshold,
    open_set_figures,
    ranking_figures,
)
from .model_alignment import align_splits
from .model_faithfulness import faithfulness_of_splits
from .protocols import LeftOut, unknown_rows, values_of
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
    run's `results.json` and card state. The dataset's classes are matched with the model's by name; it need not have
    all of them.

    Args:
        model (`str` or `Path`): Hub id or folder, as for [`load_image_classifier`]; adapters too.
        dataset (`str` or `Path`): Hub id or folder, as for [`load_saliency_dataset`].
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit of the model.
        dataset_name (`str`, *optional*): configuration of the dataset.
        dataset_revision (`str`, *optional*): branch, tag or commit of the dataset.
        splits (`Sequence[str]`, *optional*): splits to evaluate on; all labelled ones but `train` if not given.
        unknown (`Sequence[str]`, *optional*): classes of the dataset that the model doesn't know; or one other
            dataset, whose split of the same name (or its only one) is used, whatever its labels. If not given, what
            the model's run left out (`--leave_out`), as far as the dataset has it.
        bona_fide (`str`, *optional*): the class that is no attack: figures of presentation attack detection, with the
            probability of all other classes together as the score. Rows of unknown classes of the dataset are attacks
            of further types.
        attack_type_column (`str`, *optional*): names the type of attack of each row, for `bona_fide`; the class if not
            given, or the column that the model's run went by when it left something out.
        threshold_split (`str`, *optional*): the split whose equal error rate sets the threshold of APCER and BPCER,
            without rows that are unknown; it gets no such figures itself. The threshold is 0.5 if not given.
        saliency (`bool`, *optional*, defaults to `False`): compare where the model looks with the dataset's maps.
        faithfulness (`bool`, *optional*, defaults to `False`): measure what becomes of predictions when pixels are
            removed by order of the model's maps and of the dataset's.
        bootstrap_resamples (`int`, *optional*, defaults to 1000): for the 95% intervals; 0 for none.
        predictions (`bool`, *optional*, defaults to `False`): return what was predicted as well, row by row.
        **settings: more of [`SageTrainingArguments`], such as `per_device_eval_batch_size`, `label_column`, `use_cpu`.

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
    for name in ("embedding_layer", "interpolate_pos_encoding", "class_weights"):
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
        )
        evaluated = _evaluated_splits(rows, splits, args.label_column)
        if threshold_split is not None:
            _check_split(rows, threshold_split, args.label_column)
        if config.problem_type is None:
            feature = rows[evaluated[0]].features[args.label_column]
            config.problem_type = problem_type_of(feature, config.num_labels)  # type: ignore[assignment]
        problem_type = str(config.problem_type)
        left_out = LeftOut.of(trained)
        by_class = left_out is not None and left_out.column == args.label_column
        if left_out is not None and by_class and not unknown:
            unknown = [value for value in left_out.values if value in _stored_classes(rows, args.label_column)]
        elif left_out is not None and not by_class and attack_type_column is None:
            has_column = any(left_out.column in split.column_names for split in rows.values())
            attack_type_column = left_out.column if has_column else None
        _check_attacks(problem_type, output_names(config), unknown, bona_fide, threshold_split, evaluated)
        trainer = SageTrainer(
            classifier,
            args,
            processing_class=AutoImageProcessor.from_pretrained(str(model), revision=revision),
            compute_metrics=METRICS[problem_type],
        )
        trainer.remove_callback(PrinterCallback)
        other = _other_dataset(rows, unknown, args)
        read = {name: rows[name] for name in dict.fromkeys([*evaluated, *filter(None, [threshold_split])])}
        found = _Predictions(
            trainer, read, () if other is not None else unknown, None if by_class else left_out, attack_type_column
        )
        resamples = bootstrap_resamples
        config_file = CONFIG_NAME if how_to_load(classifier) != "adapter" else ADAPTER_CONFIG_NAME
        strange: dict[str, np.ndarray] = {}
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
            "rows": {name: len(found.known[name]) for name in evaluated},
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
        if unknown or found.strange:
            strange = found.strange
            if other is not None:
                strange = {
                    name: found.without_labels(_matching(other, name, unknown[0]), unknown[0]) for name in evaluated
                }
            concerned = [name for name in evaluated if name in strange]
            if not concerned:
                raise DataError(f"unknown: no row of the splits {', '.join(evaluated)} is of {', '.join(unknown)}.")
            results["unknown_rows"] = {name: len(strange[name]) for name in concerned}
            results["open_set"] = {
                name: open_set_figures(*found.logits_and_labels(name), strange[name], resamples) for name in concerned
            }
        if bona_fide is not None:
            threshold = None
            if threshold_split is not None:
                # What training left out is unknown when a threshold is chosen as well.
                scores, types = found.attacks(threshold_split, bona_fide, known_only=True)
                threshold = equal_error_threshold(scores, np.array([kind is not None for kind in types]))
            results["presentation_attack"] = {
                name: attack_figures(*found.attacks(name, bona_fide), threshold, resamples)
                for name in evaluated
                if name != threshold_split
            }
        known = {name: found.known[name] for name in evaluated}
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


class _Predictions:
    """What a model predicts for the rows of several splits, those of known and those of unknown classes."""

    def __init__(
        self,
        trainer: SageTrainer,
        splits: dict[str, datasets.Dataset],
        unknown: Sequence[str],
        left_out: LeftOut | None = None,
        attack_type_column: str | None = None,
    ):
        self.trainer, self.label_column = trainer, trainer.args.label_column
        self.classes = output_names(trainer.model_config)
        self.attack_type_column = attack_type_column
        parts = {name: self._divided(name, split, unknown, left_out) for name, split in splits.items()}
        self.known = {name: known for name, (known, _) in parts.items()}
        self.unknown = {name: others for name, (_, others) in parts.items() if len(others)}
        prepared = {}
        for name, known in self.known.items():
            if not len(known):
                raise DataError(f"{name} split: there are no rows of classes that the model knows.")
            prepared[name] = trainer.preparation(known, name, maps=False, some_classes=True, check=True)
        self.of = {name: trainer.predict(rows, metric_key_prefix=name) for name, rows in prepared.items()}
        self.strange = {
            name: self.without_labels(others, f"{name} split, unknown classes")
            for name, others in self.unknown.items()
        }

    def _divided(
        self, name: str, split: datasets.Dataset, unknown: Sequence[str], left_out: LeftOut | None
    ) -> tuple[datasets.Dataset, datasets.Dataset]:
        trained_for, left = (split, None) if left_out is None else unknown_rows(split, left_out)
        known, others = known_and_unknown(trained_for, self.label_column, self.classes, unknown, f"{name} split")
        return known, others if left is None else datasets.concatenate_datasets([others, left])

    def logits_and_labels(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows of known classes of a split."""
        return np.asarray(self.of[name].predictions), np.asarray(self.of[name].label_ids)

    def without_labels(self, split: datasets.Dataset, name: str) -> np.ndarray:
        """Logits of rows whatever their labels."""
        pictures = split.select_columns([self.trainer.args.image_column])
        prepared = self.trainer.preparation(pictures, name, maps=False, labelled=False, check=True)
        return np.asarray(self.trainer.predict(prepared).predictions)

    def attacks(self, name: str, bona_fide: str, *, known_only: bool = False) -> tuple[np.ndarray, list[str | None]]:
        """How much like an attack each row of a split is, and the type of attack that it is, `None` for none."""
        logits, _ = self.logits_and_labels(name)
        kinds = self._kinds(self.known[name], bona_fide)
        if name in self.unknown and not known_only:
            kinds += self._kinds(self.unknown[name], bona_fide)
            logits = np.concatenate([logits, self.strange[name]])
        return attack_scores(logits, self.classes.index(bona_fide)), kinds

    def _kinds(self, rows: datasets.Dataset, bona_fide: str) -> list[str | None]:
        classes = values_of(rows, self.label_column)
        types = classes if self.attack_type_column is None else values_of(rows, self.attack_type_column)
        return [None if kind == bona_fide else named or kind for kind, named in zip(classes, types, strict=True)]


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


def _stored_classes(rows: datasets.DatasetDict, label_column: str) -> set[str]:
    features = [split.features[label_column] for split in rows.values() if label_column in split.features]
    return {name for feature in features for name in class_names_of(feature) or []}


def _other_dataset(
    rows: datasets.DatasetDict, unknown: Sequence[str], args: SageTrainingArguments
) -> datasets.DatasetDict | None:
    """The dataset that `unknown` names, `None` if it names classes."""
    stored = _stored_classes(rows, args.label_column)
    if not unknown or set(unknown) <= stored:
        return None
    if len(unknown) > 1:
        strange = sorted(set(unknown) - stored)
        raise DataError(f"unknown: {strange} are no classes of the dataset, which has {', '.join(sorted(stored))}.")
    try:
        return load_saliency_dataset(unknown[0], label_column="")
    except DataError as error:
        raise DataError(f"unknown: {unknown[0]!r} is no class of the dataset, and no dataset: {error}") from None


def _matching(other: datasets.DatasetDict, name: str, path: str) -> datasets.Dataset:
    if name not in other and len(other) > 1:
        raise DataError(f"unknown: {path} has no split {name!r}, it has {', '.join(other)}. Name a split with splits.")
    return other[name] if name in other else next(iter(other.values()))
