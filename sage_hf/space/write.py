"""Write a Space for a model: app, requirements, card, and the parts of sage_hf that the app needs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, SpaceCardData
from jinja2 import Environment, StrictUndefined
from PIL import Image
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from ..evaluation.spaces import GRADIO_VERSION, PYTHON_VERSION
from ..hub.push import check_folder as check_publishable
from ..hub.secrets import check_text
from ..version import __version__
from ..viewing.subjects import Subject
from .demo import Demo
from .parts import needed_files

HERE = Path(__file__).parent
MANIFEST = "written_by_sage_hf.json"
"""The digests of the files that were written, by which they are known again."""
APP = "sage_hf.space.app"
PASSING = ("__pycache__", ".gradio")
"""What running the app leaves behind."""
MODEL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "sage_config.json",
)
EXAMPLE_SIDE = 768
"""Largest side of the pictures that are offered, in pixels."""


def write_space(
    model: str | Path,
    folder: str | Path,
    *,
    revision: str = "main",
    title: str | None = None,
    include_weights: bool = False,
    examples: Sequence[Image.Image] = (),
) -> Path:
    """
    Write a Space where visitors try a classifier. `python app.py` in it runs the very same app here.

    The model is loaded and tried once before anything is written. sage_hf is on no package index that a Space could
    install it from, so the modules that the app needs stand beside it, as they are in the source.

    Args:
        model (`str` or `Path`): Hub id or folder, as for [`load_image_classifier`]; adapters too.
        folder (`str` or `Path`): where to write: new, empty, or written by this function and not changed since.
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit of the model.
        title (`str`, *optional*): of the page; the model's name if not given.
        include_weights (`bool`, *optional*, defaults to `False`): copy a local model into the Space.
        examples (`Sequence[PIL.Image.Image]`, *optional*): pictures to offer, stored without their metadata.

    Returns:
        `Path`: the folder.

    Raises:
        `FileExistsError`: the folder holds something else.
        `ValueError`: a local model without `include_weights`; one that should not be published, see [`push_run`], or
            that visitors can't give pictures to.
    """
    folder, local = Path(folder), Path(model).is_dir()
    if local and not include_weights:
        raise ValueError(
            f"{model} is a folder, which a Space can't reach. Push it (`sage-hf push`) and give its Hub id, or copy "
            "its weights into the Space with --include_weights."
        )
    if include_weights and not local:
        raise ValueError(f"--include_weights copies a folder, and {model} is none. Leave it out: the Space loads it.")
    _refuse_others_work(folder)
    subject = Subject.load(model, revision=revision, use_cpu=True)
    demo = Demo(subject)
    demo.predict(demo.seen(Image.new("RGB", (64, 48), "grey")))
    title = title or subject.name.rpartition("/")[2]
    pictures = {
        f"examples/{index}.{kind}": data for index, (kind, data) in enumerate(map(_example, examples), start=1)
    }
    parts = needed_files(APP)
    settings = {
        "model": None if local else str(model),
        "revision": revision,
        "title": title,
        "examples": list(pictures),
    }
    texts = {name: text for name, text in parts.items() if name != f"{APP.replace('.', '/')}.py"} | {
        "app.py": parts[f"{APP.replace('.', '/')}.py"],
        "app.json": json.dumps(settings, indent=2) + "\n",
        "requirements.txt": _requirements(str(model), revision, subject),
        "README.md": _card(title, None if local else str(model), bool(pictures)),
        "LICENSE": _license(),
    }
    for name, text in texts.items():
        check_text(name, text.encode("utf-8"))
    contents = {name: text.encode("utf-8") for name, text in texts.items()} | pictures
    copied = _model_files(Path(model)) if local else {}
    _remove_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, path in copied.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    digests = {name: _digest(folder / name) for name in sorted([*contents, *copied])}
    (folder / MANIFEST).write_text(json.dumps({"version": __version__, "files": digests}, indent=2) + "\n")
    return folder


def push_space(folder: str | Path, repo_id: str, *, private: bool | None = None, api: HfApi | None = None) -> str:
    """
    Create a Space, if there is none, and upload what [`write_space`] wrote.

    Args:
        folder (`str` or `Path`): of the Space.
        repo_id (`str`): `owner/name`.
        private (`bool`, *optional*): make a new Space private; the owner's default if not given.
        api (`HfApi`, *optional*): with an endpoint and a token; those of the environment if not given.

    Returns:
        `str`: address of the Space.

    Raises:
        `ValueError`: the folder is no such Space.
    """
    folder, api = Path(folder), api or HfApi()
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is no Space that sage_hf wrote.")
    url = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    api.upload_folder(
        folder_path=folder,
        repo_id=repo_id,
        repo_type="space",
        ignore_patterns=[f"{name}/*" for name in PASSING] + [f"**/{name}/*" for name in PASSING],
        commit_message="Demo of a classifier",
    )
    return str(url)


def _example(image: Image.Image) -> tuple[str, bytes]:
    """A picture as it is stored: small ones without loss."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(image).convert("RGB")
    picture.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    bare = Image.new("RGB", picture.size)
    bare.paste(picture)
    kind = "png" if max(bare.size) <= 128 else "jpg"
    file = io.BytesIO()
    bare.save(file, **({"format": "PNG"} if kind == "png" else {"format": "JPEG", "quality": 90}))
    return kind, file.getvalue()


