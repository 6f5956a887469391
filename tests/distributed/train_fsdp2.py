"""
`train_rows.py` with FSDP2 on CPU processes: run by `accelerate launch`.

accelerate splits models on GPUs alone. PyTorch's `fully_shard` does it on CPUs as well, so accelerate is told that
this is a machine of several GPUs. That ends with training: what it gathers to save, on CPUs, is not waited for.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import state
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from tests.distributed import train_rows

plain = state.PartialState.__init__


def init(self, *args, **kwargs):
    plain(self, *args, **kwargs)
    self.distributed_type = DistributedType.MULTI_GPU


class Sharded(train_rows.InOrder):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        assert all(isinstance(parameter.data, DTensor) for parameter in self.model_wrapped.parameters())
        if self.is_world_process_zero():
            out = Path(self.args.output_dir)
            out.mkdir(parents=True, exist_ok=True)
            logs = [entry for entry in self.state.log_history if "loss" in entry]
            (out / "record.json").write_text(json.dumps({"logs": logs, "processes": self.args.world_size}))
        torch.distributed.destroy_process_group()
        sys.exit(0)


if __name__ == "__main__":
    state.PartialState.__init__ = init
    train_rows.InOrder = Sharded
    train_rows.main()
