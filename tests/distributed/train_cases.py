"""
Train tiny models in many ways on two CPU processes, as copies (DDP) and split (FSDP2): run by `accelerate launch`.

The tests train the same on one process, with `train` from here.

accelerate splits models over devices alone, and trains copies where processes are on the CPU (`AcceleratorState` of
1.15). PyTorch's `fully_shard` splits them there as well, so accelerate is told `MULTI_GPU` where it would say
`MULTI_CPU`.
"""

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import state
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler, Subset
from transformers import TrainerCallback
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.evaluation import classification_metrics
from sage_hf.processes import leave_processes
from tests.conftest import SIZE, Rows, make_model
from tests.distributed.train_stream import make_stream


@dataclass
class Case:
    """A way to train, with as many rows a step on two processes as on one."""

    batch_size: int  # of each of two processes
    accumulation: int = 1
    rows: int = 16
    kind: str = "vit"
    eager: bool = False  # plain attention
    own_loss: bool = False
    split: bool = False  # FSDP2 is tried as well
    settings: dict[str, Any] = field(default_factory=dict)

    def arguments(self, processes: int) -> dict[str, Any]:
        if processes == 2:
            sizes = {"per_device_train_batch_size": self.batch_size, "gradient_accumulation_steps": self.accumulation}
            return sizes | {"rows": list(range(self.rows))} | self.settings
        # accelerate fills the last step up with the first rows, so that each process has as many.
        filled = -(-self.rows // (2 * self.batch_size)) * 2 * self.batch_size
        sizes = {"per_device_train_batch_size": 2 * self.batch_size * self.accumulation}
        return sizes | {"rows": [row % self.rows for row in range(filled)]} | self.settings


# Rows 0 to 5 of 16 have a map.
CASES = {
    # Maps of the two processes: 2 and 2, 2 and 0, 0 and 0, 0 and 0.
    "two rows each": Case(2, split=True),
    # 4 and 2, 0 and 0.
    "four rows each": Case(4, split=True),
    "accumulated": Case(2, accumulation=2, split=True),
    "uneven": Case(3, rows=14, split=True),
    "unguided": Case(2, split=True, settings={"guidance": "none"}),
    "weighted": Case(
        2, settings={"class_weights": ["0.2", "1", "3"], "label_smoothing_factor": 0.1, "freeze_backbone": True}
    ),
    "own loss": Case(2, own_loss=True),
    "recomputed": Case(2, settings={"view_forward": "recomputed"}),
    # It differentiates twice, and a process may have no row to do so.
    "gradient": Case(2, eager=True, settings={"guidance": "gradient"}),
}


class InOrder(SageTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


class Stop(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop = True


def squared(outputs, labels, num_items_in_batch=None):
    """A loss of one's own, written as transformers documents it."""
    misses = (outputs.logits.softmax(-1) - torch.nn.functional.one_hot(labels, 3)).square().sum(-1)
    return misses.mean() if num_items_in_batch is None else misses.sum() / num_items_in_batch


def make_case_model(case):
    model = make_model(case.kind)
    if case.eager:
        model.set_attn_implementation("eager")
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.0  # each process normalises by its own rows: keep that out of what is compared
    return model


def train(folder, case, dataset=None, callbacks=(), resume=None, rows=range(16), **settings):
    """What became of a run, and its weights."""
    usual = {
        "num_train_epochs": 2,
        "optim": "sgd",
        "learning_rate": 0.1,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "per_device_eval_batch_size": 3,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
    }
    usual |= {} if "guidance" in settings else {"degradation": "blur"}
    streamed = dataset is not None
    trainer = (SageTrainer if streamed else InOrder)(
        model=make_case_model(case),
        args=SageTrainingArguments(output_dir=str(folder), **usual | settings),
        train_dataset=dataset if streamed else Subset(Rows(), list(rows)),
        eval_dataset=Rows(),
        processing_class=ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}) if streamed else None,
        compute_metrics=classification_metrics,
        compute_loss_func=squared if case.own_loss else None,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    split = all(isinstance(parameter.data, DTensor) for parameter in trainer.model_wrapped.parameters())
    if trainer.args.save_strategy != "no":
        trainer.save_model()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in logs:
        entry.pop("data_wait", None)  # no two runs wait alike
    record = {
        "processes": trainer.accelerator.num_processes,
        "zero_stage": trainer.accelerator.state.deepspeed_plugin.zero_stage if trainer.is_deepspeed_enabled else 0,
        "split": split,
        "logs": logs,
        "metrics": trainer.evaluate(),
    }
    return record, trainer.accelerator.get_state_dict(trainer.deepspeed or trainer.model)


def stream():
    """Settings for thirteen rows in three shards, which two processes can't share evenly."""
    return {"dataset": make_stream(13, 3), "per_device_train_batch_size": 3, "max_steps": 6}


def telling_devices(plain):
    def init(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and os.environ["ACCELERATE_USE_FSDP"] == "true":
            self.distributed_type = DistributedType.MULTI_GPU

    return init


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    state.PartialState.__init__ = telling_devices(state.PartialState.__init__)
    two_rows, runs = CASES["two rows each"], {}
    for way in ("ddp", "fsdp"):
        os.environ["ACCELERATE_USE_FSDP"] = str(way == "fsdp").lower()
        for name, case in CASES.items():
            if way == "ddp" or case.split:
                runs[f"{way}/{name}"] = train(out / way / name, case, **case.arguments(2))
        runs[f"{way}/stream"] = train(out / way / "stream", two_rows, **stream())
    for way, kind in (("ddp", ""), ("fsdp", "FULL"), ("fsdp", "SHARDED")):
        os.environ["ACCELERATE_USE_FSDP"] = str(way == "fsdp").lower()
        os.environ["FSDP_STATE_DICT_TYPE"] = f"{kind}_STATE_DICT"
        folder = out / f"{way}{kind}"
        saved = {"per_device_train_batch_size": 4, "optim": "adamw_torch", "learning_rate": 0.01}
        saved |= {"save_strategy": "steps", "save_steps": 3}
        if way == "ddp" or kind == "SHARDED":  # uninterrupted, FULL would be the same
            runs[f"{way}{kind}/whole"] = train(out / "whole" / f"{way}{kind}", two_rows, **saved)
        train(folder, two_rows, callbacks=[Stop()], **saved)
        runs[f"{way}{kind}/resumed"] = train(folder, two_rows, resume=str(folder / "checkpoint-3"), **saved)
        if way == "fsdp":  # copies: test_streams.py
            train(folder / "stream", two_rows, callbacks=[Stop()], **saved | stream())
            last = str(folder / "stream" / "checkpoint-3")
            runs[f"{way}{kind}/stream resumed"] = train(folder / "stream", two_rows, resume=last, **saved | stream())
            if kind == "SHARDED":
                runs[f"{way}{kind}/stream"] = train(out / "whole" / "stream", two_rows, **saved | stream())
    os.environ["ACCELERATE_USE_FSDP"] = "false"
    resnet = Case(2, kind="resnet")
    runs["ddp/resnet"] = train(out / "resnet", resnet, **resnet.arguments(2))
    if int(os.environ["RANK"]) == 0:
        (out / "record.json").write_text(json.dumps({name: record for name, (record, _) in runs.items()}))
        weights = {
            f"{run}/{name}": value.contiguous() for run, (_, all) in runs.items() for name, value in all.items()
        }
        save_file(weights, out / "weights.safetensors")


if __name__ == "__main__":
    main()
    leave_processes()
