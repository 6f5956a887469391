"""Everything that can be measured of a classifier on a dataset, from their names alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import AutoImageProcessor, PrinterCallback
from transformers.trainer_utils import PredictionOutput
from transformers.utils import CONFIG_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from ..data.known_classes import known_and_unknown
from ..data.labels import class_names_of, problem_type_of
from ..data.loading import check_folder, has_labels, load_saliency_dataset
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
)
from .model_alignment import align_splits
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
    threshold_split: str | None = None,
    saliency: bool = False,
    bootstrap_resamples: int = 1000,
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
            dataset, whose split of the same name (or its only one) is used, whatever its labels.
        bona_fide (`str`, *optional*): the class that is no attack: figures of presentation attack detection, with the
            probability of all other classes together as the score. Rows of unknown classes of the dataset are attacks
            of further types.
        threshold_split (`str`, *optional*): the split whose equal error rate sets the threshold of APCER and BPCER;
            it gets no such figures itself. The threshold is 0.5 if not given.
        saliency (`bool`, *optional*, defaults to `False`): compare where the model looks with the dataset's maps.
        bootstrap_resamples (`int`, *optional*, defaults to 1000): for the 95% intervals; 0 for none.
        **settings: more of [`SageTrainingArguments`], such as `per_device_eval_batch_size`, `label_column`, `use_cpu`.

    Returns:
        `dict`: `model`, `dataset` and their `..._revision` (the commit, `None` for a local one), `problem_type`,
        `classes`, `rows` by split, and by split
        - `metrics`: the loss and the metrics of the problem type;
        - `intervals`: `value`, `low` and `high` of each;
        - `calibration`: likewise, [`Calibration`] of a single-label classifier;
        - `open_set`: likewise, [`OpenSet`], with `unknown`;
        - `presentation_attack`: likewise, [`PresentationAttack`], with `bona_fide`;
        - `saliency_alignment`: see [`model_alignment`], with `saliency`.

    Raises:
        [`DataError`]: a split, column or class that isn't there, or rows that can't be read.
        `ValueError`: a model or figures that don't go with the problem.
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
        evaluated = _evaluated_splits(rows, splits, threshold_split, args.label_column)
        if config.problem_type is None:
            feature = rows[evaluated[0]].features[args.label_column]
            config.problem_type = problem_type_of(feature, config.num_labels)  # type: ignore[assignment]
        problem_type = str(config.problem_type)
        if problem_type != SINGLE_LABEL and (unknown or bona_fide):
            raise ValueError(f"Unknown classes and presentation attacks need one label a picture, not {problem_type}.")
        names = output_names(config)
        if bona_fide is None and threshold_split is not None:
            raise ValueError(
                "threshold_split is for presentation attacks: name the class that is none with bona_fide."
            )
        if bona_fide is not None and bona_fide not in names:
            raise DataError(f"bona_fide: the model knows no class {bona_fide!r}, it knows {', '.join(names)}.")
        trainer = SageTrainer(
            classifier,
            args,
            processing_class=AutoImageProcessor.from_pretrained(str(model), revision=revision),
            compute_metrics=METRICS[problem_type],
        )
        trainer.remove_callback(PrinterCallback)
        read = [*evaluated, *([threshold_split] if threshold_split else [])]
        other = _other_dataset(rows, unknown, args)
        classes = () if other is not None else tuple(unknown)
        parts = {
            name: known_and_unknown(rows[name], args.label_column, names, classes, f"{name} split") for name in read
        }
        for name, (known, _) in parts.items():
            if not len(known):
                raise DataError(f"{name} split: there are no rows of classes that the model knows.")
        prepared = {
            name: trainer.preparation(known, name, maps=False, some_classes=True, check=True)
            for name, (known, _) in parts.items()
        }
        predictions = {name: trainer.predict(prepared[name], metric_key_prefix=name) for name in read}

        def logits_without_labels(split: datasets.Dataset, name: str) -> np.ndarray:
            pictures = split.select_columns([args.image_column])
            prepared = trainer.preparation(pictures, name, maps=False, labelled=False, check=True)
            return np.asarray(trainer.predict(prepared).predictions)

        strange = {
            name: logits_without_labels(others, f"{name} split, unknown classes")
            for name, (_, others) in parts.items()
            if len(others)
        }
        resamples = bootstrap_resamples
        config_file = CONFIG_NAME if how_to_load(classifier) != "adapter" else ADAPTER_CONFIG_NAME
        results: dict[str, Any] = {
            "model": str(model),
            "model_revision": model_revision(str(model), revision, config_file),
            "dataset": str(dataset),
            "dataset_revision": None if Path(dataset).exists() else revision_of(rows),
            "problem_type": problem_type,
            "classes": names,
            "rows": {name: len(parts[name][0]) for name in evaluated},
            "metrics": {name: figures_of(predictions[name], name) for name in evaluated},
            "intervals": {name: metric_intervals(predictions[name], problem_type, resamples) for name in evaluated},
        }
        if problem_type == SINGLE_LABEL:
            results["calibration"] = {
                name: calibration_figures(*_arrays(predictions[name]), resamples) for name in evaluated
            }
        if unknown:
            found = strange
            if other is not None:
                found = {
                    name: logits_without_labels(_matching(other, name, unknown[0]), f"{unknown[0]}")
                    for name in evaluated
                }
            results["unknown_rows"] = {name: len(found[name]) for name in evaluated if name in found}
            results["open_set"] = {
                name: open_set_figures(*_arrays(predictions[name]), found[name], resamples)
                for name in evaluated
                if name in found
            }
            if not results["open_set"]:
                raise DataError(f"unknown: no row of the splits {', '.join(evaluated)} is of {', '.join(unknown)}.")
        if bona_fide is not None:
            attacks = _Attacks(names, bona_fide, args.label_column)
            scored = {
                name: attacks.scores_and_types(*_arrays(predictions[name]), strange.get(name), parts[name][1])
                for name in read
            }
            threshold = None
            if threshold_split is not None:
                scores, types = scored[threshold_split]
                threshold = equal_error_threshold(scores, np.array([kind is not None for kind in types]))
            results["presentation_attack"] = {
                name: attack_figures(*scored[name], threshold, resamples) for name in evaluated
            }
        if saliency:
            results["saliency_alignment"] = align_splits(
                trainer, {name: parts[name][0] for name in evaluated}, resamples
            )
    return results


def _load_trained(path: str, revision: str) -> tuple[Any, dict[str, Any]]:
    """The model, and what its run says that it must be used with."""
    check_folder(path)
    is_adapter = find_adapter_config_file(path, revision=revision) is not None
    # A Trainer refuses models of which nothing could be trained.
    model = load_image_classifier(path, revision=revision, **({"is_trainable": True} if is_adapter else {}))
    return model, dict(getattr(unadapted(model).config, "sage", {}))


def _evaluated_splits(
    rows: datasets.DatasetDict, splits: Sequence[str] | None, threshold_split: str | None, label_column: str
) -> list[str]:
    for name in [*(splits or []), *([threshold_split] if threshold_split else [])]:
        if name not in rows:
            raise DataError(f"the dataset has no split {name!r}; it has {', '.join(rows)}.")
        if not has_labels(rows[name], label_column):
            raise DataError(f"{name} split: column {label_column!r} is missing, or no row has a label there.")
    if splits is not None and threshold_split in splits:
        raise ValueError(f"threshold_split {threshold_split!r} is evaluated too: a threshold comes from other rows.")
    chosen = list(splits or [name for name in rows if name != "train" and has_labels(rows[name], label_column)])
    chosen = [name for name in chosen if name != threshold_split]
    if not chosen:
        raise DataError(f"no split to evaluate on among {', '.join(rows)}: name one (splits=['train'], say).")
    return chosen


def _arrays(prediction: PredictionOutput) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(prediction.predictions), np.asarray(prediction.label_ids)


def _other_dataset(
    rows: datasets.DatasetDict, unknown: Sequence[str], args: SageTrainingArguments
) -> datasets.DatasetDict | None:
    """The dataset that `unknown` names, `None` if it names classes."""
    features = [split.features[args.label_column] for split in rows.values() if args.label_column in split.features]
    stored = {name for feature in features for name in class_names_of(feature) or []}
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


@dataclass
class _Attacks:
    names: list[str]
    bona_fide: str
    label_column: str

    def scores_and_types(
        self, logits: np.ndarray, labels: np.ndarray, strange: np.ndarray | None, others: datasets.Dataset
    ) -> tuple[np.ndarray, list[str | None]]:
        """Scores of the known rows, then of those of unknown classes, and the type of attack of each."""
        kinds = [self.names[label] for label in labels]
        if strange is not None:
            stored = class_names_of(others.features[self.label_column]) or []
            kinds += [stored[label] for label in others.with_format(None)[self.label_column]]
            logits = np.concatenate([logits, strange])
        scores = attack_scores(logits, self.names.index(self.bona_fide))
        return scores, [None if kind == self.bona_fide else kind for kind in kinds]
