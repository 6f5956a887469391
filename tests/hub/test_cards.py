"""Cards: one whole card against a golden file, edits that survive, templates of one's own."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import bootstrap
from transformers import PvtConfig

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.evaluation import bootstrap_intervals
from sage_hf.hub import RunRecord, render_model_card, write_model_card
from sage_hf.hub.run_record import LOG_ROWS, energy_of, shown_log
from sage_hf.hub.sections import refresh, section
from sage_hf.models import output_names
from sage_hf.objectives import GUIDANCE
from sage_hf.objectives.base import describe
from tests.conftest import Rows, make_model

GOLDEN = Path(__file__).with_name("golden_card.md")


def make_record(**changes):
    figures = {name: {"value": 0.5, "low": 0.25, "high": 0.75} for name in ("cc", "sim", "kl", "nss", "auc_judd")}
    record = {
        "model_name": "leaves-sage",
        "loading": "transformers",
        "problem_type": "single_label_classification",
        "classes": ["healthy", "rust", "miner"],
        "sage": {"guidance": "sage", "degradation": "shuffle", "margin": 0.4, "saliency_control": "none"},
        "hyperparameters": {"learning_rate": 5e-5, "seed": 42},
        "world_size": 1,
        "versions": {"sage_hf": "0.1.0", "transformers": "5.23.0"},
        "hardware": "1 x NVIDIA H200",
        "repo_id": "me/leaves-sage",
        "base_model": "me/base",
        "base_model_revision": "b" * 40,
        "dataset": "me/leaves",
        "dataset_revision": "d" * 40,
        "description": "Tells the diseases of coffee leaves.",
        "annotation": "drawn lesions",
        "annotated": 0.75,
        "seconds": 61.2,
        "energy": {"kwh": 0.0123, "co2_kg": 0.0045},
        "log": [
            {"step": 1, "epoch": 0.5, "loss": 1.5, "triplet": 0.25},
            {"step": 2, "epoch": 1.0, "loss": 1.25, "triplet": 0.125, "eval_loss": 1.0},
        ],
        "kept_step": 2,
        "metrics": {"test": {"loss": 0.5, "accuracy": {"value": 0.875, "low": 0.8, "high": 0.9375}}},
        "saliency_alignment": {"test": {"pictures": 30, "cam": figures, "gradient": figures | {"kl": {"value": 2.5}}}},
        "compared": [
            {"guidance": "none", "saliency_control": "none", "seed": 0, "metrics": {"test": {"accuracy": 0.85}}},
            {"guidance": "sage", "saliency_control": "inverted", "seed": 0, "metrics": {"test": {"accuracy": 0.8}}},
        ],
        "pictures": {"views.png": "Training pictures and their views."},
        "license": "mit",
        "tags": ["sage_hf", "saliency"],
    }
    return RunRecord(**record | changes)


def test_the_whole_card_is_the_golden_one():
    assert render_model_card(make_record()) == GOLDEN.read_text()


def test_a_card_with_nothing_measured_says_so():
    card = render_model_card(
        make_record(
            metrics={},
            saliency_alignment={},
            compared=[],
            pictures={},
            annotated=None,
            seconds=None,
            energy=None,
            log=[],
            dataset=None,
        )
    )
    assert "Not evaluated." in card
    assert "## Pictures" not in card
    assert "Training log" not in card
    assert "model-index" not in card
    assert "this card does not claim it" in card
    assert "None" not in card


@pytest.mark.parametrize(
    ("loading", "library", "text"),
    [
        ("adapter", "peft", "It is an adapter of [peft]"),
        ("backbone", "transformers", "its head comes from sage_hf"),
        ("module", "pytorch", "a PyTorch module of its author's own"),
    ],
)
def test_the_card_says_how_to_load(loading, library, text):
    card = render_model_card(make_record(loading=loading))
    assert text in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == library


def test_a_control_is_called_one():
    card = render_model_card(make_record(sage={"guidance": "sage", "saliency_control": "inverted"}))
    assert "guided by **inverted** saliency maps, a control" in card


@pytest.mark.parametrize("guidance", sorted(GUIDANCE))
def test_a_card_names_what_guided(guidance):
    settings = describe(GUIDANCE[guidance](saliency_control="random_blobs"))
    card = render_model_card(make_record(sage={"guidance": guidance} | settings))
    assert "guided by **random_blobs** saliency maps, a control" in card
    method = card[card.index("## Method and limits") :]
    assert (f"`sage_hf.objectives.{GUIDANCE[guidance].__name__}`" in method) == (guidance != "sage")
    assert ("after SAGE" in method) == (guidance == "sage")
    # The settings that differ from the guidance's own defaults come first.
    first_row = card[card.index("| setting | value |") :].splitlines()[2]
    assert first_row == "| saliency_control | random_blobs |"


def test_a_card_claims_no_method_for_an_objective_of_ones_own():
    card = render_model_card(make_record(sage={"guidance": "Mine", "saliency_control": "none"}))
    assert "Guidance by saliency with `Mine`, an objective that is not part of sage_hf." in card
    assert "after SAGE" not in card


def test_a_record_survives_saving(tmp_path):
    record = make_record()
    record.save(tmp_path)
    assert RunRecord.load(tmp_path) == record


def test_results_for_the_hub(tmp_path):
    write_model_card(tmp_path, make_record())
    entries = yaml.safe_load((tmp_path / ".eval_results" / "me_leaves_test.yaml").read_text())
    assert entries[1] == {
        "dataset": {"id": "me/leaves", "task_id": "test_accuracy", "revision": "d" * 40},
        "value": 0.875,
        "notes": "95% interval 0.8000 to 0.9375",
    }
    write_model_card(tmp_path, make_record(dataset=None))
    assert not list((tmp_path / ".eval_results").iterdir())


def test_edited_sections_and_added_text_survive(tmp_path):
    card = write_model_card(tmp_path, make_record())
    text = card.read_text()
    text = text.replace("Classes: healthy, rust, miner.", "Three classes, and no more.")  # inside a section
    text = text.replace("## Training\n", "## Intended use\n\nScreening.\n\n## Training\n")  # outside of any
    text = re.sub(r"<!-- sage_hf: citation.*?/sage_hf: citation -->", "", text, flags=re.DOTALL)  # removed
    text = text.replace("license: mit", "license: apache-2.0\nlanguage: en")
    card.write_text(text)
    write_model_card(tmp_path, make_record(metrics={"test": {"accuracy": 0.99}}, license=None))
    after = card.read_text()
    assert "Three classes, and no more." in after
    assert "Screening." in after
    assert "@misc" not in after
    assert "| test | 0.9900 |" in after
    front = yaml.safe_load(after.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["language"] == "en"


def test_a_card_of_ones_own_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("My own words.\n")
    write_model_card(tmp_path, make_record())
    assert (tmp_path / "README.md").read_text() == "My own words.\n"


def test_refreshing_twice_changes_nothing():
    card = render_model_card(make_record())
    assert refresh(card, card) == card
    assert refresh("Mine.\n\n" + section("use", "A"), section("use", "B")) == "Mine.\n\n" + section("use", "B")


def test_a_template_of_ones_own(tmp_path):
    template = tmp_path / "card.md"
    template.write_text("---\n{{ card_data }}\n---\n{% call section('short') %}{{ record.model_name }}{% endcall %}\n")
    card = write_model_card(tmp_path, make_record(), template).read_text()
    assert section("short", "leaves-sage") in card
    args = SageTrainingArguments(output_dir=str(tmp_path / "run"), max_steps=1, use_cpu=True, report_to="none")
    trainer = SageTrainer(make_model("vit"), args, train_dataset=Rows())
    trainer.train()
    trainer.create_model_card(template=str(template))
    assert section("short", "run") in (tmp_path / "run" / "README.md").read_text()


def test_a_long_log_is_thinned_and_keeps_the_kept_row():
    log = [{"step": step, "loss": 1.0} for step in range(1, 1001)]
    shown = shown_log(log, kept_step=333)
    assert len(shown) <= LOG_ROWS
    assert {1, 333, 1000} <= {row["step"] for row in shown}
    assert shown == sorted(shown, key=lambda row: row["step"])


def test_energy_is_read_from_codecarbons_tracker():
    data = type("Data", (), {"energy_consumed": 0.5, "emissions": 0.1})
    callback = type("Callback", (), {"tracker": type("Tracker", (), {"final_emissions_data": data})})
    assert energy_of([object(), callback]) == {"kwh": 0.5, "co2_kg": 0.1}
    assert energy_of([object()]) is None


def test_intervals_are_those_of_scipy():
    generator = np.random.default_rng(1)
    references = generator.integers(0, 2, 80)
    predictions = np.where(generator.random(80) < 0.8, references, 1 - references)

    def accuracy(one, other):
        return {"accuracy": float((one == other).mean())}

    found = bootstrap_intervals(accuracy, predictions, references, resamples=4000)["accuracy"]
    right = (predictions == references).astype(float)
    expected = bootstrap((right,), np.mean, n_resamples=4000, method="percentile", random_state=0).confidence_interval
    assert found["value"] == right.mean()
    assert found["low"] == pytest.approx(expected.low, abs=0.02)
    assert found["high"] == pytest.approx(expected.high, abs=0.02)


def test_pictures_arrive_on_a_card_that_had_none_and_go_again():
    without, with_pictures = render_model_card(make_record(pictures={})), render_model_card(make_record())
    assert "views.png" in refresh(without, with_pictures)
    assert "views.png" not in refresh(with_pictures, without)


@pytest.mark.parametrize("front", ["x: [", "- a"])
def test_front_matter_that_is_no_mapping_is_explained(front):
    card = render_model_card(make_record())
    broken = f"---\n{front}\n---\n" + card.split("---\n", 2)[2]
    with pytest.raises(ValueError, match=r"The front matter of README.md"):
        refresh(broken, card)


def test_the_kept_step_is_the_best_only_where_that_was_loaded(tmp_path):
    for load_best, kept in ((False, 3), (True, 1)):
        args = SageTrainingArguments(
            output_dir=str(tmp_path / str(load_best)),
            max_steps=3,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            metric_for_best_model="eval_loss",
            greater_is_better=True,  # the loss falls, so the first step is taken for the best
            load_best_model_at_end=load_best,
            learning_rate=1e-2,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SageTrainer(make_model("vit"), args, train_dataset=Rows(), eval_dataset=Rows())
        trainer.train()
        trainer.create_model_card()
        assert RunRecord.load(str(args.output_dir)).kept_step == kept


def test_outputs_without_names_are_numbered():
    assert output_names(PvtConfig(num_labels=3)) == ["LABEL_0", "LABEL_1", "LABEL_2"]
