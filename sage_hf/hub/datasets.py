"""Publish a dataset: checked first, pictures inside, with a card written from the data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from transformers.utils import logging

from ..data import check_dataset
from ..data.saliency import DataError
from .attempts import Attempts
from .dataset_card import SAMPLES, DatasetRecord, keep_other_configs, render_dataset_card
from .dataset_contents import inspect, sample_sheet
from .dataset_files import DatasetFiles, dataset_files
from .edits import CARD, Memory, reconciled, remote_card
from .repository import Pushed, check_target, open_target
from .secrets import check_text
from .sections import refresh

logger = logging.get_logger(__name__)
MEMORY = ".pushed_cards.json"
"""As [`~sage_hf.hub.push.PUSHED`]; hidden, so that `load_dataset` of the folder does not read it."""
DIGITS = "[0-9]" * 5
STALE = (f"data/*-{DIGITS}-of-{DIGITS}.parquet", SAMPLES)
"""What an earlier push may have left on the Hub, and this one replaces."""


def push_dataset(
    dataset: str | Path | datasets.DatasetDict | datasets.Dataset,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    allow: Iterable[str] = (),
    annotation: str | None = None,
    granularity: str | None = None,
    source: str | None = None,
    license: str | None = None,
    citation: str | None = None,
    pictures: int = 2,
    template: str | Path | None = None,
    image_column: str = "image",
    saliency_column: str = "saliency",
    label_column: str = "label",
    source_revision: str | None = None,
    num_proc: int = 1,
    scratch: str | Path | None = None,
    api: HfApi | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Pushed:
    """
    Push a dataset to a dataset repository, as parquet files that hold the pictures, with a card written from the data.

    Nothing is sent before [`~sage_hf.data.check_dataset`] has passed. Pictures are published byte by byte as they are,
    under their names without folders. A folder whose parquet files are fit for that, as `sage-hf data build` makes
    them, is uploaded as it is; anything else is written to a temporary folder first. A card that people have edited,
    here or on the Hub, keeps their edits, and other files on the Hub stay. The push may be repeated: what has arrived
    is not sent again, and nothing is committed twice.

    Args:
        dataset (`str`, `Path`, `DatasetDict` or `Dataset`):
            A folder with parquet files, an ImageFolder, a folder of `save_to_disk`, splits, or a Hub id (to copy it).
        repo_id (`str`): `owner/name`; made if it does not exist.
        private (`bool`, *optional*): make a new repository private; as its owner has set if not given.
        revision (`str`, *optional*): branch, made if it does not exist; `main` if not given.
        create_pr (`bool`, *optional*, defaults to `False`): open a pull request and push to that.
        allow (`Iterable[str]`, *optional*): names of checks whose errors don't stop the push; the card names them.
        annotation (`str`, *optional*): how the maps came about, in words.
        granularity (`str`, *optional*): how finely they were marked, in words: boxes, outlines, strokes.
        source (`str`, *optional*): where the pictures come from, in words.
        license (`str`, *optional*): identifier of the licence, as the Hub knows it (`cc-by-4.0`).
        citation (`str`, *optional*): BibTeX.
        pictures (`int`, *optional*, defaults to 2):
            How many annotated pictures of each class to show on the card: the first ones. 0 for no sheet of samples.
        template (`str` or `Path`, *optional*): of the card, as for [`render_dataset_card`].
        image_column (`str`, *optional*, defaults to `"image"`): column of the pictures.
        saliency_column (`str`, *optional*, defaults to `"saliency"`): column of the maps.
        label_column (`str`, *optional*, defaults to `"label"`): column of the classes.
        source_revision (`str`, *optional*): of a dataset on the Hub that is copied.
        num_proc (`int`, *optional*, defaults to 1): for the checks.
        scratch (`str` or `Path`, *optional*): where to make the temporary folder.
        api (`HfApi`, *optional*): with an endpoint and a token; those of the environment if not given.
        wait (`Callable`, *optional*): waits between attempts, in seconds.

    Returns:
        [`Pushed`]: address and commit.

    Raises:
        `ValueError`: the data should not be published ([`DataError`]: they did not pass a check that was not allowed),
            or the card was edited both here and on the Hub.
        [`PushError`]: the Hub did not take it.

    Example:

    ```python
    >>> from sage_hf.hub import push_dataset
    >>> push_dataset("./no/such/folder", "you/lesions")
    Traceback (most recent call last):
    ...
    sage_hf.data.saliency.DataError: './no/such/folder' is not a folder.

    ```
    """
    check_target(revision, create_pr)
    if pictures < 0:
        raise ValueError(f"pictures should be 0 or more, not {pictures}.")
    api, allowed = api or HfApi(), tuple(allow)
    columns = {"image": image_column, "saliency": saliency_column, "label": label_column}
    with tempfile.TemporaryDirectory(prefix="sage-hf-push-", dir=scratch) as made:
        files = dataset_files(dataset, Path(made), label_column=label_column, source_revision=source_revision)
        report = check_dataset(
            files.stream(),
            allow=allowed,
            num_proc=num_proc,
            image_column=image_column,
            saliency_column=saliency_column,
            label_column=label_column,
        )
        if not report.passed:
            raise DataError(_refusal(report, allowed))
        contents = inspect(files, image_column, saliency_column, label_column, pictures)
        sheet = sample_sheet(contents, pictures) if pictures else None
        figures = report.to_dict()
        record = DatasetRecord(
            repo_id=repo_id,
            features=files.features,
            rows=dict(contents.rows),
            num_bytes=dict(contents.bytes),
            download_size=files.bytes,
            stats=figures["stats"],
            findings=figures["findings"],
            columns=columns,
            sources=dict(contents.sources),
            annotation=annotation,
            granularity=granularity,
            source=source,
            license=license,
            citation=citation,
            samples=_caption(pictures) if sheet else None,
        )
        generated = render_dataset_card(record, template)
        check_text("The card", generated.encode())
        added = files.paths
        if sheet is not None:
            sheet.save(Path(made) / SAMPLES)
            added[SAMPLES] = Path(made) / SAMPLES
        return _send(files, generated, added, repo_id, api, wait, (private, revision, create_pr))


def _refusal(report: Any, allowed: tuple[str, ...]) -> str:
    errors = [one for one in report.findings if one.severity == "error" and one.check not in allowed]
    lines = []
    for one in errors:
        examples = "".join(f"\n      {example}" for example in one.examples[:3])
        lines.append(f"  {one.check}: {one.message}{examples}")
    names = " ".join(f"--allow {one.check}" for one in errors)
    return "\n".join(
        [
            "The data did not pass `sage-hf data check`; nothing was sent.",
            *lines,
            f"Mend them, or publish them as they are with allow=[...] ({names}): the card will name them.",
        ]
    )


def _caption(pictures: int) -> str:
    which = "The first annotated picture" if pictures == 1 else f"The first {pictures} annotated pictures"
    return f"{which} of each class, and their maps in red."


def _send(
    files: DatasetFiles,
    generated: str,
    added: dict[str, Path],
    repo_id: str,
    api: HfApi,
    wait: Callable[[float], None],
    where: tuple[bool | None, str | None, bool],
) -> Pushed:
    private, revision, create_pr = where
    again = "Nothing here was changed. Repeat the push: what has arrived is not sent again."
    attempt, title = Attempts(repo_id, again, wait), "Upload dataset"
    target = open_target(
        repo_id,
        api,
        attempt,
        repo_type="dataset",
        private=private,
        revision=revision,
        create_pr=create_pr,
        title=title,
    )
    there = attempt(lambda: remote_card(repo_id, target.revision, api, "dataset"))
    memory = Memory(files.folder / MEMORY) if files.folder is not None else None
    here = _card_of(files.folder)
    last = memory.last(repo_id, target.revision) if memory is not None else (None, None)
    card = reconciled(keep_other_configs(generated, there), here, there, last, partial(refresh, data=True))
    if card is None:
        raise ValueError(
            f"README.md was edited both in {files.folder} and on the Hub ({repo_id}). Bring the two together in "
            f"{files.folder}/README.md, and put the same text on the Hub; or remove one of them."
        )
    check_text("The card", card.encode())

    def send() -> str:
        # Anew at each attempt, operations remember the Hub as it was: a commit whose answer was lost has been made,
        # and then there is nothing left to add or to delete.
        additions = [CommitOperationAdd(path, file) for path, file in added.items()]
        additions.append(CommitOperationAdd(CARD, card.encode()))
        new = {operation.path_in_repo for operation in additions}
        old = api.list_repo_files(repo_id, repo_type="dataset", revision=target.revision)
        stale = [path for path in old if path not in new and any(fnmatch(path, pattern) for pattern in STALE)]
        commit = api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(path) for path in stale)],
            repo_type="dataset",
            revision=target.revision,
            commit_message=title,
        )
        return commit.oid

    commit = attempt(send)
    if memory is not None:
        try:
            memory.remember(repo_id, target.revision, there=card, here=here)
        except OSError as error:  # the push is done; without it, a later one asks where both cards were edited
            logger.warning(
                "%s can't be written (%s): a later push can't tell which card was edited.", memory.file, error
            )
    return Pushed(url=f"{api.endpoint}/datasets/{repo_id}", commit=commit, pull_request=target.pull_request)


def _card_of(folder: Path | None) -> str | None:
    path = folder / CARD if folder is not None else None
    return path.read_text(encoding="utf-8") if path is not None and path.is_file() else None
