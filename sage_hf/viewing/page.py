"""Rows that were looked at, as an HTML page: the worst first, with what models make of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..pages import Definitions, Details, Figure, Gallery, Page, Section, Table, Text
from ..pages.charts import number
from ..pages.page import Block
from ..pages.scatter import scatter_chart
from .embeddings import project, triplet_figures
from .grid import in_words, said
from .pictures import RowPictures
from .records import VIEWS, ModelRecord, RowRecord
from .rows import Embeddings, Looked

SIDE, LEAST = 160, 140
"""Of the pictures of a row as they are shown, and the least that they shrink to, in pixels."""

SIGNS = {"anchor": "x", "positive": "x+", "negative": "x-"}
VIEW_CAPTIONS = {"positive": "x+: the marked is kept", "negative": "x-: the marked is removed"}
ORDER_WORDS = {
    "maps": "those first in which {model} looks least where humans looked (correlation of its map with theirs)",
    "labels": "those first whose label {model} finds least probable",
    "views": "those first whose prediction by {model} moves most when all but the marked is degraded",
    "models": "those first on which the two models differ most",
    "rows": "in the order of the dataset",
}
METHOD_WORDS = {"cam": "class activation map", "gradient": "input gradient"}


def view_page(
    looked: Looked, *, dataset: str, settings: dict[str, str] | None = None, method: str = "pca", seed: int = 0
) -> Page:
    """
    A page of what was found.

    Args:
        looked ([`Looked`]): with pictures of the rows to show.
        dataset (`str`): what the dataset is called.
        settings (`dict[str, str]`, *optional*): what else a reader needs to repeat it.
        method (`str`, *optional*, defaults to `"pca"`): of the plot of embeddings, see [`project`].
        seed (`int`, *optional*, defaults to 0): of that plot.

    Raises:
        `ImportError`: matplotlib is missing (`pip install 'sage_hf[report]'`), or `umap-learn` for UMAP.
    """
    models = list(looked.without)
    page = Page(_title(dataset, models), _lead(looked, models))
    facts = {"dataset": dataset} | {
        f"model {place}" if len(models) > 1 else "model": name for place, name in enumerate(models, start=1)
    }
    page.add("What is shown", Definitions(facts | (settings or {})), *_notes(looked))
    if models:
        page.add("In figures", *_summary(looked, models))
    if looked.embeddings:
        page.add("Embeddings", *_embeddings(looked.embeddings, method, seed))
    elif models:
        page.add("Embeddings", Text("No row has a map, so there are no x+ and x- to compare with x."))
    rows = [_row(record, looked.pictures[record.row]) for record in looked.records if record.row in looked.pictures]
    drawn = "Class activation maps are drawn up to their maximum, gradients up to their 99th percentile."
    page.add("Rows", *([Text(drawn)] if models else []), *rows)
    return page


def _title(dataset: str, models: Sequence[str]) -> str:
    return dataset if not models else f"{' and '.join(models)} on {dataset}"


def _lead(looked: Looked, models: Sequence[str]) -> str:
    shown, seen = len(looked.pictures), len(looked.records)
    order = ORDER_WORDS[looked.order].format(model=models[0] if models else "")
    number_of = f"{shown} of {seen} rows" if shown < seen else f"{seen} rows"
    sampled = f", drawn from {looked.total}" if seen < looked.total else ""
    return f"{number_of}{sampled}, {order}."


def _notes(looked: Looked) -> list[Block]:
    """What a reader may miss, and why it isn't there."""
    notes = []
    without = sum(not record.has_map for record in looked.records)
    if without:
        notes.append(
            f"{without} of the {len(looked.records)} rows have no map: there is nothing to compare with in them, and "
            "no x+ or x-."
        )
    for model, missing in looked.without.items():
        notes += [f"{model} has no {_missing(what)}: {why}" for what, why in missing.items()]
    return [Text(*notes)] if notes else []


def _missing(what: str) -> str:
    return "class activation map" if what == "cam" else "embedding to show"


def _summary(looked: Looked, models: Sequence[str]) -> list[Block]:
    rows = [(name, _figures([record.models[place] for record in looked.records])) for place, name in enumerate(models)]
    header = ["figure", *(name for name, _ in rows)]
    lines = [
        [figure, *(found.get(figure, "") for _, found in rows)]
        for figure in dict.fromkeys(f for _, d in rows for f in d)
    ]
    caption = (
        f"Means over the {len(looked.records)} rows looked at that have the figure. Moved: the share of the "
        "probability that another picture in x's place changes."
    )
    blocks: list[Block] = [Table(header, lines, caption)]
    if any(record.difference is not None for record in looked.records):
        differences = [record.difference for record in looked.records if record.difference is not None]
        other = sum(
            record.models[0].predictions["anchor"].label != record.models[1].predictions["anchor"].label
            for record in looked.records
        )
        blocks.append(
            Text(
                f"The two predict different things for {other} of {len(looked.records)} rows; on average they place "
                f"{number(float(np.mean(differences)))} of the probability differently."
            )
        )
    return blocks


def _figures(records: Sequence[ModelRecord]) -> dict[str, str]:
    found: dict[str, list[float]] = {}
    for record in records:
        if record.correct is not None:
            found.setdefault("predictions that are right", []).append(float(record.correct))
        if record.label_error is not None and record.probabilities:
            found.setdefault("probability of the label", []).append(1 - record.label_error)
        elif record.label_error is not None:
            found.setdefault("absolute error", []).append(record.label_error)
        for view, share in record.moved.items():
            found.setdefault(f"moved from x to {SIGNS[view]}", []).append(share)
        for method, figures in record.alignment.items():
            for name in ("cc", "auc_judd"):
                label = {"cc": "correlation (CC)", "auc_judd": "AUC-Judd"}[name]
                found.setdefault(f"{METHOD_WORDS[method]} against maps, {label}", []).append(figures[name])
    return {name: f"{np.mean(values):.3f}" for name, values in found.items()}


