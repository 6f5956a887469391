"""Metrics as Spaces: what `evaluate.load("owner/name")` loads from the Hub."""

from __future__ import annotations

import ast
import doctest
import importlib.metadata
import inspect
import re
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

import evaluate
from huggingface_hub import HfApi, SpaceCardData
from jinja2 import Environment, StrictUndefined

MARKER = "<!-- Written by sage_hf. Remove this line to keep your own edits: the folder is then left alone. -->"

# What was tried; the widget of evaluate 0.4.6 asks for gradio below 4, whose numpy 1 current pyarrow refuses.
GRADIO_VERSION, PYTHON_VERSION = "6.31.0", "3.11"

LOWER_BOUNDS = {
    "datasets": "datasets>=5.2",
    "evaluate": "evaluate>=0.4.6",
    "numpy": "numpy>=1.26",
    "scipy": "scipy>=1.15",
    "sklearn": "scikit-learn>=1.5",
}

APP = """\
from pathlib import Path

import evaluate
import gradio
from evaluate.utils import launch_gradio_widget

# The widget of evaluate 0.4.6 uses two modules that gradio 4 removed (https://github.com/huggingface/evaluate/issues/602).
gradio.inputs = gradio.outputs = gradio.components

launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("{name}.py"))))
"""


def export_metric(
    metric: type[evaluate.Metric] | evaluate.Metric, folder: str | Path, *, repo_id: str | None = None
) -> Path:
    """
    Write a metric as a complete Space: its source, a widget, requirements and a card after the template of `evaluate`.

    `evaluate.load(str(folder))` loads it from there, without network and without sage_hf. The card is written from the
    docstrings of the class (summary, `Limitations`, `Example`) and of its `_compute` (`Args`, `Returns`, `Raises`).
    Its example is run on what was written.

    Args:
        metric (`type[evaluate.Metric]` or `evaluate.Metric`): a metric of `sage_hf.evaluation`, or one of your own:
            one class in a file that imports installed packages only.
        folder (`str` or `Path`): where to write; new, empty, or written by this function before. `evaluate` looks for
            a file of the folder's name, so that name must be an identifier, such as `open_set`.
        repo_id (`str`, *optional*): the Space, as the card's example loads it; `./` and the folder's name if not
            given.

    Returns:
        `Path`: the folder.

    Raises:
        `ValueError`: a name that is no identifier; a metric without source, that imports from its own package, without
            the sections above, or whose example gives another result.
        `FileExistsError`: the folder holds something else.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sage_hf.evaluation import OpenSet, export_metric
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = export_metric(OpenSet, Path(parent) / "open_set")
    ...     sorted(path.name for path in folder.iterdir())
    ['README.md', 'app.py', 'open_set.py', 'requirements.txt']

    ```
    """
    cls = metric if isinstance(metric, type) else type(metric)
    folder = Path(folder).resolve()
    name = folder.name
    if not name.isidentifier():
        raise ValueError(
            f"{name!r} is no name that evaluate can import. Use letters, digits and underscores, such as 'open_set'."
        )
    source = _source(cls)
    requirements = _requirements(cls, source)
    example = _example(cls, repo_id or f"./{name}")
    files = {
        f"{name}.py": source,
        "app.py": APP.format(name=name),
        "requirements.txt": "\n".join(requirements) + "\n",
        "README.md": _card(cls, example, requirements),
    }
    _refuse_others_work(folder, set(files))
    with tempfile.TemporaryDirectory() as parent:
        trial = Path(parent) / name
        trial.mkdir()
        for file, text in files.items():
            (trial / file).write_text(text, encoding="utf-8")
        _run_example(example, repo_id or f"./{name}", trial)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(trial / file, folder / file)
    return folder


def push_metric(
    metric: type[evaluate.Metric] | evaluate.Metric, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """
    Create a Space, if there is none, and upload a metric to it as [`export_metric`] writes it.

    Args:
        metric (`type[evaluate.Metric]` or `evaluate.Metric`): as for [`export_metric`].
        repo_id (`str`): `owner/name`, where the name is an identifier, such as `me/open_set`.
        private (`bool`, *optional*, defaults to `False`): whether a new Space is private.
        token (`str`, *optional*): token with write access; the stored one if not given.

    Returns:
        `str`: address of the Space. `evaluate.load(repo_id)` loads the metric from it.

    Raises:
        `ValueError`: a `repo_id` of another form, and as for [`export_metric`].
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"repo_id is {repo_id!r}, expected 'owner/name': evaluate loads metrics by both.")
    with tempfile.TemporaryDirectory() as parent:
        folder = export_metric(metric, Path(parent) / repo_id.split("/")[1], repo_id=repo_id)
        api = HfApi(token=token)
        url = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder, repo_id=repo_id, repo_type="space", commit_message=f"{metric_title(metric)} metric"
        )
    return str(url)


def metric_title(metric: type[evaluate.Metric] | evaluate.Metric) -> str:
    """The name of a metric's class in words: "Open Set" of `OpenSet`."""
    cls = metric if isinstance(metric, type) else type(metric)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__)


