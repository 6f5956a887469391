import json
import subprocess
import sys

from sage_hf.cli import main
from sage_hf.cli.models import architectures, markdown_table


def test_table_as_json_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "sage_hf", "models", "--json"], capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout)
    assert rows == architectures()
    assert all(set(row) == {"architecture", "works", "reason"} for row in rows)
    assert sum(row["works"] for row in rows) >= 38
    assert len(rows) == 42


def test_table_for_people(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["beit", "works"]
    assert "takes tokens" in next(line for line in lines if line.startswith("imagegpt"))
    assert main(["models", "--markdown"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == markdown_table(architectures())
