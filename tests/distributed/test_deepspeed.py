"""
DeepSpeed on two CPU processes: the same losses, weights and metrics as on one process, with weights copied and split.

Not in `make test`, as building DeepSpeed needs torch there already, and a C++ compiler:

    pip install --no-build-isolation deepspeed
    pytest tests/distributed/test_deepspeed.py
"""

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForImageClassification

from tests.distributed.test_two_processes import FSDP2, assert_same, one, read_runs, run  # noqa: F401
from tests.distributed.train_deepspeed import names_of

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
STAGES = (2, 3)


@pytest.fixture(scope="module")
def outs(tmp_path_factory):
    folders = {}
    for stage in STAGES:
        folders[stage] = tmp_path_factory.mktemp(f"zero{stage}")
        flags = (f"--config_file={FSDP2.with_name(f'zero{stage}.yaml')}",)
        # accelerate trains copies without DeepSpeed where it is told that it is for the CPU.
        on_cpu = {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false"}
        run(2, "train_deepspeed.py", "--out", str(folders[stage]), flags=flags, environment=on_cpu)
    return folders


@pytest.fixture(scope="module")
def runs(outs):
    return {stage: read_runs(out) for stage, out in outs.items()}


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage in STAGES for name in names_of(stage)])
def test_two_processes_train_as_one(runs, one, stage, name):  # noqa: F811
    record, _ = runs[stage][name]
    assert (record["processes"], record["zero_stage"]) == (2, stage)
    assert_same(runs[stage][name], one(name))


def test_a_stream_ends_unevenly(runs):
    assert len(runs[2]["stream"][0]["logs"]) == 6
    assert_same(runs[3]["stream"], runs[2]["stream"])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["rows", "streamed"])
def test_killed_and_resumed_is_uninterrupted(runs, outs, stage, kind):
    resumed, expected = runs[stage][f"{kind}/resumed"], runs[stage][f"{kind}/whole"]
    assert resumed[0]["logs"] == expected[0]["logs"]
    model = AutoModelForImageClassification.from_pretrained(outs[stage] / kind)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[1][name]), name
        assert torch.equal(tensor, resumed[1][name]), name
