"""Checkpoints on the Hub that training goes on from."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..checks import RUN_FILES, check_output_dir
from .attempts import Attempts

LAST = "last-checkpoint"
"""The folder in the repository with `hub_strategy="checkpoint"`."""

NEEDED = ("trainer_state.json", "optimizer.pt", "scheduler.pt")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
FETCHED = ("*.json", "*.safetensors", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")
"""What is downloaded: no other file of a stranger's checkpoint is needed, a `training_args.bin` least of all."""

ADDRESS = re.compile(
    rf"(?P<repo_id>[\w.-]+/[\w.-]+?)(?:/(?P<folder>{LAST}|{PREFIX_CHECKPOINT_DIR}-\d+))?(?:@(?P<revision>[^@]+))?"
)
T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """
    What `resume_from_checkpoint` names on the Hub.

    Args:
        text (`str`): as it was given, for errors.
        repo_id (`str`): `owner/name`.
        folder (`str`, *optional*): of the checkpoint in the repository; the latest if not given.
        revision (`str`, *optional*): branch, tag or commit; `main` if not given.
    """

    text: str
    repo_id: str
    folder: str | None = None
    revision: str | None = None


def on_hub(resume_from_checkpoint: str | bool | None) -> Address | None:
    """
    The address on the Hub that training is to resume from, `None` for what lies here or is no name at all.

    A folder here wins over a repository of the same name.

    Args:
        resume_from_checkpoint (`str` or `bool`, *optional*): as in `Trainer`.

    Example:

    ```python
    >>> from sage_hf.hub.resuming import on_hub
    >>> on_hub("me/run/checkpoint-20@v1.0")
    Address(text='me/run/checkpoint-20@v1.0', repo_id='me/run', folder='checkpoint-20', revision='v1.0')
    >>> on_hub("/data/run/checkpoint-20") is None
    True

    ```
    """
    if resume_from_checkpoint is None or isinstance(resume_from_checkpoint, bool):
        return None
    text = str(resume_from_checkpoint)
    match = ADDRESS.fullmatch(text)
    return None if match is None or Path(text).exists() else Address(text, **match.groupdict())