def _source(cls: type) -> str:
    try:
        path = inspect.getsourcefile(cls)
    except TypeError:  # of classes without a file
        path = None
    if not issubclass(cls, evaluate.Metric) or path is None or not Path(path).is_file():
        raise ValueError(f"{cls.__name__} is no evaluate.Metric with a source file. Put the class into a file.")
    return Path(path).read_text(encoding="utf-8")


def _requirements(cls: type, source: str) -> list[str]:
    roots = {"evaluate"}  # also of the widget
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add("." if node.level else str(node.module).split(".")[0])
    own = roots & {".", "sage_hf", cls.__module__.split(".")[0]}
    if own:
        raise ValueError(
            f"The file of {cls.__name__} imports from its own package ({', '.join(sorted(own))}), which is not there "
            "in a Space. Make it self-contained."
        )
    distributions = importlib.metadata.packages_distributions()
    found = []
    for root in sorted(roots - set(sys.stdlib_module_names)):
        if root not in LOWER_BOUNDS and root not in distributions:
            raise ValueError(f"{cls.__name__} imports {root}, which no installed package provides. Install it.")
        package = distributions.get(root, [root])[0]
        found.append(LOWER_BOUNDS.get(root) or f"{package}>={importlib.metadata.version(package)}")
    return sorted(found)


def _sections(docstring: str | None) -> dict[str, str]:
    """The parts of a docstring by their headings, what comes before the first one under `""`."""
    parts = re.split(r"^(\w+):$", inspect.cleandoc(docstring or ""), flags=re.MULTILINE)
    headings = ["", *parts[1::2]]
    return {heading: textwrap.dedent(text).strip() for heading, text in zip(headings, parts[::2], strict=True)}


def _example(cls: type, load_from: str) -> str:
    sections = _sections(cls.__doc__)
    if ">>> " not in sections.get("Example", ""):
        raise ValueError(f"The docstring of {cls.__name__} has no `Example:` with lines after >>>. Write one.")
    text = re.sub(rf">>> from \S+ import {cls.__name__}\b", ">>> import evaluate", sections["Example"])
    return re.sub(rf"\b{cls.__name__}\([^()]*\)", f'evaluate.load("{load_from}")', text)


def _run_example(example: str, load_from: str, folder: Path) -> None:
    code = example.replace(f'evaluate.load("{load_from}")', f"evaluate.load({str(folder)!r})").replace("```", "")
    output: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(doctest.DocTestParser().get_doctest(code, {}, folder.name, None, None), out=output.append)
    if runner.summarize(verbose=False).failed:
        raise ValueError("The example does not give what it says. Correct it in the docstring:\n" + "".join(output))


def _card(cls: type, example: str, requirements: list[str]) -> str:
    info, summary = cls(keep_in_memory=True).info, _sections(cls.__doc__)
    compute = _sections(cls._compute.__doc__)  # type: ignore[attr-defined]
    missing = [name for name in ("Args", "Returns") if name not in compute]
    missing += [name for name in ("Limitations",) if name not in summary]
    if missing:
        raise ValueError(
            f"The docstrings of {cls.__name__} lack {', '.join(missing)}. The card is written from `Limitations:` of "
            "the class, and `Args:` and `Returns:` of its `_compute`."
        )
    from_sage_hf = cls.__module__.split(".")[0] == __name__.split(".", maxsplit=1)[0]
    data = SpaceCardData(
        title=metric_title(cls),
        emoji="📏",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version=PYTHON_VERSION,
        app_file="app.py",
        pinned=False,
        license="apache-2.0" if from_sage_hf else None,
        tags=["evaluate", "metric"],
        description=info.description,
    )
    packed = Path(__file__).with_name("metric_card.md")
    template = packed if packed.is_file() else Path(__file__).parents[2] / "model_cards" / "metric_card.md"
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        card_data=data.to_yaml(),
        citation=info.citation.strip(),
        description=summary[""],
        errors=compute.get("Raises"),
        example=example,
        from_sage_hf=from_sage_hf,
        inputs=re.sub(r"^(\w+) \(", r"- **\1** (", compute["Args"], flags=re.MULTILINE),
        limitations=summary["Limitations"],
        marker=MARKER,
        outputs=re.sub(r"\n- ", "\n\n- ", compute["Returns"], count=1),
        reference_urls=info.reference_urls,
        requirements=[f'"{requirement}"' for requirement in requirements],
        title=metric_title(cls),
    )


def _refuse_others_work(folder: Path, names: set[str]) -> None:
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Give a folder.")
    others = sorted(present - names)
    card = folder / "README.md"
    if others or (present and not (card.is_file() and MARKER in card.read_text(encoding="utf-8"))):
        raise FileExistsError(
            f"{folder} holds {', '.join(others or sorted(present))}, which this function has not written, or which "
            "were edited since. Give a new or empty folder."
        )
