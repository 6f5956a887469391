"""Dataset cards: one whole card against a golden file, and what others say."""

from pathlib import Path

import datasets
import pytest
import yaml

from sage_hf.hub import DatasetRecord, render_dataset_card
from sage_hf.hub.dataset_card import cell, keep_other_configs, percent
from sage_hf.hub.sections import BUILT, refresh, section

GOLDEN = Path(__file__).with_name("golden_dataset_card.md")
QUANTILES = {"5%": 0.0004, "25%": 0.01, "50%": 0.125, "75%": 0.25, "95%": 0.5}


def make_features(several=True):
    saliency = datasets.Image(mode="L")
    return datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": datasets.List(saliency) if several else saliency,
            "label": datasets.ClassLabel(names=["healthy", "rust|miner"]),
            "site": datasets.Value("string"),
        }
    )


def make_record(**changes):
    record = {
        "repo_id": "me/leaves",
        "features": make_features(),
        "rows": {"train": 1200, "test": 300},
        "num_bytes": {"train": 4000, "test": 1000},
        "download_size": 4500,
        "stats": {
            "splits": {"train": {"rows": 1200, "annotated": 900}, "test": {"rows": 300, "annotated": 0}},
            "classes": {
                "healthy": {"rows": {"train": 600, "test": 100}, "annotated": {"train": 300}, "coverage": None},
                "rust|miner": {
                    "rows": {"train": 600, "test": 200},
                    "annotated": {"train": 600},
                    "coverage": QUANTILES,
                },
            },
            "annotators": {"0": 600, "1": 800, "2": 100},
            "sizes": {
                "width": {"min": 24, "median": 32, "max": 64},
                "height": {"min": 16, "median": 16, "max": 48},
            },
            "coverage": QUANTILES,
            "centre_bias": {"correlation": 0.456, "distance": 0.321},
        },
        "findings": [
            {
                "check": "duplicates-across-splits",
                "severity": "error",
                "message": "Pairs of rows of two splits with the same picture.",
                "count": 4,
                "examples": ["train row 1 (a_1.jpg) = test row 0", "b", "c", "d"],
            },
            {
                "check": "rare-class",
                "severity": "warning",
                "message": "Classes with one row: `none`.",
                "count": 1,
                "examples": [],
            },
        ],
        "columns": {"image": "image", "saliency": "saliency", "label": "label"},
        "sources": {"human": 850, "machine: me/segmenter": 50},
        "annotation": "drawn on | a tablet",
        "granularity": "outlines",
        "source": "fields in Brazil",
        "license": "cc-by-4.0",
        "citation": "@misc{leaves, title = {Leaves}}\n",
        "samples": "The first annotated picture of each class, and their maps in red.",
        "version": "0.1.0",
    }
    return DatasetRecord(**record | changes)


def test_the_whole_card_is_the_golden_one():
    assert render_dataset_card(make_record()) == GOLDEN.read_text()


def test_what_nobody_told_or_measured_is_not_stated():
    stats = make_record().stats | {"coverage": None, "centre_bias": None, "classes": {}, "sizes": {}}
    card = render_dataset_card(
        make_record(
            features=datasets.Features({"image": datasets.Image(), "saliency": datasets.Image(mode="L")}),
            stats=stats,
            findings=[],
            sources={},
            **dict.fromkeys(("annotation", "granularity", "source", "license", "citation", "samples")),
        )
    )
    assert card.count("not stated") == 8
    assert "No picture has a map." in card
    assert "`sage-hf data check` found nothing when this was published." in card
    assert "saliency_samples.png" not in card
    assert "None" not in card.replace("or None", "")
    assert "license" not in yaml.safe_load(card.split("---\n")[1])
    assert 'row["label"]' not in card


def test_the_code_on_the_card_is_python():
    card = render_dataset_card(make_record())
    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")


def test_columns_of_other_names_are_on_the_command():
    features = datasets.Features({"photo": datasets.Image(), "heat": datasets.Image(mode="L")})
    columns = {"image": "photo", "saliency": "heat", "label": "label"}
    card = render_dataset_card(make_record(features=features, columns=columns))
    assert "--dataset me/leaves --image_column photo --saliency_column heat\n" in card
    assert 'row["photo"]' in card


def test_a_template_of_ones_own(tmp_path):
    template = tmp_path / "card.md"
    template.write_text(
        "---\n{{ card_data }}\n---\n{% call section('short') %}{{ stats.coverage['50%'] | percent }}{% endcall %}"
    )
    assert section("short", "12.5 %") in render_dataset_card(make_record(), template)


def test_the_card_of_a_built_folder_makes_room():
    generated = render_dataset_card(make_record())
    built = f"---\nlicense: mit\n---\n\nAbove.\n\n{section(BUILT, '# out')}\n\nBelow.\n"
    card = refresh(built, generated, data=True)
    assert card.index("Above.") < card.index("# leaves") < card.index("## Known limits") < card.index("Below.")
    assert "# out" not in card
    assert refresh(card, generated, data=True) == card
    edited = refresh(built.replace("# out", "# My leaves"), generated, data=True)
    assert "# My leaves" in edited
    assert "# leaves" not in edited
    assert yaml.safe_load(edited.split("---\n")[1])["configs"]


def test_what_the_data_say_follows_the_data_and_the_rest_stays():
    old = (
        render_dataset_card(make_record())
        .replace("- saliency\n", "- saliency\n- mine\n")
        .replace("- image-classification\n", "- image-classification\n- image-segmentation\n")
    )
    new = make_record(rows={"train": 7}, license=None, stats=make_record().stats)
    front = yaml.safe_load(refresh(old, render_dataset_card(new), data=True).split("---\n")[1])
    assert [split["num_examples"] for split in front["dataset_info"]["splits"]] == [7]
    assert front["tags"] == ["saliency", "sage_hf", "mine"]
    assert front["task_categories"] == ["image-classification", "image-segmentation"]
    assert front["license"] == "cc-by-4.0"


def test_other_configurations_are_kept():
    generated = render_dataset_card(make_record())
    assert keep_other_configs(generated, None) == keep_other_configs(generated, "No front matter.") == generated
    theirs = "---\nconfigs:\n- config_name: raw\n  data_files: raw/*\ndataset_info:\n  config_name: raw\n---\n"
    front = yaml.safe_load(keep_other_configs(generated, theirs).split("---\n")[1])
    assert [config["config_name"] for config in front["configs"]] == ["default", "raw"]
    assert [info["config_name"] for info in front["dataset_info"]] == ["default", "raw"]
    with pytest.raises(ValueError, match="on the Hub is not YAML"):
        keep_other_configs(generated, "---\nx: [\n---\n")


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.0 %"), (0.0004, "0.04 %"), (0.0005, "0.1 %"), (0.12345, "12.3 %"), (1, "100.0 %")]
)
def test_shares(share, text):
    assert percent(share) == text


def test_cells_hold_text():
    assert cell("a|b\n<i>[x](y)") == "a\\|b \\<i\\>\\[x\\](y)"
