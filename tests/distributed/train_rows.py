"""Train a tiny model for some steps, and save its weights and logs: run by `accelerate launch` on 1 or 2 processes."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.evaluation import classification_metrics
from tests.conftest import Rows, make_model


class InOrder(SageTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def squared(outputs, labels, num_items_in_batch=None):
    """A loss of one's own, written as transformers documents it."""
    misses = (outputs.logits.softmax(-1) - torch.nn.functional.one_hot(labels, 3)).square().sum(-1)
    return misses.mean() if num_items_in_batch is None else misses.sum() / num_items_in_batch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, default={}, help="more arguments, as JSON")
    parser.add_argument("--own-loss", action="store_true")
    parser.add_argument("--eager", action="store_true", help="plain attention")
    options = parser.parse_args()

    args = SageTrainingArguments(
        output_dir=str(options.out),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=3,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.1,
        max_grad_norm=0.0,
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
        **({} if "guidance" in options.settings else {"degradation": "blur"}) | options.settings,
    )

    model = make_model(options.kind)
    if options.eager:
        model.set_attn_implementation("eager")
    if options.kind == "resnet":
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.0  # each process normalises by its own rows: keep that out of what is compared
    trainer = InOrder(
        model=model,
        args=args,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        compute_metrics=classification_metrics,
        compute_loss_func=squared if options.own_loss else None,
    )
    trainer.train()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        options.out.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
        save_file(weights, options.out / "weights.safetensors")
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        for entry in logs:
            entry.pop("data_wait", None)  # no two runs wait alike
        record = {"processes": trainer.accelerator.num_processes, "logs": logs, "metrics": metrics}
        (options.out / "record.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
