import json
import os
import signal
import socket
import subprocess
import sys

import accelerate.commands.config
import accelerate.commands.launch
import datasets
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import sage_hf.cli.train
from sage_hf.cli import main
from sage_hf.cli.launching import LAUNCHED, launch_options, split_launch_flags
from sage_hf.cli.train import _parser
from sage_hf.whole_checkpoints import why_incomplete
from tests.conftest import make_dataset, make_model
from tests.distributed.test_two_processes import ROOT

CONFIGS = ROOT / "training" / "accelerate"


@pytest.fixture(autouse=True)
def not_launched(monkeypatch, tmp_path):
    """This process is none of a launch, and nobody has configured accelerate."""
    for name in (*LAUNCHED, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(accelerate.commands.config, "default_config_file", str(tmp_path / "none.yaml"))


@pytest.fixture
def own():
    return _parser([])._option_string_actions


@pytest.fixture
def launched(monkeypatch):
    """What would be launched: the arguments that accelerate has made of ours, its own launcher, the environment."""
    found = {}

    def starting(name):
        def start(args):
            found.update(vars(args), launcher=name, environment=dict(os.environ))

        return start

    for name in ("simple_launcher", "multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(accelerate.commands.launch, name, starting(name))
    return found


def train(*more):
    return main(["train", "--model", "model", "--dataset", "data", "--output_dir", "out", *more])


def test_nothing_but_json_is_on_stdout(monkeypatch, capfd):
    def noisy(*args):
        sys.stdout.write("from Python\n")
        os.write(1, b"from gloo\n")
        return {"steps": 1}

    monkeypatch.setattr(sage_hf.cli.train, "train", noisy)
    assert train("--json") == 0
    said = capfd.readouterr()
    assert json.loads(said.out) == {"steps": 1}
    assert "from Python" in said.err
    assert "from gloo" in said.err


@pytest.mark.parametrize(
    ("given", "flags", "rest"),
    [
        ("--num_processes 2 --config run.yaml", "--num_processes 2", "--config run.yaml"),
        ("--num-processes=2 --cpu --guidance none", "--num-processes=2 --cpu", "--guidance none"),
        ("--seed 1 --config_file f.yaml --config run.yaml", "--config_file f.yaml", "--seed 1 --config run.yaml"),
        ("--use_cpu --multi_gpu --bf16 true", "--multi_gpu", "--use_cpu --bf16 true"),
        ("--mixed-precision bf16 --leave_out a b --cpu", "--mixed-precision bf16 --cpu", "--leave_out a b"),
        # Both know these: they are training's.
        ("--gradient_accumulation_steps 4 --debug underflow_overflow", "", None),
        ("--gradient-accumulation-steps 4 --cpu", "--cpu", "--gradient-accumulation-steps 4"),
        # What is launched, and how, is not for users to say; neither is a typing error.
        ("-m --no_python --num_proceses 2", "", None),
        ("--guidance_weight -0.5", "", None),
        ("", "", None),
    ],
)
def test_flags_are_told_apart(own, given, flags, rest):
    found = split_launch_flags(given.split(), own)
    assert found == (flags.split(), (given if rest is None else rest).split())


def test_only_two_flags_mean_two_things(own):
    shared = {name.replace("-", "_").strip("_") for name in set(launch_options()) & set(own)}
    assert shared == {"debug", "gradient_accumulation_steps"}  # as the help and the docs say
    help_text = " ".join(_parser([]).format_help().split())
    assert all(f"--{name}" in help_text for name in shared | {"num_processes", "config_file"})


def test_without_launch_flags_nothing_is_launched(launched, capsys):
    assert train("--model", "./nowhere") == 1
    assert "'./nowhere' is not a folder" in capsys.readouterr().err
    assert not launched


def test_processes_on_the_cpu_are_started_by_torchrun(launched, capfd):
    assert train("--num_processes", "2", "--cpu", "--seed", "5") == 0
    assert launched["launcher"] == "multi_gpu_launcher"
    assert (launched["num_processes"], launched["num_machines"]) == (2, 1)
    assert launched["environment"]["ACCELERATE_USE_CPU"] == "true"
    assert (launched["module"], launched["training_script"]) == (True, "sage_hf")
    assert launched["training_script_args"] == [
        *("train", "--model", "model", "--dataset", "data", "--output_dir", "out", "--seed", "5")
    ]
    assert "ACCELERATE_USE_CPU" not in os.environ
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "launcher", "expected"),
    [
        (["--cpu"], "simple_launcher", {"num_processes": 1}),
        (["--use_cpu", "--num_processes", "3"], "multi_gpu_launcher", {"num_processes": 3}),
        (["--cpu", "--config_file", "cpu.yaml"], "simple_launcher", {"num_processes": 1}),
        (["--config_file", "cpu.yaml", "--num_processes", "2"], "multi_gpu_launcher", {"num_processes": 2}),
        (["--cpu", "--config_file", "ddp.yaml"], "multi_gpu_launcher", {"num_processes": 4}),
        (
            ["--cpu", "--num_processes", "4", "--num_machines", "2", "--machine_rank=1", "--main_process_ip=10.0.0.1"],
            "multi_gpu_launcher",
            {"num_machines": 2, "machine_rank": 1, "main_process_ip": "10.0.0.1"},
        ),
    ],
)
def test_ways_to_use_the_cpu(launched, flags, launcher, expected):
    flags = [str(CONFIGS / flag) if flag.endswith(".yaml") else flag for flag in flags]
    assert train(*flags) == 0
    assert launched["launcher"] == launcher
    assert {name: launched[name] for name in expected} == expected
    assert launched["environment"]["ACCELERATE_USE_CPU"] == "true"


