"""Train a tiny model from a stream, and write down what each process saw: run by `accelerate launch`."""

import argparse
import json
from pathlib import Path

import datasets
import numpy as np
from PIL import Image
from safetensors.torch import save_file
from transformers import TrainerCallback
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.evaluation import classification_metrics
from sage_hf.processes import leave_processes
from sage_hf.streaming import IDLE
from tests.conftest import CLASSES, SIZE, make_model


def make_stream(rows, num_shards):
    """Pictures of one grey each, which tells rows apart; all maps are the same, so that only their crops differ."""
    saliency = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    columns = {
        "image": [Image.new("RGB", (SIZE, SIZE), (10 * row,) * 3) for row in range(rows)],
        "saliency": [Image.fromarray(saliency)] * rows,
        "label": [row % 3 for row in range(rows)],
    }
    features = datasets.Features(
        {"image": datasets.Image(), "saliency": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    return datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset(num_shards=num_shards)


class Recording(SageTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training and IDLE not in inputs:
            greys = (inputs["pixel_values"].mean(dim=(1, 2, 3)) * 0.5 + 0.5) * 25.5
            crops = inputs["saliency"].double().sum(dim=(1, 2, 3))
            self.seen.append([self.state.global_step, greys.round().int().tolist(), crops.tolist()])
        return super().compute_loss(model, inputs, *args, **kwargs)


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = {}
    weights = {}
    # Thirteen rows: in three shards, which two processes can't share, they see seven and six; in two, one shard each.
    # Whole, killed after step 5 (in the second pass), and resumed.
    for name, num_shards, workers, stop, resume in (
        ("rows", 3, 0, None, None),
        ("shards", 2, 0, None, None),
        ("shards-killed", 2, 0, 5, None),
        ("shards-resumed", 2, 0, None, "shards-killed"),
        ("workers", 4, 2, None, None),
        ("workers-killed", 4, 2, 5, None),
        ("workers-resumed", 4, 2, None, "workers-killed"),
    ):
        folder = options.out / (resume or name)
        args = SageTrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=3,
            per_device_eval_batch_size=3,
            max_steps=8,
            dataloader_num_workers=workers,
            shuffle_buffer_size=4,
            random_crop_scale=0.4,
            degradation="blur",
            save_steps=5,
            logging_steps=1,
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Recording(
            model=make_model("vit"),
            args=args,
            train_dataset=make_stream(13, num_shards),
            eval_dataset=make_stream(7, num_shards),
            processing_class=ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}),
            compute_metrics=classification_metrics,
            callbacks=[Stop(stop)],
        )
        trainer.seen = []
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-5") if resume else None)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        record[name] = {"seen": trainer.seen, "losses": losses}
        if name == "rows":
            record[name]["accuracy"] = trainer.evaluate()["eval_accuracy"]
        weights |= {f"{name}/{key}": value.detach().clone() for key, value in trainer.model.state_dict().items()}
    options.out.mkdir(parents=True, exist_ok=True)
    index = trainer.args.process_index
    (options.out / f"record-{index}.json").write_text(json.dumps(record))
    if trainer.is_world_process_zero():
        save_file(weights, options.out / "weights.safetensors")


if __name__ == "__main__":
    main()
    leave_processes()