def _requirements(model: str, revision: str, subject: Subject) -> str:
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").split()
    if find_adapter_config_file(model, revision=revision) is not None:
        lines.append("peft>=0.19")
    if type(subject.model).__name__.startswith("TimmWrapper"):
        lines += ["timm>=1.0.20", "torchvision>=0.25"]
    return "\n".join(sorted(lines)) + "\n"


def _card(title: str, model: str | None, examples: bool) -> str:
    data = SpaceCardData(
        title=title,
        emoji="🔎",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version=PYTHON_VERSION,
        app_file="app.py",
        pinned=False,
        # With weights in it, the licence is not ours to name.
        license=None if model is None else "apache-2.0",
        models=None if model is None else [model],
        tags=["sage_hf", "saliency"],
        short_description="What a classifier sees, and what changes its mind",
    )
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    return environment.from_string((HERE / "card.md").read_text(encoding="utf-8")).render(
        card_data=data.to_yaml(),
        examples=examples,
        gradio_version=GRADIO_VERSION,
        model_words="the model" if model is None else f"[{model}](https://huggingface.co/{model})",
        title=title,
        version=__version__,
        with_weights=model is None,
    )


def _license() -> str:
    """Of sage_hf, from the source tree or from the installed package."""
    source = HERE.parents[1] / "LICENSE"
    if source.is_file():
        return source.read_text(encoding="utf-8")
    text = importlib.metadata.distribution("sage_hf").read_text("licenses/LICENSE")
    if text is None:
        raise FileNotFoundError("The LICENSE of sage_hf is neither in its source tree nor in the installed package.")
    return text


def _model_files(folder: Path) -> dict[str, Path]:
    """What loading a local model takes, by its path in the Space."""
    check_publishable(folder)
    adapter = cached_file(folder, "adapter_config.json", _raise_exceptions_for_missing_entries=False)
    if adapter is not None:
        settings: dict[str, Any] = json.loads(Path(adapter).read_text(encoding="utf-8"))
        base = settings.get("base_model_name_or_path") or ""
        if Path(base).exists():
            raise ValueError(f"{folder} is an adapter of {base}, a folder that a Space can't reach. Push that first.")
    paths = [path for pattern in MODEL_FILES for path in sorted(folder.glob(pattern))]
    return {f"model/{path.name}": path for path in paths}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _present(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path.as_posix() for path in paths if not set(path.parts) & set(PASSING))


def _own(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8"))["files"] if path.is_file() else {}


def _refuse_others_work(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Give a folder.")
    if not folder.exists():
        return
    own = _own(folder)
    others = [
        name
        for name in _present(folder)
        if name != MANIFEST and (name not in own or _digest(folder / name) != own[name])
    ]
    if others:
        listed = ", ".join(others[:5]) + (f", ... ({len(others)})" if len(others) > 5 else "")
        raise FileExistsError(
            f"{folder} holds {listed}, which sage_hf has not written, or which changed since. Give a new or empty "
            "folder."
        )


def _remove_own(folder: Path) -> None:
    """What an earlier call wrote, and this one may not."""
    # Of what is in the folder alone: a list that somebody else wrote may name files elsewhere.
    for name in set(_present(folder)) & set(_own(folder)):
        (folder / name).unlink()
