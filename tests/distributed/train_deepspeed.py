"""
Train tiny models with DeepSpeed on two CPU processes: run by `accelerate launch`.

DeepSpeed trains on CPUs, over gloo, and accelerate starts it on GPUs alone (`PartialState._prepare_backend` of 1.15),
so it is told gloo where it would find nothing. `use_cpu` is not set, as accelerate then trains copies without it.
"""

import argparse
import json
import os
from pathlib import Path

from accelerate import state
from accelerate.utils import DistributedType
from safetensors.torch import save_file

from sage_hf.processes import leave_processes
from tests.distributed.train_cases import CASES, Stop, stream, train

NAMES = ["two rows each", "four rows each", "accumulated", "uneven", "unguided", "own loss", "weighted", "recomputed"]
REFUSED = {3: ["recomputed"]}
"""By stage."""


def names_of(stage):
    return [name for name in NAMES if name not in REFUSED.get(stage, [])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    state.PartialState._prepare_backend = lambda *args: ("gloo", DistributedType.MULTI_CPU)
    stage = int(os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"])
    two_rows, runs = CASES["two rows each"], {}
    for name in names_of(stage):
        runs[name] = train(out / name, CASES[name], **CASES[name].arguments(2), use_cpu=False)
    runs["stream"] = train(out / "stream", two_rows, **stream(), use_cpu=False)
    saved = {"per_device_train_batch_size": 4, "optim": "adamw_torch", "learning_rate": 0.01, "use_cpu": False}
    saved |= {"save_strategy": "steps", "save_steps": 3}
    for kind, more in (("rows", {}), ("streamed", stream())):
        runs[f"{kind}/whole"] = train(out / f"{kind}-whole", two_rows, **saved | more)
        folder = out / kind
        train(folder, two_rows, callbacks=[Stop()], **saved | more)
        runs[f"{kind}/resumed"] = train(folder, two_rows, resume=str(folder / "checkpoint-3"), **saved | more)
    if int(os.environ["RANK"]) == 0:
        (out / "record.json").write_text(json.dumps({name: record for name, (record, _) in runs.items()}))
        weights = {
            f"{run}/{name}": value.contiguous() for run, (_, all) in runs.items() for name, value in all.items()
        }
        save_file(weights, out / "weights.safetensors")


if __name__ == "__main__":
    main()
    leave_processes()
