"""What a run left in its folder, as far as it is there."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer_utils import get_last_checkpoint

from ..hub.run_record import HYPERPARAMETERS, RECORD, RunRecord, training_log
from ..viewing.subjects import subject_names

CHECKPOINT, RESULTS, STATE, SETTINGS = "checkpoint", "results.json", "trainer_state.json", "training_args.json"
VIEWS, ALIGNMENT = "views.png", "alignment.png"
CAPTIONS = {
    VIEWS: "Training pictures, their maps, and the views of them that the objective compares.",
    ALIGNMENT: "Pictures, what was marked in them, and where the model looks.",
}
"""Of pictures that no record describes."""


@dataclass
class RunFolder:
    """
    A run, read from its folder; what isn't there is `None` or empty.

    Args:
        path (`Path`): the folder.
        name (`str`): what the run is called.
        record ([`RunRecord`], *optional*): `run.json`.
        results (`dict`, *optional*): `results.json` of a single run.
        seeds (`dict`, *optional*): `results.json` of several: accuracies of each seed by guidance and split.
        log (`list[dict]`): the training log by step.
        sage (`dict`): the `sage` key of the model's config.
        hyperparameters (`dict`): what else was set.
        pictures (`dict[str, str]`): captions of pictures by file name.
    """

    path: Path
    name: str
    record: RunRecord | None
    results: dict[str, Any] | None
    seeds: dict[str, dict[str, list[float]]] | None
    log: list[dict[str, float]]
    sage: dict[str, Any]
    hyperparameters: dict[str, Any]
    pictures: dict[str, str]

    @property
    def model(self) -> Path:
        """The folder of the checkpoint: the run's own, or the one in it that `sage-hf quickstart` writes."""
        return model_folder(self.path)

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Each figure with its interval, by split and name."""
        if self.results is not None:
            intervals = self.results.get("intervals", {})
            found = {
                split: {name: {"value": value} for name, value in figures.items()} | intervals.get(split, {})
                for split, figures in self.results["metrics"].items()
            }
        else:
            found = {} if self.record is None else self.record.metrics
        return {
            split: {name: one if isinstance(one, dict) else {"value": one} for name, one in figures.items()}
            for split, figures in found.items()
        }

    @property
    def alignment(self) -> dict[str, dict[str, Any]]:
        """Where the model looks against the maps, by split."""
        if self.results is not None and "saliency_alignment" in self.results:
            return self.results["saliency_alignment"]
        return {} if self.record is None else self.record.saliency_alignment


def read_run(folder: str | Path) -> RunFolder:
    """
    Read the output folder of `sage-hf train`, of [`SageTrainer`] or of `sage-hf quickstart`.

    Args:
        folder (`str` or `Path`): the run's.

    Raises:
        `FileNotFoundError`: there is no folder, or it holds nothing that a run leaves.
        `ValueError`: a file of it can't be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}. Name the output folder of a `sage-hf train` run.")
    model = model_folder(path)
    record = _read(RunRecord.load, model) if (model / RECORD).is_file() else None
    results = _json(path / RESULTS)
    seeds = results if results and all(_by_seed(one) for one in results.values()) else None
    if results is not None and seeds is None and not isinstance(results.get("metrics"), dict):
        raise ValueError(f"{path / RESULTS} was not written by `sage-hf train`: it has no metrics. Move it away.")
    log = record.log if record is not None else []
    if not log and (state := _state(model)) is not None:
        log = training_log(_read(TrainerState.load_from_json, state))
    if record is None and results is None and not log:
        raise FileNotFoundError(
            f"{path} holds no run: none of {RECORD}, {RESULTS} and {STATE} is there. Name the output folder of a "
            "`sage-hf train` run; SageTrainer leaves them with create_model_card() and save_state()."
        )
    settings = _json(model / SETTINGS) or {}
    described = record.pictures if record is not None else {}
    return RunFolder(
        path=path,
        name=record.model_name if record is not None else path.resolve().name,
        record=record,
        results=None if seeds is not None else results,
        seeds=seeds,
        log=log,
        sage=record.changed_settings() if record is not None else (_json(model / "config.json") or {}).get("sage", {}),
        hyperparameters=record.hyperparameters
        if record is not None
        else {name: settings[name] for name in HYPERPARAMETERS if name in settings},
        pictures={name: text for name, text in (CAPTIONS | described).items() if (path / name).is_file()},
    )


def told_apart(runs: list[RunFolder]) -> list[RunFolder]:
    """
    Runs by names of their own: if two are called alike, all by as much of their paths' ends as tells them apart.

    Args:
        runs (`list[RunFolder]`): as [`read_run`] gives them.
    """
    if len({run.name for run in runs}) == len(runs):
        return runs
    names = subject_names([run.path for run in runs])
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def model_folder(path: Path) -> Path:
    """Where the checkpoint of a run's folder is."""
    inside = path / CHECKPOINT
    return inside if not (path / "config.json").is_file() and (inside / "config.json").is_file() else path


def _state(path: Path) -> str | None:
    """The state of the whole training, or of its last checkpoint."""
    if (path / STATE).is_file():
        return str(path / STATE)
    last = get_last_checkpoint(str(path))
    return str(Path(last) / STATE) if last is not None and (Path(last) / STATE).is_file() else None


def _by_seed(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(values, list) and values and all(isinstance(value, (int, float)) for value in values)
        for values in found.values()
    )


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = _read(lambda file: json.loads(file.read_text(encoding="utf-8")), path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object. It was written by something else: move it away.")
    return found


def _read(reader: Any, path: Any) -> Any:
    try:
        return reader(path)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} can't be read ({error}): was it cut short, or edited?") from error
