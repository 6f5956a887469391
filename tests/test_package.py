import subprocess
import sys

import pytest

import sage_hf


def test_every_public_name_is_there():
    assert sorted(dir(sage_hf)) == sorted(sage_hf.__all__)
    for name in sage_hf.__all__:
        assert getattr(sage_hf, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'SageTrainr'"):
        _ = sage_hf.SageTrainr


def test_help_does_not_import_torch():
    script = """
import sys
from sage_hf.cli import main

try:
    main(["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"
    assert "quickstart" in done.stdout