def _embeddings(embeddings: Sequence[Embeddings], method: str, seed: int) -> list[Block]:
    blocks: list[Block] = [
        Text(
            "What enters the head for x, for x+ (the marked is kept) and for x- (the marked is removed); "
            "lines join those of a row. Guidance pulls x+ to x and pushes x- away. Each model has a plane of its own: "
            "compare how the three lie to each other."
        )
    ]
    charts = []
    for place, one in enumerate(embeddings):
        plane, figures = project(one, method, seed), triplet_figures(one)
        which = f"{('Before', 'After')[place]}: {one.model}" if len(embeddings) > 1 else one.model
        axes = (
            [f"component {axis} ({share:.0%} of variance)" for axis, share in enumerate(plane.explained, start=1)]
            if plane.explained is not None
            else ["UMAP 1", "UMAP 2"]
        )
        caption = (
            f"Cosine distance to x, mean of {len(one.anchors)} rows: x+ {figures['positive']:.3f}, "
            f"x- {figures['negative']:.3f}. x+ is the closer one in {figures['closer']:.0%} of the rows."
        )
        charts.append(
            scatter_chart(
                {"x": plane.anchors, "x+": plane.positives, "x-": plane.negatives},
                links=[("x", "x+"), ("x", "x-")],
                title=which,
                x_label=axes[0],
                y_label=axes[1],
                caption=caption,
                summary=caption,
            )
        )
    return [*blocks, Gallery(*charts, width=440)]


def _row(record: RowRecord, pictures: RowPictures) -> Section:
    label = "no label" if record.label is None else f"labelled {in_words(record.label)}"
    blocks = _galleries(record, pictures)
    if record.models:
        blocks.append(_predictions(record))
        blocks += _agreement(record)
    return Section(f"Row {record.row}: {label}{_verdict(record)}", *blocks)


def _verdict(record: RowRecord) -> str:
    if not record.models:
        return ""
    found = [in_words(one.predictions["anchor"].label) for one in record.models]
    return f", predicted {found[0]}" if len(set(found)) == 1 else f", predicted {' and '.join(found)}"


def _galleries(record: RowRecord, pictures: RowPictures) -> list[Block]:
    of = f"row {record.row}"
    figures = [_figure(pictures.image, f"The picture of {of}", "x")]
    if pictures.saliency is not None and pictures.marked is not None:
        figures.append(_figure(pictures.saliency, f"The map of {of}: bright where humans looked", "map"))
        figures.append(_figure(pictures.marked, f"The map of {of} laid over the picture", "where humans looked"))
    views = [_figure(image, f"{SIGNS[view]} of {of}", VIEW_CAPTIONS[view]) for view, image in pictures.views.items()]
    degraded = [_figure(image, f"{of} degraded: {name}", name) for name, image in pictures.degraded.items()]
    if not record.models:
        return [Gallery(*figures, *views, *degraded, width=LEAST)]
    looks = [
        _look(one, method, image, of, several=len(record.models) > 1)
        for one, images in zip(record.models, pictures.looks, strict=True)
        for method, image in images.items()
    ]
    return [
        Gallery(*figures, *looks, *views, width=LEAST),
        Details("The whole picture degraded", Gallery(*degraded, width=LEAST)),
    ]


def _look(one: ModelRecord, method: str, image: Image.Image, of: str, *, several: bool) -> Figure:
    agreement = one.alignment.get(method)
    figure = f", CC {agreement['cc']:.2f}" if agreement else ""
    alt = f"Where {one.model} looks in {of}: {METHOD_WORDS[method]}{figure}"
    return _figure(image, alt, f"{one.model + ', ' if several else ''}{METHOD_WORDS[method]}{figure}")


def _figure(image: Image.Image, alt: str, caption: str) -> Figure:
    """A small picture with its own pixels visible; a large one made smaller, as a JPEG."""
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    drawn = image.convert("RGB").resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if scale >= 1:
        drawn.save(file, "PNG", optimize=True)
    else:
        drawn.save(file, "JPEG", quality=85)
    return Figure(file.getvalue(), alt[0].upper() + alt[1:], caption)


def _predictions(record: RowRecord) -> Table:
    several = len(record.models) > 1
    header = [*(["model"] if several else []), "picture", "prediction"]
    classes = list(dict.fromkeys(name for one in record.models for name in one.probabilities.get("anchor", {})))
    header += [f"p({name})" for name in classes]
    rows = []
    for one in record.models:
        for view in VIEWS:
            if view not in one.predictions:
                continue
            shares = one.probabilities.get(view, {})
            cells = [f"{shares[name]:.3f}" if name in shares else "" for name in classes]
            rows.append([*([one.model] if several else []), SIGNS[view], said(one.predictions[view]), *cells])
    return Table(header, rows, f"Predictions of row {record.row}")


def _agreement(record: RowRecord) -> list[Block]:
    rows = [
        [
            *([one.model] if len(record.models) > 1 else []),
            METHOD_WORDS[method],
            *(f"{v:.3f}" for v in figures.values()),
        ]
        for one in record.models
        for method, figures in one.alignment.items()
    ]
    if not rows:
        return [] if record.has_map else [Text("This row has no map.")]
    header = ["model"] * (len(record.models) > 1) + ["where it looks", "CC", "SIM", "KL", "NSS", "AUC-Judd"]
    return [Table(header, rows, f"Agreement with the map of row {record.row}")]
