"""
A Space where visitors try a classifier. It runs on a Space and, with `python app.py`, anywhere; `app.json` beside it
says which model, under which title, and which pictures to offer.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sage_hf.space.demo import Demo, brushed, most_looked_at
from sage_hf.viewing.subjects import Subject

METHODS = ("cam", "gradient")
SOURCES = {
    "most looked at (class activation map)": "cam",
    "most looked at (input gradient)": "gradient",
    "what I brush below": "brush",
}
FILLINGS = {"the picture's mean colour": "mean", "a strong blur": "blur", "noise": "noise"}
SHOWN_CLASSES = 5


def looked(demo: Demo, image: Image.Image | None) -> list[Any]:
    """
    What is shown of an uploaded picture.

    Args:
        demo ([`Demo`]): the model.
        image (`PIL.Image.Image`, *optional*): as it was uploaded.

    Returns:
        `list`: the prediction, where the model looks by class activation map and by gradient, and the picture to brush
            on; each `None` without a picture, or where there is no such map.
    """
    if image is None:
        return [None] * 4
    pixel_values = demo.seen(image)
    maps = demo.look(pixel_values)
    drawn = [demo.laid_over(pixel_values, maps[name], name) if name in maps else None for name in METHODS]
    seen = demo.drawn(pixel_values)
    return [said(demo, demo.predict(pixel_values)), *drawn, {"background": seen, "layers": [], "composite": seen}]


def compared(
    demo: Demo, image: Image.Image | None, source: str, percent: float, filling: str, editor: dict[str, Any] | None
) -> list[Any]:
    """
    What is shown of a picture and a region.

    Args:
        demo ([`Demo`]): the model.
        image (`PIL.Image.Image`, *optional*): as it was uploaded.
        source (`str`): one of `SOURCES`: where the region comes from.
        percent (`float`): of the picture that it covers, if it comes from a map.
        filling (`str`): one of `FILLINGS`: what is put in the place of what is removed.
        editor (`dict`, *optional*): with the `layers` that were brushed, (height, width, 4) each.

    Returns:
        `list`: the region, x- and x+ as pictures; the predictions of x, x- and x+; a sentence. Where there is nothing
            to compare, `None` for each and a sentence that says why.
    """
    nothing = [None] * 6
    if image is None:
        return [*nothing, "Upload a picture first."]
    pixel_values, method = demo.seen(image), SOURCES[source]
    if method == "brush":
        height, width = pixel_values.shape[-2:]
        region = brushed((editor or {}).get("layers") or [], (height, width))
        if not region.any():
            return [*nothing, "Brush over the picture first, then press the button below it."]
    else:
        maps = demo.look(pixel_values)
        if method not in maps:
            return [*nothing, demo.subject.without[method]]
        region = most_looked_at(maps[method], percent / 100)
        if not region.any():
            return [
                *nothing,
                "This map is empty: nothing in the picture speaks for the prediction. Try another region.",
            ]
    found = demo.compare(pixel_values, region, FILLINGS[filling])
    predictions = [found.predictions[view] for view in ("anchor", "negative", "positive")]
    return [
        *(found.region, found.removed, found.kept),
        *(said(demo, prediction, predictions[0]) for prediction in predictions),
        verdict(demo, found.predictions, found.share),
    ]


def said(demo: Demo, prediction: dict[str, float], beside: dict[str, float] | None = None) -> dict[str, float] | str:
    """
    A prediction as it is shown: the most probable classes, or the numbers of a regression.

    Args:
        demo ([`Demo`]): that made it.
        prediction (`dict[str, float]`): see [`Demo.predict`].
        beside (`dict[str, float]`, *optional*): of the picture that it is shown beside, whose first class it shows
            too.
    """
    if not demo.gives_probabilities:
        return ", ".join(f"{name}: {value:.4g}" for name, value in prediction.items())
    order = sorted(prediction, key=lambda name: -prediction[name])
    first = [] if beside is None else [max(beside.items(), key=lambda pair: pair[1])[0]]
    shown = list(dict.fromkeys([*order[: SHOWN_CLASSES - 1], *first, *order]))[:SHOWN_CLASSES]
    return {name: prediction[name] for name in shown}


def verdict(demo: Demo, predictions: dict[str, dict[str, float]], share: float) -> str:
    """
    In a sentence or two, what a region does to a prediction.

    Args:
        demo ([`Demo`]): the model.
        predictions (`dict[str, dict[str, float]]`): as in [`Comparison`].
        share (`float`): of the picture that the region covers, in [0, 1].
    """
    covers = f"The region covers {share:.0%} of the picture."
    if not demo.gives_probabilities:
        return covers
    before, without, alone = (predictions[view] for view in ("anchor", "negative", "positive"))
    first, third = (max(one.items(), key=lambda pair: pair[1])[0] for one in (before, alone))
    told, then, last = (_told(demo, one) for one in (before, without, alone))
    changed = f"**changes its mind** to {then}" if then != told else f"**still says {told}**"
    most = f"{third} {alone[third]:.2f}" if demo.says_several else f"{alone[third]:.2f}"
    return (
        f"{covers} Without it the model {changed}: {first} goes from {before[first]:.2f} to {without[first]:.2f}. "
        f"With nothing but the region it says {last} ({most})."
    )


def _told(demo: Demo, prediction: dict[str, float]) -> str:
    """The class, or those of several that are more likely there than not."""
    if demo.says_several:
        return ", ".join(name for name, share in prediction.items() if share >= 0.5) or "nothing"
    return max(prediction.items(), key=lambda pair: pair[1])[0]


def sources_of(demo: Demo) -> list[str]:
    """
    Those of `SOURCES` that a model has: some have no class activation map.

    Args:
        demo ([`Demo`]): the model, which is shown a grey picture.
    """
    maps = demo.look(demo.seen(Image.new("RGB", (64, 48), "grey")))
    return [name for name, method in SOURCES.items() if method in maps or method == "brush"]


def build(demo: Demo, title: str, examples: list[str]) -> Any:
    """
    The app.

    Args:
        demo ([`Demo`]): the model.
        title (`str`): of the page.
        examples (`list[str]`): files of pictures to offer.

    Returns:
        `gradio.Blocks`: not launched.
    """
    import gradio as gr

    def shown(label: str, *, visible: bool = True) -> Any:
        return gr.Image(label=label, interactive=False, buttons=["fullscreen"], format="png", visible=visible)

    def bars(label: str) -> Any:
        return gr.Label(label=label, num_top_classes=SHOWN_CLASSES)

    sources = sources_of(demo)
    with gr.Blocks(title=title, analytics_enabled=False) as app:
        gr.Markdown(
            f"# {title}\n\nUpload a picture. See what the model predicts and where it looks, then take a region away "
            "and see whether it changes its mind."
        )
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="pil", label="Your picture", sources=["upload", "clipboard"], height=360)
                if examples:
                    gr.Examples(examples, image, label="Or one of these")
            with gr.Column():
                prediction = bars("The model's prediction")
                with gr.Row():
                    cam = shown("Where it looks: activation map", visible=len(sources) == len(SOURCES))
                    gradient = shown("Where it looks: input gradient")
        gr.Markdown("## What changes its mind?")
        with gr.Row():
            source = gr.Radio(sources, value=sources[0], label="The region")
            share = gr.Slider(1, 60, value=15, step=1, label="How much of the picture it covers, in percent")
            filling = gr.Radio(list(FILLINGS), value=next(iter(FILLINGS)), label="In place of what is removed")
        status = gr.Markdown("Upload a picture first.", elem_id="verdict")
        with gr.Row():
            pictures = [shown("The region"), shown("x-: without the region"), shown("x+: with nothing else")]
        with gr.Row():
            charts = [bars("Prediction of the picture as it is"), bars("Prediction of x-"), bars("Prediction of x+")]
        gr.Markdown("## Brush a region of your own\n\nThis is the picture as the model sees it.")
        editor = gr.ImageEditor(
            label="Brush over what to take away",
            type="numpy",
            sources=[],
            transforms=[],
            layers=False,
            brush=gr.Brush(default_size=24, colors=["#e03131"], color_mode="fixed"),
            elem_id="brush",
        )
        button = gr.Button("Take away what I brushed", variant="primary", elem_id="take")

        compare = partial(compared, demo)
        inputs, outputs = [image, source, share, filling, editor], [*pictures, *charts, status]
        image.change(partial(looked, demo), image, [prediction, cam, gradient, editor], api_name="look").then(
            compare, inputs, outputs, api_name="compare"
        )
        gr.on([source.input, share.release, filling.input], compare, inputs, outputs, api_visibility="private")
        brush = next(name for name, method in SOURCES.items() if method == "brush")
        button.click(lambda: brush, None, source, api_visibility="private").then(
            compare, inputs, outputs, api_visibility="private"
        )
    return app


def main() -> None:
    """Run the app that `app.json` describes."""
    folder = Path(__file__).resolve().parent
    settings = json.loads((folder / "app.json").read_text(encoding="utf-8"))
    model = str(folder / "model") if settings["model"] is None else settings["model"]
    subject = Subject.load(model, revision=settings["revision"], name=settings["title"])
    build(Demo(subject), settings["title"], [str(folder / name) for name in settings["examples"]]).launch()


if __name__ == "__main__":
    main()
