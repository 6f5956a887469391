"""The flags of `accelerate launch` on `sage-hf train`, which then starts its processes itself."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from typing import Any

import torch

LAUNCHED = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
"""Variables that torchrun and MPI set for the processes that they start."""

PARADIGMS = ("multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")
"""Flags of which each has a way of its own to share the work."""

GIVEN_BY_US = ("help", "module", "no_python", "training_script", "training_script_args", "main_training_function")
"""What `accelerate launch` starts, and how."""


def launch_options() -> dict[str, argparse.Action]:
    """
    The flags of `accelerate launch` by name, in all their spellings: `--num_processes` and `--num-processes`.

    Example:

    ```python
    >>> from sage_hf.cli.launching import launch_options
    >>> launch_options()["--num-processes"].dest
    'num_processes'

    ```
    """
    actions = _launch_parser()._actions
    return {name: action for action in actions if action.dest not in GIVEN_BY_US for name in action.option_strings}


def split_launch_flags(argv: list[str], own: Collection[str]) -> tuple[list[str], list[str]]:
    """
    Tell the flags of `accelerate launch` from those of a command.

    A flag that both know is the command's.

    Args:
        argv (`list[str]`): the arguments.
        own (`Collection[str]`): the command's own flags, in all spellings.

    Returns:
        `tuple`: the launch flags with their values, and all other arguments, each in their order.

    Example:

    ```python
    >>> from sage_hf.cli.launching import split_launch_flags
    >>> split_launch_flags(["--num_processes=2", "--config", "run.yaml", "--cpu"], {"--config"})
    (['--num_processes=2', '--cpu'], ['--config', 'run.yaml'])

    ```
    """
    launch: list[str] = []
    rest: list[str] = []
    if all(_name(one) in own for one in argv if one.startswith("-")):
        return launch, list(argv)
    options = {name: action for name, action in launch_options().items() if name not in own}
    arguments = iter(argv)
    for argument in arguments:
        option = options.get(_name(argument))
        if option is None:
            rest.append(argument)
            continue
        launch.append(argument)
        if option.nargs != 0 and "=" not in argument:
            launch += [value for value in [next(arguments, None)] if value is not None]
    return launch, rest


def where_to_launch(key: str) -> str | None:
    """What to say of a key of training's configuration that is a flag of `accelerate launch`; `None` for others."""
    flag = f"--{key}"
    if flag not in launch_options():
        return None
    return (
        f"it is for starting processes. Give {flag} on the command line, or in a file of accelerate's own "
        "(--config_file FILE, see `accelerate config`)."
    )


def launch(flags: list[str], command: list[str], use_cpu: bool = False) -> int:
    """
    Start a command of sage-hf in as many processes as the flags say, as `accelerate launch` does, and wait for them.

    Two things differ, as `accelerate launch` starts a single process there without a word: several processes on the
    CPU talk over gloo, started by torchrun as those on GPUs are (accelerate has MPI do that, which
    `--mpirun_hostfile` still does), and `num_processes` above one starts that many whatever the accelerate
    configuration says of the kind of training.

    Args:
        flags (`list[str]`): of `accelerate launch`.
        command (`list[str]`): the command with its arguments, which hold none of them.
        use_cpu (`bool`, defaults to `False`): whether the command's own arguments say to train on the CPU.

    Returns:
        `int`: 0, or the status of the process that failed first: 128 + N if signal N ended it.

    Raises:
        `ValueError`: the flags don't go together, this machine has too few devices, or this is one of the processes
            of a launch already.
    """
    if (inside := next((name for name in LAUNCHED if name in os.environ), None)) is not None:
        raise ValueError(
            f"{flags[0]} is for starting processes, and this is one that a launcher has started ({inside} is set). "
            "Give the flag to the launcher, or start `sage-hf train` without one."
        )
    args = _resolve(flags, use_cpu)
    args.training_script_args = command
    return _start(args)


