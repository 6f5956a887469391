"""
Kill a training with SIGKILL at random moments, go on from its last checkpoint, and compare with one left alone.

A run is started, killed at a random step and a random moment of it (in a forward pass, between two steps, amid a
checkpoint), started again with `resume_from_checkpoint="auto"`, killed again, and so on, five times a run, until it
may end. Its losses, as logged, and its weights must be those of an uninterrupted run, bit for bit.

    python training/benchmarks/kill_resume.py --kills 50 --out training/benchmarks/kill_resume.json

The model is a small vision transformer with dropout, on 14 pictures of noise: a second or two a run on one CPU core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datasets
import numpy as np
import torch
import transformers
from PIL import Image
from transformers import TrainerCallback, ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import SageTrainer, SageTrainingArguments, __version__

STEPS = 20
KILLS_A_RUN = 5
COMMON = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 2,
    "random_crop_scale": 0.5,
    "horizontal_flip": 0.5,
    "color_jitter": 0.2,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "rows": {"degradation": "noise", "guidance_interval": 2},
    "rows, accumulated": {"degradation": "shuffle", "guidance_interval": 3, "gradient_accumulation_steps": 2},
    "rows, two workers": {"degradation": "noise", "guidance_interval": 2, "dataloader_num_workers": 2},
    "stream": {"degradation": "noise", "guidance_interval": 2, "shuffle_buffer_size": 6},
    "stream, accumulated, one kept": {
        "degradation": "shuffle",
        "guidance_interval": 3,
        "shuffle_buffer_size": 6,
        "gradient_accumulation_steps": 2,
        "save_total_limit": 1,
    },
}
PHASES = ("starting", "training", "saving", "between steps")


def make_dataset() -> datasets.Dataset:
    """Pictures of noise, ten of fourteen with a marked rectangle."""
    generator = np.random.default_rng(0)
    marked = np.zeros((40, 48), dtype=np.uint8)
    marked[5:20, 8:30] = 200
    columns = {
        "image": [Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(14)],
        "saliency": [Image.fromarray(marked)] * 10 + [None] * 4,
        "label": [row % 3 for row in range(14)],
    }
    features = datasets.Features(
        image=datasets.Image(), saliency=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )
    return datasets.Dataset.from_dict(columns, features=features, split=datasets.Split.TRAIN)


class Tell(TrainerCallback):
    """Tells the process that may kill this one where it is."""

    def __init__(self, step: Any, phase: Any):
        self.step, self.phase = step, phase

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step.value, self.phase.value = state.global_step + 1, PHASES.index("training")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.phase.value = PHASES.index("saving" if control.should_save else "between steps")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.phase.value = PHASES.index("between steps")


def train(folder: Path, setting: str, callback: TrainerCallback) -> None:
    """Train in this process, from the last checkpoint if there is one, and write down what came of it."""
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.1,
        initializer_range=0.3,
        num_labels=3,
    )
    torch.manual_seed(0)
    args = SageTrainingArguments(
        output_dir=str(folder / "run"), use_cpu=True, report_to="none", disable_tqdm=True, **COMMON | SETTINGS[setting]
    )
    rows: Any = make_dataset()
    trainer = SageTrainer(
        model=ViTForImageClassification(config),
        args=args,
        train_dataset=rows.to_iterable_dataset(num_shards=3) if setting.startswith("stream") else rows,
        processing_class=ViTImageProcessorPil(size={"height": 32, "width": 32}),
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint="auto")
    weights = hashlib.sha256()
    for name, tensor in sorted(trainer.model.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    timed = ("runtime", "per_second", "data_wait")
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    log = [{name: value for name, value in entry.items() if not name.endswith(timed)} for entry in log]
    (folder / "done.json").write_text(json.dumps({"log": log, "weights": weights.hexdigest()}))


def start(folder: Path, setting: str, step: Any, phase: Any) -> int:
    """Train in a process of its own, which needs not import everything anew."""
    step.value, phase.value = 0, 0
    pid = os.fork()
    if pid:
        return pid
    os.setsid()  # workers go with it
    with (folder / "output.txt").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        code = 1
        try:
            train(folder, setting, Tell(step, phase))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def killed_run(folder: Path, setting: str, kills: int, seconds: float, draw: random.Random) -> list[dict[str, Any]]:
    """
    A run that is killed some times, then left alone.

    Args:
        folder (`Path`): of the run.
        setting (`str`): which one.
        kills (`int`): how often.
        seconds (`float`): a step takes, about.
        draw (`random.Random`): of the moments.

    Returns:
        `list[dict]`: of each kill, the step, what the run was doing, and the checkpoints that it left.
    """
    step, phase = multiprocessing.Value("i", 0, lock=False), multiprocessing.Value("i", 0, lock=False)
    found: list[dict[str, Any]] = []
    run, before = folder / "run", folder / "before"
    run.mkdir()
    while True:
        done = max((int(path.name.split("-")[1]) for path in run.glob("checkpoint-*")), default=0)
        shutil.copytree(run, before)
        pid = start(folder, setting, step, phase)
        target, delay, reached = STEPS + 1, draw.uniform(0, seconds), None
        if len(found) < kills:  # so that the kills are spread over the run
            reach = max(1, 2 * (STEPS - done) // (kills - len(found) + 1))
            target = draw.randint(done + 1, done + reach) if done < STEPS else 0  # 0: as it starts
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if step.value >= target:
                reached = reached or time.monotonic()
                if time.monotonic() - reached >= delay:
                    at, doing = step.value, PHASES[phase.value]
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    left = sorted(path.name for path in run.iterdir())
                    found.append({"step": at, "while": doing, "left": left})
                    break
            time.sleep(0.0005)
        else:
            if ended[1]:
                raise RuntimeError((folder / "output.txt").read_text()[-4000:])
            if len(found) == kills:
                return found
            (folder / "done.json").unlink()  # it was faster than its killer: once more from where it began
            shutil.rmtree(run)
            shutil.copytree(before, run)
        shutil.rmtree(before)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--out", type=Path, required=True, help="new JSON file")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise FileExistsError(f"{args.out} is there already. Choose another --out, or move it away.")
    torch.set_num_threads(1)
    draw, began = random.Random(args.seed), time.monotonic()
    runs, whole = [], {}
    rest = args.kills
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(-(-args.kills // KILLS_A_RUN)):
            setting = args.settings[number % len(args.settings)]
            if setting not in whole:
                folder = Path(scratch) / f"whole-{len(whole)}"
                folder.mkdir()
                started = time.monotonic()
                killed_run(folder, setting, 0, 0.0, draw)
                whole[setting] = json.loads((folder / "done.json").read_text()) | {
                    "seconds": time.monotonic() - started
                }
            folder = Path(scratch) / f"killed-{number}"
            folder.mkdir()
            seconds = whole[setting]["seconds"] / STEPS
            kills = killed_run(folder, setting, min(KILLS_A_RUN, rest), seconds, draw)
            rest -= len(kills)
            found = json.loads((folder / "done.json").read_text())
            equal = {name: found[name] == whole[setting][name] for name in ("log", "weights")}
            runs.append(
                {"setting": setting, "kills": kills, "equal_log": equal["log"], "equal_weights": equal["weights"]}
            )
            said = ", ".join(f"{kill['step']} ({kill['while']})" for kill in kills)
            print(f"{setting}: killed at steps {said}; log equal: {equal['log']}, weights equal: {equal['weights']}")
    survived = sum(len(run["kills"]) for run in runs if run["equal_log"] and run["equal_weights"])
    record = {
        "kills": sum(len(run["kills"]) for run in runs),
        "survived": survived,
        "while": {name: sum(kill["while"] == name for run in runs for kill in run["kills"]) for name in PHASES},
        "seconds": round(time.monotonic() - began, 1),
        "versions": {"sage_hf": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "runs": runs,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{survived} of {record['kills']} kills survived, in {record['seconds']} s")
    return 0 if survived == record["kills"] else 1


if __name__ == "__main__":
    sys.exit(main())
