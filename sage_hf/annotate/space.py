"""The page as a Space on the Hub: annotators sign in there, and their work goes to a dataset repository."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..data.saliency import DataError
from ..version import __version__

APP = '''"""The page on which {source} is annotated; written by `sage-hf annotate --space`."""

from sage_hf.annotate.space import serve

# The token that may write to {store} is the Space's secret HF_TOKEN, and stands nowhere here.
serve(
{settings}
)
'''
README = """---
title: {title}
emoji: 🖍️
colorFrom: green
colorTo: pink
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
hf_oauth: true
pinned: false
---

# {title}

Annotators sign in with Hugging Face, mark what matters in the pictures of
[{source}]({hub}/datasets/{source}), and label them. Their work, under their user names, is sent every minute to the
dataset repository [{store}]({hub}/datasets/{store}).

**To set it up**, add a secret `HF_TOKEN` to the Space's settings: a fine-grained token that may read {source} and
write {store}, and nothing else.{who}

**To get the dataset**:

```bash
sage-hf annotate {source} --store hf://datasets/{store} --export dataset
sage-hf data check dataset
```
"""
OLDEST_GRADIO = "6.29.0"


def write_space(
    out: str | Path,
    source: str,
    store: str,
    *,
    classes: list[str] | None = None,
    annotators: list[str] | None = None,
    requirement: str | None = None,
    **options: str | None,
) -> list[Path]:
    """
    Write the folder of a Space, ready for `hf upload OWNER/SPACE DIR --repo-type space`.

    Args:
        out (`str` or `Path`): folder; must not exist or be empty.
        source (`str`): dataset on the Hub whose pictures are annotated.
        store (`str`): dataset repository that the work goes to.
        classes (`list[str]`, *optional*): the labels; those of the dataset, and more, if not given.
        annotators (`list[str]`, *optional*): user names of those who may annotate; everybody who signs in if
            not given.
        requirement (`str`, *optional*): what pip installs; this version of `sage_hf[annotate]` if not given.
        **options: of [`DatasetPictures`].

    Returns:
        `list[Path]`: the files.

    Raises:
        `FileExistsError`: `out` holds something.
        `ValueError`: names that can't be repositories of the Hub.

    Example:

    ```python
    >>> import tempfile
    >>> from sage_hf.annotate.space import write_space
    >>> [path.name for path in write_space(tempfile.mkdtemp(), "you/photos", "you/photos-annotations")]
    ['README.md', 'app.py', 'requirements.txt']

    ```
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} already exists and is not empty. Choose another folder, or move it away.")
    for name in (source, store):
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"{name!r} is no dataset on the Hub, which a Space needs: {error}") from None
        if "/" not in name or Path(name).exists():
            raise ValueError(f"{name!r} is no dataset on the Hub, which a Space needs: OWNER/NAME. Push it first.")
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        gradio = OLDEST_GRADIO
    given: dict[str, Any] = {"source": source, "store": store, "classes": classes, "annotators": annotators, **options}
    settings = "\n".join(f"    {name}={value!r}," for name, value in given.items() if value is not None)
    who = f" Only {', '.join(annotators)} may annotate." if annotators else " Everybody who signs in may annotate."
    title = f"Annotate {source.rpartition('/')[2]}"
    texts = {
        "README.md": README.format(
            title=title, gradio=gradio, source=source, store=store, hub=constants.ENDPOINT, who=who
        ),
        "app.py": APP.format(source=source, store=store, settings=settings),
        "requirements.txt": f"{requirement or f'sage_hf[annotate]=={__version__}'}\nhuggingface_hub[oauth]\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def serve(
    source: str,
    store: str,
    *,
    classes: list[str] | None = None,
    annotators: list[str] | None = None,
    **options: Any,
) -> None:
    """
    Run as a Space until it is stopped; elsewhere, with a key in the printed address in place of signing in.

    Args:
        source (`str`): dataset on the Hub.
        store (`str`): dataset repository that the work goes to.
        classes, annotators, **options: see [`write_space`].

    Raises:
        [`~sage_hf.data.DataError`]: the Space has no secret `HF_TOKEN`, or nobody can sign in to it.
    """
    from .hub_folder import HubFolder
    from .pictures import DatasetPictures
    from .project import Project
    from .server import make_app, start
    from .store import AnnotationStore

    token = os.environ.get("HF_TOKEN")
    if not token:
        raise DataError(f"add a secret HF_TOKEN to the Space's settings: a token that may write to {store}.")
    signs_in = "SPACE_ID" in os.environ
    if signs_in and "OAUTH_CLIENT_ID" not in os.environ:
        raise DataError("nobody could sign in, and anybody would write: add hf_oauth: true to the Space's README.md.")
    # A Space is stopped by this signal; what is not sent yet goes now.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="annotations-") as folder,
        HubFolder(store, Path(folder), token=token, source=source) as hub,
    ):
        project = Project(DatasetPictures(source, **options), AnnotationStore(hub.store), classes)
        host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
        # Without signing in, as on a machine of one's own, the address needs a key.
        key = None if signs_in else secrets.token_urlsafe(16)
        app = make_app(
            project,
            token=key,
            who=_signed_in(annotators) if signs_in else None,
            any_host=signs_in,
            host=host,
            framed_by="https://huggingface.co",
            more_paths=("/oauth/",) if signs_in else (),
        )
        if signs_in:
            from huggingface_hub import attach_huggingface_oauth

            attach_huggingface_oauth(app)
        running = start(app, host, None)
        url = running.url if key is None else f"{running.url}?token={key}"
        print(json.dumps({"running": url, "store": store}), flush=True)  # noqa: T201  # the Space's log
        try:
            running.wait()
        finally:
            running.close()


def _signed_in(annotators: list[str] | None) -> Any:
    """What tells the user name of a request; only some may come, if they are named."""
    from huggingface_hub import parse_huggingface_oauth

    from .server import SignInError

    def who(request: Any) -> str | None:
        found = parse_huggingface_oauth(request)
        name = found.user_info.preferred_username if found is not None else None
        if name is not None and annotators is not None and name not in annotators:
            raise SignInError(f"{name} is not one of the annotators of these pictures.")
        return name

    return who
