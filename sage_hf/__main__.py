"""The command line as a process of its own: `sage-hf`, and `python -m sage_hf`, which `accelerate launch` runs."""

import sys

from .cli import main


def run() -> int:
    """Run a command with the arguments of the process, and leave the other processes when it is done."""
    code = main()
    if code == 0 and "torch" in sys.modules:  # which takes seconds to import, and not every command needs
        from .processes import leave_processes

        leave_processes()
    return code


if __name__ == "__main__":
    sys.exit(run())