@pytest.mark.parametrize(
    ("flags", "launcher", "expected"),
    [
        (["--multi_gpu", "--num_processes", "2"], "multi_gpu_launcher", {"num_processes": 2}),
        (["--config_file", "ddp.yaml"], "multi_gpu_launcher", {"mixed_precision": "bf16"}),
        (["--config_file", "fsdp2.yaml", "--num-processes=2"], "multi_gpu_launcher", {"use_fsdp": True}),
        (["--config_file", "zero3.yaml"], "deepspeed_launcher", {"zero_stage": 3}),
        # accelerate itself would start one process, as the file says that training is not distributed.
        (["--config_file", "one_gpu.yaml", "--num_processes", "4"], "multi_gpu_launcher", {"num_processes": 4}),
        (["--config_file", "one_gpu.yaml"], "simple_launcher", {"num_processes": 1}),
        (["--num_processes", "4"], "multi_gpu_launcher", {"mixed_precision": "no"}),
    ],
)
def test_ways_to_use_gpus(launched, monkeypatch, flags, launcher, expected):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    flags = [str(CONFIGS / flag) if flag.endswith(".yaml") else flag for flag in flags]
    assert train(*flags) == 0
    assert launched["launcher"] == launcher
    assert {name: launched[name] for name in expected} == expected
    assert launched["environment"].get("ACCELERATE_USE_CPU") is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes", "2"], "has 0 GPUs, of 2 that are needed"),
        (["--multi_gpu"], "has 0 GPUs, of 1 that are needed"),
        (["--config_file", "ddp.yaml"], "has 0 GPUs, of 4 that are needed"),
        (["--config_file", "fsdp2.yaml", "--cpu"], "over GPUs alone"),
        (["--use_deepspeed", "--use_cpu"], "over GPUs alone"),
        (["--cpu", "--multi_gpu", "--num_processes", "2"], "only use one of `--cpu`, `--multi_gpu`"),
        (["--cpu", "--num_processes=2", "--num_machines=2"], "--main_process_ip"),
        (["--cpu", "--num_processes=2", "--num_machines=2", "--main_process_ip=10.0.0.1"], "--machine_rank"),
        (["--tpu"], "TPUs are started from a script"),
        (["--config_file", "nowhere.yaml"], "does not exist"),
        (["--cpu", "--num_proceses", "2"], "knows --num_proceses 2"),
        (["--cpu", "--config", "run.yaml"], "'learning_rat', which is no argument. Did you mean 'learning_rate'"),
    ],
)
def test_mistakes_are_explained_before_anything_starts(launched, monkeypatch, tmp_path, capsys, flags, message):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 0)
    (tmp_path / "run.yaml").write_text("learning_rat: 0.1")
    places = {name: CONFIGS / name for name in ("ddp.yaml", "fsdp2.yaml")} | {"run.yaml": tmp_path / "run.yaml"}
    assert train(*(str(places.get(flag, flag)) for flag in flags)) == 1
    assert message in capsys.readouterr().err
    assert not launched


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_process_of_a_launch_launches_nothing(launched, monkeypatch, capsys, name):
    monkeypatch.setenv(name, "0")
    assert train("--cpu", "--num_processes", "2") == 1
    assert f"a launcher has started ({name} is set)" in capsys.readouterr().err
    assert not launched


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--num_processes", "two"], "invalid int value: 'two'"), (["--seed", "1", "--num_processes"], "expected one")],
)
def test_a_flag_without_its_value_is_an_error_of_the_command(launched, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        train(*flags)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "usage: sage-hf train" in error
    assert not launched


def test_a_launch_flag_in_the_config_is_told_where_it_belongs(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("num_processes: 2\n")
    assert main(["train", "--config", str(tmp_path / "run.yaml")]) == 1
    error = capsys.readouterr().err
    assert "'num_processes', which is no argument of training" in error
    assert "Give --num_processes on the command line" in error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (subprocess.CalledProcessError(143, ["python"]), 143),
        (subprocess.CalledProcessError(-9, ["python"]), 137),
        (ChildFailedError("sage_hf", {1: ProcessFailure(1, 7, 2, "none")}), 2),
        (ChildFailedError("sage_hf", {1: ProcessFailure(1, 7, -11, "none")}), 139),
        (SignalException("told to end", signal.SIGTERM), 143),
    ],
)
def test_the_status_of_the_process_that_failed_is_the_command_s(monkeypatch, error, code):
    def fail(args):
        raise error

    monkeypatch.setattr(accelerate.commands.launch, "launch_command", fail)
    assert train("--cpu") == code


