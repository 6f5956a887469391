import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def compare():
    return load_script("compare.py")


def test_runs_are_paired_by_seed(compare):
    runs = [
        {"guidance": guidance, "seed": seed, "metrics": {"test": {"accuracy": value}}}
        for guidance, seed, value in [
            ("sage", 2, 0.9),
            ("none", 1, 0.5),
            ("none", 2, 0.7),
            ("sage", 1, 0.6),
            ("none", 3, 0.9),
        ]
    ]
    none, sage = compare.compare(runs)
    assert (none["guidance"], none["runs"]) == ("none", 3)
    assert none["mean"] == pytest.approx(0.7)
    assert "difference" not in none
    # Seeds 1 and 2 have both: differences 0.1 and 0.2, their interval 12.706 * 0.0707 / sqrt(2) = 0.635.
    assert sage["difference"] == pytest.approx(0.15)
    assert sage["difference_half_width"] == pytest.approx(0.635, abs=1e-3)
    with pytest.raises(ValueError, match="two runs have the same method and seed"):
        compare.compare([*runs, runs[0]])
    control = runs[0] | {"saliency_control": "inverted"}
    assert {row["guidance"] for row in compare.compare([*runs, control])} == {"none", "sage", "sage, inverted maps"}
    assert compare.table([none, sage]).splitlines()[-1].endswith("| 0.750 ± 1.906 | +0.150 ± 0.635 |")
