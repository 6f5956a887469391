import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import load_script

PAGE = (Path(__file__).parents[2] / "docs/scale.md").read_text()


@pytest.fixture(scope="module")
def script():
    return load_script("benchmarks/scale.py")


def measured(script):
    return script.Measured(
        model="M",
        mode="sage",
        time_ratio=2.5,
        memory_ratio=2.0,
        hardware="CPU",
        files="regions",
        images_per_core=150.0,
        row_bytes=150_000.0,
    )


def test_eight_gpus_by_hand(script):
    plan = script.Plan(images_per_second=500, gpus=8, images=100_000_000, batch=64, parameters=80_000_000)
    assert script.needs(measured(script), plan) == pytest.approx(
        {
            "images_per_second_of_one": 200,  # 500 / 2.5
            "images_per_second": 1600,
            "hours_per_epoch": 17.3611111,  # 62,500 seconds
            "rows_per_step": 512,
            "steps_per_epoch": 195_313,  # 195,312.5
            "workers_per_gpu": 2,  # 200 / 150
            "cores": 16,
            "read_mb_per_second": 240,
            "stored_tb": 15,
            "files": 30_000,  # of 500 MB
            "files_shared_evenly": 30_000,  # 8 * 3,750
            "exchanged_mb_per_second": 1750,  # 2 * 7/8 * 320 MB * 3.125 steps a second
            "memory_ratio": 2.0,
            "views_mb": 77.070336,  # 2 * 64 * 12 * 50,176
        }
    )


def test_one_gpu_exchanges_nothing_and_half_the_speed_takes_twice_the_time(script):
    whole, half = (
        script.needs(measured(script), script.Plan(images_per_second=500, gpus=1, images=7, efficiency=share))
        for share in (1.0, 0.5)
    )
    assert whole["exchanged_mb_per_second"] == half["exchanged_mb_per_second"] == 0
    assert half["hours_per_epoch"] == pytest.approx(2 * whole["hours_per_epoch"])
    assert (whole["files"], whole["steps_per_epoch"]) == (1, 1)


def test_files_are_rounded_up_to_what_the_gpus_share_evenly(script):
    plan = script.Plan(images_per_second=500, gpus=64, images=100_000_000)
    assert script.needs(measured(script), plan)["files_shared_evenly"] == 30_016  # 64 * 469


def test_figures_are_those_of_the_results(script, capsys, tmp_path):
    step = {"model": "M", "mode": "sage, concatenated", "time_ratio": 2.0, "memory_ratio": 1.5}
    (tmp_path / "step.json").write_text(json.dumps({"hardware": {"device": "H"}, "results": [step]}))
    rows = [
        {"files": "regions", "kilobytes": {"image": 90.0, "saliency": 10.0}, "workers": workers}
        | {"augmented": augmented, "image_and_saliency": speed}
        for workers, augmented, speed in [(0, True, 1.0), (4, False, 2.0), (4, True, 400.0)]
    ]
    (tmp_path / "loader.json").write_text(json.dumps({"results": rows}))
    files = ["--step-cost", str(tmp_path / "step.json"), "--loader", str(tmp_path / "loader.json")]
    script.main(["--images-per-second", "100", "--gpus", "2", "--images", "1e4", "--json", *files])
    record = json.loads(capsys.readouterr().out)
    assert record["measured"]["images_per_core"] == 100
    assert record["measured"]["row_bytes"] == 100_000
    (result,) = record["results"]
    assert (result["gpus"], result["images"]) == (2, 10_000)
    assert result["needs"]["images_per_second"] == 100
    with pytest.raises(SystemExit):
        script.main(["--images-per-second", "100", "--mode", "nothing", *files])
    assert "it has: M, sage, concatenated." in " ".join(capsys.readouterr().err.split())
    for wrong in ("0", "nan", "-1"):
        with pytest.raises(SystemExit):
            script.main(["--images-per-second", wrong])
        assert f"{wrong} is not above 0" in capsys.readouterr().err


def test_the_page_shows_what_the_script_prints(script, capsys):
    commands = re.findall(r"^python training/benchmarks/scale.py (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        script.main(shlex.split(command))
        printed = capsys.readouterr().out.strip()
        assert printed in PAGE, f"results have changed: put into docs/scale.md\n{printed}"


def test_the_other_command_and_flags_of_the_page_exist(script, capsys):
    (command,) = re.findall(r"^python training/benchmarks/step_cost.py (.+)$", PAGE, re.MULTILINE)
    step_cost = load_script("benchmarks/step_cost.py")
    with pytest.raises(SystemExit):
        step_cost.main(["--help"])
    assert set(re.findall(r"--[a-z]+", command)) <= set(re.findall(r"--[a-z]+", capsys.readouterr().out))