def _name(argument: str) -> str:
    return argument.partition("=")[0]


def _launch_parser() -> argparse.ArgumentParser:
    from accelerate.commands.launch import launch_command_parser

    parser: argparse.ArgumentParser = launch_command_parser()
    parser.prog, parser.usage = "sage-hf train", "sage-hf train [flags of accelerate launch] [arguments of training]"
    return parser


def _resolve(flags: list[str], use_cpu: bool) -> Any:
    """The parsed flags, with what a configuration of accelerate and the machine make of them."""
    from accelerate.commands.config import default_config_file, load_config_from_file

    args: Any = _launch_parser().parse_args([*flags, "--module", "sage_hf"])
    on_cpu = args.cpu or use_cpu
    config: Any = None
    if args.config_file is not None or (os.path.isfile(default_config_file) and not on_cpu):
        config = load_config_from_file(args.config_file)
    named = [name for name in PARADIGMS if getattr(args, name)]
    kind = str(getattr(config, "distributed_type", "NO")).rpartition(".")[2] if config and not named else "NO"
    on_cpu = on_cpu or (bool(getattr(config, "use_cpu", False)) and not named)
    machines = args.num_machines or getattr(config, "num_machines", None) or 1
    processes = args.num_processes or getattr(config, "num_processes", None)

    if args.tpu or kind == "XLA":
        raise ValueError(
            "TPUs are started from a script: `accelerate launch --tpu ... SCRIPT`, with SageTrainer in it."
        )
    split = next((name for name in named if name not in ("multi_gpu", "tpu")), None) or (
        kind if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM") else None
    )
    if on_cpu and split is not None:
        raise ValueError(f"accelerate splits models ({split}) over GPUs alone. Leave the CPU out, or {split}.")
    if machines > 1:
        if (args.main_process_ip or getattr(config, "main_process_ip", None)) is None:
            raise ValueError("Several machines need --main_process_ip, the address of the first.")
        if args.machine_rank is None and config is None:
            raise ValueError("Several machines need --machine_rank: 0 on the first, 1 on the second, ...")

    if config is None:
        # accelerate would say at length that it takes these, which training's own arguments may override.
        args.num_machines = args.num_machines or 1
        args.mixed_precision, args.dynamo_backend = args.mixed_precision or "no", args.dynamo_backend or "no"
    if on_cpu:
        args.num_processes = processes = processes or 1
        args.use_cpu = True
    elif not args.mpirun_hostfile:
        _check_devices((processes or 1) / machines, named or kind != "NO")
    if (processes or 1) > 1 and not named and split is None and not args.mpirun_hostfile:
        args.multi_gpu = True  # which is torchrun; on the CPU too
        args.cpu, args.gpu_ids = False, args.gpu_ids or "all"
        if config is None:
            args.machine_rank = args.machine_rank or 0
    args.on_cpu = on_cpu
    return args


def _check_devices(needed: float, several: object) -> None:
    found = torch.accelerator.device_count()
    if found < needed and (needed > 1 or several):
        raise ValueError(
            f"This machine has {found} GPUs, of {needed:.0f} that are needed for as many processes. Set "
            "--num_processes, or add --cpu to train on the CPU."
        )


def _start(args: Any) -> int:
    from accelerate.commands.launch import launch_command
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    environment = {"ACCELERATE_USE_CPU": "true"} if args.on_cpu else {}
    try:
        # What accelerate says goes to the console of rich if there is one, which is stdout; processes have their own.
        with contextlib.redirect_stdout(sys.stderr), patch_environment(**environment), _passing_on_sigterm():
            launch_command(args)
    except subprocess.CalledProcessError as error:
        return _status(error.returncode)
    except ChildFailedError as error:
        return _status(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _passing_on_sigterm() -> Iterator[None]:
    """A single process is told to end as well, as torchrun tells several, and decides itself when it does."""

    def pass_on(number: int, frame: Any) -> None:
        import psutil  # type: ignore[import-untyped]

        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