def find_checkpoint(address: Address, api: HfApi) -> tuple[str, str, list[str]]:
    """
    Look for the checkpoint that an address names.

    Args:
        address ([`Address`]): where.
        api (`HfApi`): with an endpoint and a token.

    Returns:
        `tuple`: the commit, the checkpoint's folder in the repository, and all files there.

    Raises:
        `ValueError`: no such repository or revision, or no checkpoint in it that training can be resumed from.
        [`PushError`]: the Hub could not be reached.
    """
    info = _ask(address, lambda: api.model_info(address.repo_id, revision=address.revision))
    commit, files = str(info.sha), [file.rfilename for file in info.siblings or []]
    folders = {name.split("/")[0] for name in files if name.endswith("/trainer_state.json")}
    numbered = [int(name.split("-")[1]) for name in folders if re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", name)]
    found = [f"{PREFIX_CHECKPOINT_DIR}-{step}" for step in sorted(numbered)] + [LAST] * (LAST in folders)
    if not found or (address.folder is not None and address.folder not in found):
        there = f"it has {', '.join(found)}" if found else "none at all"
        raise ValueError(
            f"{address.text} holds no checkpoint that training can be resumed from ({there}). They are pushed by runs "
            f"with hub_strategy='checkpoint' or 'all_checkpoints'. To start anew from its weights, give "
            f"{address.repo_id} as the model."
        )
    folder = address.folder or found[-1]
    if address.folder is None and folder == LAST and numbered and _step(address, commit, LAST, api) < max(numbered):
        folder = found[-2]
    names = {name.removeprefix(f"{folder}/") for name in files if name.startswith(f"{folder}/")}
    missing = [name for name in NEEDED if name not in names]
    if not names.intersection(WEIGHTS):
        missing.append("model.safetensors")
    if missing:
        raise ValueError(
            f"{folder} of {address.text} lacks {', '.join(missing)}: training can't be resumed exactly. Checkpoints "
            "need safetensors, and are whole without save_only_model, FSDP and DeepSpeed."
        )
    return commit, folder, files


def fetch_checkpoint(
    address: Address,
    output_dir: Path,
    *,
    best: bool = False,
    check: Callable[[Path], object] = lambda folder: None,
    owned: bool = False,
    api: HfApi,
) -> Path:
    """
    Put a checkpoint of the Hub into a run's folder, as if the run had saved it there itself.

    The weights are safetensors. The states of optimizer, scheduler and random numbers are pickles, which transformers
    reads with `torch.load(weights_only=True)`: that makes tensors, arrays and plain values, and runs no code of the
    file. It refuses torch below 2.6, whose reader could be deceived (CVE-2025-32434). Other files stay there.

    Args:
        address ([`Address`]): which one.
        output_dir (`Path`): the run's folder. If it holds this very checkpoint as its last and nothing else of a run,
            as after an attempt that failed early, that is used.
        best (`bool`, *optional*, defaults to `False`): fetch the best checkpoint so far as well, if it is there.
        check (`Callable`, *optional*): called with the downloaded folder before anything is put into `output_dir`.
        owned (`bool`, *optional*, defaults to `False`): what lies in `output_dir` is this trainer's own.
        api (`HfApi`): with an endpoint and a token.

    Returns:
        `Path`: `output_dir/checkpoint-N`.

    Raises:
        `FileExistsError`: `output_dir` holds another run.
        `ValueError`, [`PushError`]: as for [`find_checkpoint`].
    """
    commit, folder, files = find_checkpoint(address, api)
    state = _state(address, commit, folder, api)
    step, best_step = int(state["global_step"]), state.get("best_global_step")
    fetched = {folder: f"{PREFIX_CHECKPOINT_DIR}-{step}"}
    best_folder = f"{PREFIX_CHECKPOINT_DIR}-{best_step}"
    if best and best_step and f"{best_folder}/trainer_state.json" in files:
        fetched.setdefault(best_folder, best_folder)
    if not owned and any(
        path.name not in fetched.values() for pattern in RUN_FILES for path in output_dir.glob(pattern)
    ):
        check_output_dir(output_dir)
    snapshot = Path(
        _ask(
            address,
            lambda: api.snapshot_download(
                address.repo_id,
                revision=commit,
                allow_patterns=[f"{name}/{pattern}" for name in fetched for pattern in FETCHED],
            ),
        )
    )
    check(snapshot / folder)
    for name, saved_as in fetched.items():
        _put(snapshot / name, output_dir / saved_as, [file for file in files if file.startswith(f"{name}/")])
    return output_dir / fetched[folder]


def forget_folder(state_file: Path) -> None:
    """Leave the name of the best checkpoint in a saved state, not the path of the folder that it lies in."""
    state = json.loads(state_file.read_text())
    if state.get("best_model_checkpoint"):
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
        state_file.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")


def _put(source: Path, target: Path, files: list[str]) -> None:
    """Copy a checkpoint, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in (Path(file).name for file in files) if (source / name).is_file()]
    with tempfile.TemporaryDirectory(prefix="_fetched", dir=target.parent) as scratch:
        copy = Path(scratch) / target.name
        copy.mkdir()
        for name in names:
            shutil.copyfile(source / name, copy / name)
        forget_folder(copy / "trainer_state.json")
        try:
            copy.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            # It was there, or another machine with the same disk was faster.
            if any(filecmp.cmpfiles(copy, target, names, shallow=False)[1:]):
                message = f"{target} holds another checkpoint. Choose another output_dir, or move it away."
                raise FileExistsError(message) from None


def _step(address: Address, commit: str, folder: str, api: HfApi) -> int:
    return int(_state(address, commit, folder, api)["global_step"])


def _state(address: Address, commit: str, folder: str, api: HfApi) -> dict:
    name = f"{folder}/trainer_state.json"
    file = _ask(address, lambda: api.hf_hub_download(address.repo_id, name, revision=commit))
    return json.loads(Path(file).read_text(encoding="utf-8"))


def _ask(address: Address, call: Callable[[], T]) -> T:
    """The Hub's answer; what can't be mended by asking again is said in the words of `resume_from_checkpoint`."""

    def asked() -> T:
        try:
            return call()
        except OfflineModeIsEnabled:
            raise ValueError(
                f"resume_from_checkpoint={address.text}: there is no such folder here, and the Hub is not asked "
                "(HF_HUB_OFFLINE is set). Unset it, or name a folder."
            ) from None
        except RevisionNotFoundError:
            raise ValueError(f"{address.repo_id} has no revision {address.revision!r}.") from None
        except (RepositoryNotFoundError, HFValidationError):
            raise ValueError(_unknown(address)) from None
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code in (401, 403):
                raise ValueError(_unknown(address)) from None
            raise

    failure = f"{address.repo_id} could not be read from the Hub"
    return Attempts(address.repo_id, "Try again later: nothing was changed here.", failure=failure)(asked)


def _unknown(address: Address) -> str:
    return (
        f"resume_from_checkpoint={address.text}: there is no such folder here, and no repository {address.repo_id} on "
        "the Hub that you may read. If it is private, log in with `hf auth login`, or set HF_TOKEN."
    )
