"""Let things go wrong on one of several processes, and write down what became of all: run by `accelerate launch`."""

import argparse
import json
import os
import signal
from pathlib import Path

from transformers import TrainerCallback
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.errors import LossError
from sage_hf.preemption import Preempted
from sage_hf.processes import leave_processes
from tests.conftest import SIZE, make_dataset, make_model
from tests.data.test_unusable import spoilt


class Terminate(TrainerCallback):
    """Sends SIGTERM to the second process alone."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Poisoned(SageTrainer):
    """The second process's batch of the third step holds NaN."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 2 and self.args.process_index == 1:
            self.places = inputs["row_places"].flatten().tolist()
            inputs = inputs | {"pixel_values": inputs["pixel_values"] * float("nan")}
        return super().compute_loss(model, inputs, *args, **kwargs)


def make_run(folder, dataset, callbacks=(), kind=SageTrainer, **settings):
    usual = {"per_device_train_batch_size": 2, "save_strategy": "no", "logging_steps": 1, "max_steps": 12}
    args = SageTrainingArguments(
        output_dir=str(folder), use_cpu=True, disable_tqdm=True, horizontal_flip=0.5, check_rows=0, **usual | settings
    )
    return kind(
        model=make_model("vit"),
        args=args,
        train_dataset=dataset,
        processing_class=ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}),
        callbacks=list(callbacks),
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main(out):
    record = {}

    # Of sixteen rows, twelve are broken: whole batches of two are, of one process and of both.
    stream = spoilt(16, set(range(2, 14))).to_iterable_dataset(num_shards=2)
    for name, dataset in (("rows", spoilt(16, set(range(12)))), ("stream", stream)):
        trainer = make_run(out / name, dataset, on_error="skip", max_steps=8)
        trainer.train()
        record[name] = {
            "steps": trainer.state.global_step,
            "skipped": trainer.skipped_rows(),
            "losses": losses(trainer),
        }

    trainer = make_run(out / "whole", make_dataset(16))
    trainer.train()
    record["whole"] = losses(trainer)
    trainer = make_run(out / "told", make_dataset(16), [Terminate()])
    try:
        trainer.train()
    except Preempted as ended:
        record["told"] = [ended.step, ended.code]
    trainer = make_run(out / "told", make_dataset(16))
    trainer.train(resume_from_checkpoint=True)
    record["resumed"] = losses(trainer)

    trainer = make_run(out / "poisoned", make_dataset(16), kind=Poisoned)
    try:
        trainer.train()
    except LossError as error:
        record["error"], record["places"] = str(error), getattr(trainer, "places", None)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"record-{trainer.args.process_index}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    main(out)
    leave_processes()
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    (out / f"threads-{os.environ['RANK']}.json").write_text(json.dumps(names))
