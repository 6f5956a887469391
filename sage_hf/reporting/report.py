"""The report of a run: what it recorded, and what predicting once more shows, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pages import Block, Code, Definitions, Details, Figure, Gallery, Page, Section, Table, Text
from ..pages.charts import require_matplotlib
from ..pages.page import check_own
from . import predictions as drawn
from .results import alignment, by_seed, check_comparable, comparison, metrics
from .run_folder import RunFolder, read_run, told_apart
from .training import curves

REPORT = "report.html"
"""Name of the page in the run's folder, if no other is given."""


def write_report(
    run: str | Path,
    others: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    dataset: str | Path | None = None,
    unknown: Sequence[str] = (),
    **evaluation: Any,
) -> Path:
    """
    Write the report of a run: curves of every term, metrics with intervals, where the model looks, pictures, settings
    and environment; with a dataset to predict, also calibration, ROC and confusion, with unknown classes the open set.

    Every figure comes from the run's files, or from predicting the dataset as [`evaluate_model`] does it. A section
    that has no data says which command would give it some.

    Args:
        run (`str` or `Path`): output folder of `sage-hf train`, of [`SageTrainer`], or of `sage-hf quickstart`.
        others (`Sequence[str | Path]`, *optional*): other runs on the same data, to compare it with.
        out (`str` or `Path`, *optional*): the HTML file; `report.html` in the run's folder if not given.
        dataset (`str` or `Path`, *optional*): Hub id or folder of what to predict.
        unknown (`Sequence[str]`, *optional*): as for [`evaluate_model`].
        **evaluation: more of [`evaluate_model`]: `splits`, `bootstrap_resamples`, `use_cpu`...

    Returns:
        `Path`: the page.

    Raises:
        `FileExistsError`: the file is there, and an earlier report did not write it.
        `FileNotFoundError`: the folder holds no run.
        `ImportError`: matplotlib is missing (`pip install 'sage_hf[report]'`).
        `ValueError`: a run that can't be read or compared, or whose page would hold a token or the home folder's path.
        [`DataError`]: as [`evaluate_model`] raises it.

    Example:

    ```python
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from sage_hf.reporting import write_report
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = {"metrics": {"test": {"accuracy": 0.75}}, "guidance": "none"}
    ...     _ = (Path(folder) / "results.json").write_text(json.dumps(results))
    ...     page = write_report(folder).read_text(encoding="utf-8")
    >>> "0.7500" in page and "<h2" in page
    True

    ```
    """
    require_matplotlib()
    found = read_run(run)
    path = Path(out) if out is not None else found.path / REPORT
    check_own(path)
    found, *compared = told_apart([found, *map(read_run, others)])
    check_comparable(found, compared)
    predicted = None
    if dataset is not None:
        from ..evaluation.model_evaluation import evaluate_model

        predicted = evaluate_model(found.model, dataset, unknown=unknown, predictions=True, **evaluation)
    page = build_page(found, compared, predicted, unknown)
    page.write(path)
    return path


def build_page(
    run: RunFolder, others: list[RunFolder], predicted: dict[str, Any] | None, unknown: Sequence[str] = ()
) -> Page:
    """
    The report as a page.

    Args:
        run ([`RunFolder`]): the run.
        others (`list[RunFolder]`): to compare it with.
        predicted (`dict`, *optional*): what [`evaluate_model`] found, with `predictions`.
        unknown (`Sequence[str]`, *optional*): what it was given as unknown.
    """
    page = Page(f"Report of {run.name}", lead=_lead(run))
    if run.seeds is not None:
        page.add("Results", *by_seed(run))
    else:
        page.add("Results", *metrics(run))
    page.add("Comparison", *comparison(run, others))
    page.add("Training", *curves(run))
    page.add("Where the model looks", *alignment(run))
    page.add("Pictures", *_pictures(run))
    name = run.path.name
    if predicted is None:
        page.add(
            "Calibration, ROC and confusion",
            Text("They need the model's predictions, which a run does not keep. To predict for the report:"),
            Code(f"sage-hf report {name} --dataset {_dataset(run)}"),
        )
    else:
        said = _predicted(predicted, run)
        page.add("Calibration", *said, *drawn.calibration(predicted))
        page.add("ROC curves", *drawn.roc(predicted))
        page.add("Confusion", *drawn.confusion(predicted))
    if predicted is not None and "open_set" in predicted:
        page.add("Open set", *drawn.open_set(predicted, ", ".join(map(_public, unknown))))
    else:
        page.add(
            "Open set",
            Text(
                "How the model takes what it does not know was not tried. Name classes of the dataset, or a dataset:"
            ),
            Code(f"sage-hf report {name} --dataset {_dataset(run)} --unknown CLASS"),
        )
    page.add("Settings", *_settings(run))
    page.add("Environment", *_environment(run))
    return page


