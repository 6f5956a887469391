"""Every accelerate configuration is one that accelerate itself takes, and says what its name says."""

import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

FOLDER = Path(__file__).parents[1] / "training" / "accelerate"
EXPECTED = {
    "cpu": {"use_cpu": True, "num_processes": 1},
    "one_gpu": {"num_processes": 1, "mixed_precision": "bf16", "multi_gpu": False},
    "ddp": {"multi_gpu": True, "use_fsdp": False, "use_deepspeed": False},
    "multi_node": {"multi_gpu": True, "num_machines": 2, "num_processes": 8},
    "fsdp2": {"use_fsdp": True, "fsdp_version": 2, "fsdp_state_dict_type": "FULL_STATE_DICT"},
    "zero2": {"use_deepspeed": True, "zero_stage": 2},
    "zero3": {"use_deepspeed": True, "zero_stage": 3, "zero3_save_16bit_model": "true"},
}


def test_each_is_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_takes_it(name):
    file = FOLDER / f"{name}.yaml"
    load_config_from_file(str(file))  # raises an error for keys that it doesn't know
    parser = launch_command_parser()
    args, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(file), "script.py"]))
    found = {key: getattr(args, key) for key in EXPECTED[name]}
    assert {key: str(value).lower() for key, value in found.items()} == {
        key: str(value).lower() for key, value in EXPECTED[name].items()
    }
    # Keys of the nested parts are not checked when they are loaded.
    options = {action.dest for action in parser._actions}
    content = yaml.safe_load(file.read_text())
    for part in ("fsdp_config", "deepspeed_config"):
        assert set(content.get(part, {})) <= options


def test_the_script_is_one():
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)
    assert "--resume_from_checkpoint auto" in (FOLDER / "slurm.sh").read_text()
