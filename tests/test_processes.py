"""Commands leave the processes that they ran with: tests/distributed has the real ones."""

import pytest
import torch

from sage_hf.__main__ import run
from sage_hf.processes import leave_processes


@pytest.fixture
def group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_without_a_group_nothing_happens():
    leave_processes()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("arguments", "code", "left"), [(["models", "--json"], 0, True), (["view", "no"], 1, False)])
def test_a_command_that_succeeds_leaves(group, monkeypatch, arguments, code, left):
    monkeypatch.setattr("sys.argv", ["sage-hf", *arguments])
    assert run() == code
    assert torch.distributed.is_initialized() != left