def _dataset(run: RunFolder) -> str:
    return run.record.dataset if run.record is not None and run.record.dataset else "DATA"


def _lead(run: RunFolder) -> str:
    if run.seeds is not None:
        return f"Several trainings: guidance {', '.join(run.seeds)}."
    guidance = (run.results or run.sage).get("guidance")
    control = (run.results or run.sage).get("saliency_control", "none")
    if guidance is None:
        method = "A training"
    elif guidance == "none":
        method = "Plain fine-tuning, without saliency guidance"
    else:
        maps = "human saliency maps" if control == "none" else f"{control} saliency maps, a control"
        method = f"Fine-tuning guided by {maps} ({guidance})"
    record = run.record
    steps = run.results.get("steps") if run.results is not None else None
    parts = [method]
    if record is not None and record.base_model:
        parts.append(f" of {record.base_model}")
    if record is not None and record.dataset:
        parts.append(f" on {record.dataset}")
    if steps is not None:
        parts.append(f", {steps} optimizer steps")
    seconds = record.seconds if record is not None else None
    if seconds is not None:
        parts.append(f" in {seconds:.0f} s")
    text = "".join(parts) + "."
    return text if record is None or not record.description else f"{text} {record.description}"


def _predicted(predicted: dict[str, Any], run: RunFolder) -> list[Block]:
    rows = ", ".join(f"{split} {count}" for split, count in predicted["rows"].items())
    local = "the folder " if Path(predicted["dataset"]).exists() else ""
    name = local + _at(_public(predicted["dataset"]), predicted["dataset_revision"])
    text = (
        f"Calibration, ROC, confusion and open set are of predictions made for this report, on {name} ({rows} rows)."
    )
    differs = drawn.differences(predicted, run.metrics)
    if not differs:
        return [Text(text)]
    return [Text(text, f"They are not those that the run recorded. {' '.join(differs)}")]


def _pictures(run: RunFolder) -> list[Block]:
    if not run.pictures:
        return [
            Text("The run drew no pictures. They are drawn where they are asked for:"),
            Code("sage-hf train ... --card_pictures 6"),
        ]
    figures = [
        Figure((run.path / name).read_bytes(), _alt(name, caption), caption) for name, caption in run.pictures.items()
    ]
    return [Gallery(*figures, width=440)]


def _alt(name: str, caption: str) -> str:
    columns = {
        "views.png": "each row: picture, map, and its views",
        "alignment.png": "each row: picture, marked region, the model's activation map and input gradient",
    }
    return f"Grid of pictures, {columns[name]}. {caption}" if name in columns else caption


def _settings(run: RunFolder) -> list[Block]:
    blocks: list[Block] = []
    for heading, values in (("Method", run.sage), ("Hyperparameters", run.hyperparameters)):
        shown = {name: str(value) for name, value in values.items() if _is_set(value) and name != "versions"}
        if shown:
            blocks.append(Section(heading, Definitions(shown)))
    if not blocks:
        return [Text("No settings are there: run.json and training_args.json are missing.")]
    blocks.append(Text("What is off or was not set is left out."))
    data = (run.results or {}).get("data")
    if data:
        blocks.append(Section("Data", Table(["split", "content"], [[str(k), str(v)] for k, v in data.items()])))
    if run.record is not None:
        classes = run.record.classes
        label = f"{len(classes)} {'outputs' if run.record.problem_type == 'regression' else 'classes'}"
        blocks.append(Details(label, Text(", ".join(map(str, classes)))))
    return blocks


def _is_set(value: Any) -> bool:
    return value is not None and value is not False and value != -1


def _environment(run: RunFolder) -> list[Block]:
    record = run.record
    versions = record.versions if record is not None else run.sage.get("versions", {})
    items = {name: str(version) for name, version in versions.items()}
    if record is not None:
        items["hardware"] = record.hardware
        items["processes"] = str(record.world_size)
        if record.seconds is not None:
            items["training time"] = f"{record.seconds:.0f} s"
        if record.energy is not None:
            items["energy (codecarbon)"] = f"{record.energy['kwh']:.4f} kWh"
            items["CO2 (codecarbon)"] = f"{1000 * record.energy['co2_kg']:.1f} g"
        if record.base_model:
            items["base model"] = _at(record.base_model, record.base_model_revision)
        if record.dataset:
            items["dataset"] = _at(record.dataset, record.dataset_revision)
    if not items:
        return [Text("Nothing is known of it: run.json is missing.")]
    return [Definitions(items)]


def _public(source: str) -> str:
    """The name of a class, Hub dataset or folder: where a folder lies says nothing to others, and may say too much."""
    return Path(source).resolve().name if Path(source).exists() else source


def _at(name: str, revision: str | None) -> str:
    return f"{name} at {revision[:12]}" if revision else name
