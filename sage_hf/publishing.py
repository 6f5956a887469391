"""A Trainer that publishes: while it trains and when asked to, checked, merged and repeated as `sage-hf push` does."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from .hub.attempts import Attempts
from .hub.push import send_checkpoint, send_run
from .hub.resuming import forget_folder

logger = logging.get_logger(__name__)

RESUMPTION_FILES = (
    *("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "trainer_progress", "callbacks"),
    *("pytorch_model_fsdp", "latest", "zero_to_"),
)
"""How the names of those files of a checkpoint begin that only resuming needs, by FSDP and DeepSpeed the last."""


class PublishingTrainer(Trainer):
    """What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where the Hub is concerned."""

    _card: dict[str, Any]
    """What the card was given, its template among it."""

    _pushes: tuple[Future[CommitInfo], ...] = ()
    """The pushes of this training, finished or not."""

    _uploaded: Path | None = None
    """The checkpoint that the last push sends, or sent, folder and all."""

    def keep_for_card(self, **kwargs: Any) -> None:
        """
        Remember what later cards are to say, those of pushes during training included.

        Args:
            **kwargs: as for [`SageTrainer.create_model_card`]; what is `None` is passed over.
        """
        self._card |= {name: value for name, value in kwargs.items() if value is not None}

    def push_to_hub(  # type: ignore[override]  # Trainer says CommitInfo where it returns a Future
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """
        Save the model and publish the output folder, as `Trainer` does, with what [`~sage_hf.hub.push.push_run`] adds.

        It differs from `Trainer` in that the folder is checked before anything leaves, that edits of the card on the
        Hub stay, that a Hub that stumbles is asked again, that `revision` is made if there is no such branch, and that
        what only resuming needs and what trackers wrote (TensorBoard's `runs/`, host names in it) stays here.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): of the commit.
            blocking (`bool`, *optional*, defaults to `True`): wait until it has arrived. If not, leave the output
                folder as it is until the `Future` is done.
            token (`str`, *optional*): with write access; `args.hub_token`, or that of the environment, if not given.
            revision (`str`, *optional*): branch to push to; `args.hub_revision`, or `main`, if not given.
            private (`bool`, *optional*): make a new repository private; `args.hub_private_repo` if not given.
            **kwargs: passed along to [`SageTrainer.create_model_card`].

        Returns:
            `CommitInfo`, a `Future` of it if not `blocking`, `None` on all processes but the first.

        Raises:
            `ValueError`: the folder should not be published, or its card was edited both here and on the Hub.
            [`PushError`]: the Hub did not take it. The checkpoint is saved in the output folder.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        token = token if token is not None else self.args.hub_token
        private = private if private is not None else self.args.hub_private_repo
        folder, api = Path(str(self.args.output_dir)), HfApi(token=token)
        self._finish_current_push()
        if self.hub_model_id is None:
            again = f"The checkpoint is saved in {folder}: push again."
            name = self.args.hub_model_id or folder.resolve().name
            Attempts(name, again)(lambda: self.init_hf_repo(token=token, private=private))
        if kwargs.get("model_name") is None:
            kwargs["model_name"] = (self.args.hub_model_id or folder.resolve().name).split("/")[-1]
        given = kwargs.get("tags") or []
        own: list[str] = getattr(self.model, "model_tags", None) or []
        kwargs["tags"] = list(dict.fromkeys([*([given] if isinstance(given, str) else given), *own])) or None
        self.create_model_card(**kwargs)
        push = partial(
            send_run,
            folder,
            str(self.hub_model_id),
            private=private,
            revision=revision if revision is not None else self.args.hub_revision,
            template=self._card.get("template"),
            commit_message=commit_message,
            api=api,
        )
        return push() if blocking else api.run_as_future(push)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """
        Push a checkpoint while training goes on, as `Trainer` does, with a fresh card and the edits made on the Hub.

        Not `Trainer`'s own method: it pickles the arguments, Hub token included, into what it uploads. With
        `hub_always_push`, training waits for the push before, whose files would change under the upload.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self.push_in_progress is not None and not self.push_in_progress.is_done():
            if not self.args.hub_always_push:
                return
            self.push_in_progress.wait_until_done()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        checkpoint, output_dir = Path(checkpoint_folder), Path(str(self.args.output_dir))
        forget_folder(checkpoint / TRAINER_STATE_NAME)
        for path in checkpoint.iterdir():
            if path.is_file() and not path.name.startswith(RESUMPTION_FILES):
                shutil.copy(path, output_dir / path.name)
        self.create_model_card(model_name=output_dir.resolve().name)

        by_step = self.args.save_strategy == SaveStrategy.STEPS
        progress = f"step {self.state.global_step}" if by_step else f"epoch {int(self.state.epoch or 0)}"
        message = f"Training in progress, {progress}"
        api, repo_id, revision = HfApi(token=self.args.hub_token), str(self.hub_model_id), self.args.hub_revision
        template = self._card.get("template")
        pushes: list[Any] = [
            partial(send_run, output_dir, repo_id, revision=revision, template=template, commit_message=message)
        ]
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            self._uploaded = checkpoint
            where = "last-checkpoint" if self.args.hub_strategy == HubStrategy.CHECKPOINT else checkpoint.name
            message += ", checkpoint"
            pushes.append(
                partial(send_checkpoint, checkpoint, repo_id, where, revision=revision, commit_message=message)
            )
        jobs = [api.run_as_future(push, api=api) for push in pushes]
        self._pushes = (*self._pushes, *jobs)
        # Trainer says None, and gives it a list as well.
        self.push_in_progress = PushInProgress(jobs)  # type: ignore[arg-type, assignment]

    def _finish_current_push(self) -> None:
        """
        As in `Trainer`, which does not say what became of the pushes: those that failed are warned of, once.

        No error, because training itself went well, and what comes after it must not be lost.
        """
        super()._finish_current_push()
        errors = [error for job in self._pushes if (error := job.exception()) is not None]
        if errors:
            logger.warning(
                "%d of %d pushes during training failed. The last error: %s\nThe checkpoints are in %s. Push again "
                "with trainer.push_to_hub(), or `sage-hf push %s %s`.",
                len(errors),
                len(self._pushes),
                f"{type(errors[-1]).__name__}: {errors[-1]}",
                self.args.output_dir,
                self.args.output_dir,
                self.hub_model_id,
            )
        self._pushes = ()