def test_a_single_process_is_told_to_end_as_well(monkeypatch):
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"
    )

    def start(args):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            os.kill(os.getpid(), signal.SIGTERM)
            raise subprocess.CalledProcessError(child.wait(), [])

    monkeypatch.setattr(accelerate.commands.launch, "launch_command", start)
    before = signal.getsignal(signal.SIGTERM)
    assert train("--cpu") == 7
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def config(tmp_path, processor):
    make_model("vit").save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    splits = {"train": make_dataset(8, annotated=3), "validation": make_dataset(5)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model: {tmp_path / 'model'}\ndataset: {tmp_path / 'data'}\nnum_train_epochs: 2\noptim: sgd\n"
        "learning_rate: 0.1\ndegradation: blur\nreport_to: none\nbootstrap_resamples: 20\ndisable_tqdm: true\n"
        "use_cpu: true\n"
    )
    return file


def test_two_processes_train_as_one(config, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    usual = ["train", "--config", str(config), "--json"]
    assert main([*usual, "--output_dir", str(tmp_path / "one"), "--per_device_train_batch_size", "4"]) == 0
    one = json.loads(capfd.readouterr().out)
    # --use_cpu stands in the file; --main_process_port 0 takes a free one.
    more = ["--per_device_train_batch_size", "2", "--num-processes=2", "--main_process_port", "0"]
    assert main([*usual, "--output_dir", str(tmp_path / "two"), *more]) == 0
    two = json.loads(capfd.readouterr().out)  # one, and nothing else
    assert one["steps"] == two["steps"] == 4
    assert two["data"]["optimizer step"] == one["data"]["optimizer step"] == "4 rows"
    assert one["metrics"]["validation"]["accuracy"] == two["metrics"]["validation"]["accuracy"]
    weights = load_file(tmp_path / "two" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "one" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("disk", ["shared", "own"])
def test_two_machines_train_as_one(config, tmp_path, capfd, disk):
    """Two launches as on two machines, which meet at an address of this one."""
    usual = ["train", "--config", str(config), "--json", "--save_strategy", "steps", "--save_steps", "1"]
    assert main([*usual, "--output_dir", str(tmp_path / "one"), "--per_device_train_batch_size", "4"]) == 0
    one = json.loads(capfd.readouterr().out)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = ["--per_device_train_batch_size=2", "--num_processes=2", "--num_machines=2", "--main_process_ip=127.0.0.1"]
    more += [f"--main_process_port={port}"]
    outputs = [tmp_path / ("two" if disk == "shared" else f"two-{rank}") for rank in (0, 1)]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "sage_hf", *usual, *more, f"--machine_rank={rank}", f"--output_dir={output}"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, output in enumerate(outputs)
    ]
    said = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(err for _, err in said)
    first, second = (out for out, _ in said)
    two = json.loads(first)
    assert second == ""
    assert one["steps"] == two["steps"] == 4
    assert two["data"]["optimizer step"] == one["data"]["optimizer step"] == "4 rows"
    weights = load_file(outputs[0] / "checkpoint-4" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "one" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-6)
    for step in (1, 2, 3, 4):
        assert why_incomplete(outputs[0] / f"checkpoint-{step}") is None
        states = {path.name for path in (outputs[1] / f"checkpoint-{step}").glob("rng_state_*")}
        assert states == {"rng_state_1.pth", *(["rng_state_0.pth"] if disk == "shared" else [])}
    if disk == "own":  # a part is never taken for a checkpoint
        assert why_incomplete(outputs[1] / "checkpoint-4") == "trainer_state.json is missing"


def test_what_processes_say_of_a_mistake_arrives(config, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    more = ["--output_dir", str(tmp_path / "out"), "--train_split", "training", "--json"]
    assert main(["train", "--config", str(config), "--num_processes", "1", "--cpu", *more]) == 1
    said = capfd.readouterr()
    assert "has no split 'training'; it has train, validation" in said.err
    assert "CalledProcessError" not in said.err
    assert said.out == ""
