"""Every kind of dataset gives the same report, whole or sampled."""

import csv
import json

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from sage_hf.cli import main
from sage_hf.data import check_dataset, dataset_stats
from sage_hf.data.checking import CHECKS, reading
from tests.data.checking.planting import as_splits, encoded, healthy_rows


@pytest.fixture
def splits():
    """Twenty-four rows; the map of test row 2 is damaged."""
    rows = healthy_rows()
    rows[18]["saliency"]["bytes"] = rows[18]["saliency"]["bytes"][:40]
    return as_splits(rows)


def parquet(splits, folder):
    (folder / "data").mkdir()
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return str(folder)


def saved(splits, folder):
    splits.save_to_disk(folder / "saved")
    return folder / "saved"


def streams(splits, folder):
    return datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})


def image_folder(splits, folder):
    for name, split in splits.items():
        (folder / name).mkdir()
        with (folder / name / "metadata.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "saliency_file_name", "label"])
            split = split.cast_column("image", datasets.Image(decode=False))  # noqa: PLW2901
            for row in split.cast_column("saliency", datasets.Image(decode=False)):
                path = row["image"]["path"]
                (folder / name / path).write_bytes(row["image"]["bytes"])
                (folder / name / f"map{path}").write_bytes(row["saliency"]["bytes"])
                table.writerow([path, f"map{path}", ["healthy", "rust"][row["label"]]])
    return str(folder)


@pytest.mark.parametrize("kind", [parquet, saved, streams, image_folder])
@pytest.mark.parametrize("num_proc", [1, 3])
def test_sources(splits, tmp_path, kind, num_proc):
    report = check_dataset(kind(splits, tmp_path), num_proc=num_proc)
    (finding,) = report.findings
    assert finding.check == "unreadable-map"
    assert finding.examples[0].startswith("test row 2 (18.png): ")
    expected = check_dataset(splits).stats
    # The order of splits is the loader's.
    assert report.stats.to_dict() | {"centre_bias": None} == expected.to_dict() | {"centre_bias": None}
    assert report.stats.centre_bias.distance == pytest.approx(expected.centre_bias.distance, abs=1e-4)


def test_pictures_in_memory_and_arrays():
    generator = np.random.default_rng(0)
    arrays = generator.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)
    maps = [Image.fromarray(np.pad(np.ones((2, 3), dtype=np.uint8), ((1, 3), (2, 4)))) for _ in arrays]
    features = datasets.Features(image=datasets.Array3D((6, 9, 3), "uint8"), saliency=datasets.Image())
    rows = datasets.Dataset.from_dict({"image": list(arrays), "saliency": maps}, features=features)
    stream = datasets.IterableDataset.from_generator(
        lambda: ({"image": Image.fromarray(a), "saliency": m} for a, m in zip(arrays, maps, strict=True))
    )
    for dataset in (rows, rows.with_format("numpy"), stream):
        report = check_dataset(dataset, allow=["missing-label"])
        assert [finding.check for finding in report.findings] == ["missing-label"]
        assert report.passed
        assert report.stats.sizes["width"] == {"min": 9, "median": 9, "max": 9}
        assert report.stats.coverage["50%"] == pytest.approx(6 / 54, abs=1e-6)


def test_a_parquet_file_that_refers_to_files_here(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a"]))
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "label": [0]}, features=features)
    # Opened by path, its bytes are embedded when it is pushed.
    assert "absolute-path" not in [finding.check for finding in check_dataset(rows).findings]
    folder = tmp_path / "dataset"
    folder.mkdir()
    pyarrow.parquet.write_table(rows.data.table, folder / "train.parquet")
    (finding,) = [one for one in check_dataset(folder).findings if one.check == "absolute-path"]
    assert finding.examples == ["train row 0 (a.png): the path in picture"]


def test_sampling(splits):
    report = check_dataset(splits, rows=8)
    assert report.stats.sampled
    assert report.stats.splits["train"]["rows"] == 6  # rows 0, 3, ..., 21 of 24, of which 16 are for training
    (finding,) = report.findings
    assert finding.examples[0].startswith("test row 2 (18.png)")
    assert check_dataset(splits, rows=12, num_proc=2).stats.rows == 12
    assert not check_dataset(splits, rows=100).stats.sampled
    streams = datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    assert dataset_stats(streams, rows=8).splits["test"]["rows"] == 4
    assert list(dataset_stats(splits, splits=["test"]).splits) == ["test"]


def test_threads_keep_the_order_of_more_chunks_than_they_hold(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 2)
    rows = healthy_rows()
    for row in rows[::3]:
        row["image"] = None
    splits = as_splits(rows)
    one, several = check_dataset(splits), check_dataset(splits, num_proc=2)
    assert one.findings[0].examples == [f"train row {index}" for index in (0, 3, 6, 9, 12)]
    assert several.to_dict() == one.to_dict()
    streams = datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    assert check_dataset(streams, num_proc=2).to_dict() == one.to_dict()


def test_check_command(splits, tmp_path, capsys):
    folder = parquet(splits, tmp_path)
    assert main(["data", "check", folder]) == 1
    text = capsys.readouterr().out
    assert "error          1  unreadable-map" in text
    assert "test row 2 (18.png)" in text
    assert "24 rows read; failed; checks with errors: 1, with warnings: 0." in text
    assert main(["data", "check", folder, "--json"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert (figures["passed"], figures["findings"][0]["count"]) == (False, 1)
    assert figures["stats"]["splits"]["test"] == {"rows": 8, "annotated": 7}
    assert main(["data", "check", folder, "--allow", "unreadable-map", "--num-proc", "2"]) == 0
    assert "allowed        1  unreadable-map" in capsys.readouterr().out
    assert main(["data", "check", folder, "--split", "train", "--rows", "5"]) == 0
    assert "a sample of 5 rows read; passed" in capsys.readouterr().out
    assert main(["data", "check", folder, "--allow", "maps"]) == 1
    assert "There is no check 'maps' to allow" in capsys.readouterr().err
    assert main(["data", "check"]) == 1
    assert "which dataset?" in capsys.readouterr().err


def test_list_of_checks(capsys):
    assert main(["data", "check", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["check"], one["severity"]) for one in listed] == [(check.name, check.severity) for check in CHECKS]
    assert main(["data", "check", "--list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(CHECKS)


def test_stats_command(splits, tmp_path, capsys):
    folder = parquet(splits, tmp_path)
    assert main(["data", "stats", folder, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == dataset_stats(folder).to_dict()
    assert figures["annotators"] == {"0": 1, "1": 23}
    assert main(["data", "stats", folder]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert next(line for line in table if line[:1] == ["healthy"])[:3] in (
        ["healthy", "8/8", "3/4"],
        ["healthy", "3/4", "8/8"],
    )


def test_a_row_of_another_kind_of_picture(splits):
    rows = healthy_rows()
    grey = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    modes = ("L", "LA", "P", "RGBA", "CMYK", "1")
    for index, mode in enumerate(modes):
        picture = Image.fromarray(grey.T if index % 2 else grey).rotate(30 * index).resize((48, 40)).convert(mode)
        rows[index]["image"] = encoded(picture, "0.tif")
    assert check_dataset(as_splits(rows)).findings == []
