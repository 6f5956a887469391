"""Checkpoints that are whole or not there at all, whenever a run is killed and however full the disk is."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

logger = logging.get_logger(__name__)

SCRATCH = ".saving"
"""Folder in the output folder where a checkpoint lies until it is whole."""

REPLACED = "replaced-"
"""How the name of a checkpoint begins, there, that a new one of the same step takes the place of."""

SENTINEL = "checkpoint-is-incomplete.txt"
"""What transformers' own just-in-time checkpoints hold until they are whole."""

AUTO = "auto"
"""Value of `resume_from_checkpoint`: go on if there is a checkpoint, start if there is none."""


def why_incomplete(folder: Path) -> str | None:
    """
    What is wrong with a checkpoint that was cut off while it was written; `None` for a whole one.

    The state of the Trainer is written last. Beside it, what weights and pickles say of their own length is compared
    with the files: a copy, or a disk after a power cut, may have lost their ends.

    Args:
        folder (`Path`): the checkpoint.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sage_hf.whole_checkpoints import why_incomplete
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     why_incomplete(Path(folder))
    'trainer_state.json is missing'

    ```
    """
    if (folder / SENTINEL).exists():
        return f"{SENTINEL} says so"
    state = folder / TRAINER_STATE_NAME
    if not state.is_file():
        return f"{TRAINER_STATE_NAME} is missing"
    try:
        json.loads(state.read_text(encoding="utf-8"))["global_step"]
    except (ValueError, KeyError):
        return f"{TRAINER_STATE_NAME} is cut off"
    for file in sorted(folder.glob("*.safetensors")):
        if is_cut_off(file):
            return f"{file.name} is cut off"
    for file in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
        if not zipfile.is_zipfile(file):
            return f"{file.name} is cut off"
    return None


def is_cut_off(weights: Path) -> bool:
    """Whether a file of safetensors ends before it says it does."""
    try:
        with safe_open(weights, "pt"):
            return False
    except SafetensorError:
        return True


def last_whole_checkpoint(output_dir: str | Path) -> tuple[Path | None, list[str]]:
    """
    The last checkpoint of a run that is whole, and why later ones are not.

    Args:
        output_dir (`str` or `Path`): the run's folder.

    Returns:
        `tuple`: the checkpoint's folder, `None` if there is none; a line for each later one that was passed over.
    """
    passed: list[str] = []
    for text in reversed(sort_checkpoints(str(output_dir))):
        checkpoint = Path(text)
        reason = why_incomplete(checkpoint)
        if reason is None:
            return checkpoint, passed
        passed.append(f"{checkpoint.name} is not whole: {reason}")
    return None, passed


def resumed_checkpoint(resume_from_checkpoint: str | bool | None, output_dir: str | Path) -> str | None:
    """
    The checkpoint's folder that training is to go on from, `None` to start.

    Args:
        resume_from_checkpoint (`str` or `bool`, *optional*): a folder; `True` for the last whole checkpoint in
            `output_dir`; `"auto"` for that, or none if there is no checkpoint at all.
        output_dir (`str` or `Path`): the run's folder.

    Raises:
        `ValueError`: there is no whole checkpoint, or the one that is named is not whole.
    """
    restore_replaced(Path(output_dir))
    if resume_from_checkpoint in (None, False):
        return None
    if resume_from_checkpoint is True or resume_from_checkpoint == AUTO:
        found, passed = last_whole_checkpoint(output_dir)
        if found is not None:
            for line in passed:
                logger.warning("%s. It is passed over.", line)
            logger.warning("Going on from %s.", found)
            return str(found)
        if passed:
            raise ValueError(
                f"{output_dir} has no whole checkpoint: {'; '.join(passed)}. Move them away and start anew."
            )
        if resume_from_checkpoint == AUTO:
            return None
        raise ValueError(
            f"{output_dir} has no checkpoint to go on from. Leave resume_from_checkpoint out to start, or give "
            "'auto', which starts if there is none."
        )
    folder = Path(str(resume_from_checkpoint))
    if folder.is_dir() and (reason := why_incomplete(folder)) is not None:
        raise ValueError(f"{folder} is not a whole checkpoint: {reason}. Go on from another one.")
    return str(resume_from_checkpoint)


def complete(written: Path, target: Path) -> None:
    """
    Put a checkpoint that was written elsewhere on the same disk into its place, in one step.

    What was written is on the disk before it gets its name, so that it is whole after a power cut as well. One of that
    name that is there already goes when the new one is in its place.

    Args:
        written (`Path`): where it lies.
        target (`Path`): where it is to be.
    """
    for path in [*written.rglob("*"), written]:
        _sync(path)
    replaced = None
    if target.exists():
        replaced = written.with_name(f"{REPLACED}{target.name}")
        target.rename(replaced)
    written.rename(target)
    _sync(target.parent)
    if replaced is not None:
        shutil.rmtree(replaced)


def restore_replaced(output_dir: Path) -> None:
    """
    Give a checkpoint its name back that lost it in [`complete`], if the run was killed before the new one had it.

    Args:
        output_dir (`Path`): the run's folder.
    """
    for replaced in (output_dir / SCRATCH).glob(f"{REPLACED}*"):
        target = output_dir / replaced.name.removeprefix(REPLACED)
        if not target.exists():
            with suppress(FileNotFoundError):  # another process of the run did it
                replaced.rename(target)


def remove_old_checkpoints(last: Path, limit: int | None, *kept: str | Path) -> None:
    """
    Leave the latest checkpoints alone, and the best one, as [`~transformers.Trainer`] does.

    Each loses its name first, so that none is ever found half removed.

    Args:
        last (`Path`): the one that was just written, beside all others.
        limit (`int`, *optional*): how many to keep at most, but for those that have to stay; all if not given.
        *kept (`str` or `Path`): what has to stay: the best one, and one that is being uploaded.
    """
    if limit is None or limit <= 0:
        return
    checkpoints = [Path(text) for text in sort_checkpoints(str(last.parent), use_mtime=True)]
    protected = {last.name} | {Path(one).name for one in kept}
    excess = len(checkpoints) - max(limit, len(protected))
    for checkpoint in [one for one in checkpoints if one.name not in protected][: max(0, excess)]:
        nameless = last.parent / SCRATCH / f"removed-{checkpoint.name}"
        nameless.parent.mkdir(exist_ok=True)
        shutil.rmtree(nameless, ignore_errors=True)
        checkpoint.rename(nameless)
        shutil.rmtree(nameless, ignore_errors=True)


@contextmanager
def explaining_a_full_disk(target: Path) -> Iterator[None]:
    """
    Say of what can't be written why, and where the last whole checkpoint is.

    Args:
        target (`Path`): what is being written, in the run's folder.

    Raises:
        `OSError`: the disk is full, or can't be written to for another reason.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(name in str(error) for name in TORCH_WRITERS):
            raise
        found, _ = last_whole_checkpoint(target.parent)
        free = shutil.disk_usage(target.parent).free / 1e6
        left = f"The last whole checkpoint is {found}" if found else "There is no earlier checkpoint"
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"{target} could not be written ({reason}); {free:.0f} MB are free there. {left}. Make room, then go on "
            "with resume_from_checkpoint=True (--resume_from_checkpoint true)."
        ) from error


TORCH_WRITERS = ("PytorchStreamWriter", "inline_container", "PyTorchFileWriter", "No space left")
"""What torch's errors of writing name, which are no `OSError`."""


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint_name(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"{PREFIX_CHECKPOINT_DIR}-{step}"
