"""A Trainer that evaluates raw data too, and whose loss of an evaluation is a mean over rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from .data.preparation import Preparation
from .evaluated_loss import EvaluatedLoss
from .forwarding import Encoder
from .surviving import SurvivingTrainer


class EvaluatingTrainer(SurvivingTrainer):
    """What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where it evaluates and predicts."""

    preparation: Preparation
    _encoder: Encoder
    _evaluated: EvaluatedLoss | None = None
    """Of the evaluation that is under way."""

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor | None, Any, Any]:
        """As in `Trainer`; without labels, the logits alone."""
        if all(inputs.get(name) is not None for name in self.label_names):
            predicted = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
            if self._evaluated is not None:
                self._evaluated.gather(self.accelerator, predicted[0])
            return predicted
        inputs = {name: value for name, value in self._prepare_inputs(inputs).items() if name != "labels"}
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self._encoder.logits(model, inputs)
        return None, None if prediction_loss_only else logits, None

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in `Trainer`; the task's loss is a mean over all rows, see [`~sage_hf.evaluated_loss.EvaluatedLoss`]."""
        outer, self._evaluated = self._evaluated, EvaluatedLoss()  # metrics may predict, in the midst of it
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            loss = self._evaluated.mean(finite_only=self.args.logging_nan_inf_filter)
        finally:
            self._evaluated = outer
        if loss is not None and output.metrics is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        return output

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in `Trainer`; a raw dataset gets the aligned transform."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self.preparation(eval_dataset, "evaluation")
            # With persistent workers, Trainer keeps the loader of any dataset that is passed under one name.
            getattr(self, "_eval_dataloaders", {}).pop("eval", None)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As in `Trainer`; a raw dataset gets the aligned transform."""
        return super().get_test_dataloader(self.preparation(test_dataset, "test", labelled=False))
