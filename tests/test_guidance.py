"""Which rows of a batch a step guides, and which show x+ in place of x."""

import json

import pytest
import torch
import torch.nn.functional as F

from sage_hf import SageTrainer, SageTrainingArguments, make_views
from sage_hf.counting import StepCounts, count_rows
from sage_hf.data import SaliencyCollator
from sage_hf.guidance import Guide
from sage_hf.objectives import Objective
from sage_hf.tasks import Task
from sage_hf.training_args import PRESETS
from tests.conftest import Rows, make_args, make_model

ANNOTATED = (0, 2, 3, 5, 8, 9, 12)


@pytest.fixture
def rows() -> dict[str, torch.Tensor]:
    """A batch of 16 rows, 7 of them with a map."""
    return SaliencyCollator()([Rows(annotated=ANNOTATED)[index] for index in range(16)])


def make_trainer(folder, model=None, **settings) -> SageTrainer:
    args = make_args(folder, degradation="mean", per_device_train_batch_size=16, **settings)
    return SageTrainer(model=model or make_model("vit"), args=args)


def guide(trainer: SageTrainer, rows: dict[str, torch.Tensor], step: int = 0) -> tuple:
    """Logits, and terms by name, of the first batch of a step."""
    assert isinstance(trainer._guide, Guide)
    trainer._guide.batches = 0
    others = {"pixel_values": rows["pixel_values"]}
    return trainer._guide(trainer.model.train(), others, rows["labels"], rows["saliency"], rows["saliency_mask"], step)


def loss_of(trainer: SageTrainer, rows: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    trainer._guide.batches, trainer.state.global_step = 0, step
    return trainer.compute_loss(trainer.model.train(), dict(rows))


def places(terms: dict[str, torch.Tensor], of_all: dict[str, torch.Tensor]) -> list[int]:
    """Which of all annotated rows the terms belong to."""
    found = [int((of_all["consistency"] - one).abs().argmin()) for one in terms["consistency"]]
    torch.testing.assert_close(terms["triplet"], of_all["triplet"][found])
    return found


def test_one_in_k_annotated_rows_is_guided(tmp_path, rows):
    every = make_trainer(tmp_path / "every")
    logits, of_all = guide(every, rows)
    assert len(of_all["triplet"]) == 7
    trainer = make_trainer(tmp_path, model=every.model, guidance_one_in=3)
    drawn = set()
    for step in range(20):
        found = places(guide(trainer, rows, step)[1], of_all)
        assert found == sorted(set(found))
        assert len(found) == 3  # a third of 7, rounded up
        drawn.update(found)
    assert drawn == set(range(7))

    _, terms = guide(trainer, rows)
    expected = F.cross_entropy(logits, rows["labels"]) + terms["triplet"].mean() + terms["consistency"].mean()
    torch.testing.assert_close(loss_of(trainer, rows, 0), expected)


def test_drawn_rows_are_counted_over_the_whole_step():
    masks = [[True] * 4, [True, False, True, False], [False] * 4, [True, False, False, False]]
    batches = [{"labels": torch.zeros(4, dtype=torch.long), "saliency_mask": torch.tensor(mask)} for mask in masks]
    task = Task("single_label_classification", 3)
    counts = StepCounts(*count_rows(batches, task, (2, 2), torch.device("cpu"), one_in=3))
    assert (counts.rows, counts.annotated) == (16, 7)
    assert counts.guided == 2 + 1 + 0 + 0  # the last has fewer annotated rows than it takes


@pytest.mark.parametrize("guidance", ["sage", "augment"])
def test_a_step_without_guidance_shows_the_positive_views(tmp_path, rows, guidance):
    trainer = make_trainer(tmp_path, guidance=guidance, guidance_interval=2, substitution=1.0)
    positive, _ = make_views(rows["pixel_values"], rows["saliency"], "mean")
    shown = torch.where(rows["saliency_mask"].view(-1, 1, 1, 1), positive, rows["pixel_values"])
    logits = trainer.model.train()(shown).logits
    assert not torch.allclose(logits, trainer.model(rows["pixel_values"]).logits)
    torch.testing.assert_close(loss_of(trainer, rows, 1), F.cross_entropy(logits, rows["labels"]))


def test_rows_that_are_guided_show_themselves(tmp_path, rows):
    every = make_trainer(tmp_path / "every")
    of_none, of_all = guide(every, rows)
    trainer = make_trainer(tmp_path, model=every.model, guidance_one_in=4, substitution=1.0)
    logits, terms = guide(trainer, rows, step=3)
    guided = [ANNOTATED[place] for place in places(terms, of_all)]
    assert len(guided) == 2
    same = [row for row in range(16) if torch.allclose(logits[row], of_none[row], atol=1e-6)]
    assert same == sorted(set(range(16)) - set(ANNOTATED) | set(guided))


def test_substitution_is_a_probability_and_follows_the_seed(tmp_path, rows):
    trainer = make_trainer(tmp_path, guidance_one_in=7, substitution=0.25)
    logits = trainer.model.train()(rows["pixel_values"]).logits
    changed = 0
    for step in range(60):
        first, again = guide(trainer, rows, step)[0], guide(trainer, rows, step)[0]
        assert torch.equal(first, again)
        changed += int((~torch.isclose(first, logits, atol=1e-6).all(dim=1)).sum())
    # 360 draws: 90 expected, and a standard deviation of 8.2
    assert 60 < changed < 120


def test_an_objective_without_views_has_none_to_show(tmp_path, rows):
    class Nothing(Objective):
        names, weights = ("nothing",), {"nothing": 1.0}

        def terms(self, anchor, *views, batch):
            return {"nothing": anchor.logits.sum(dim=1)}

    args = make_args(tmp_path, preset="fast")
    trainer = SageTrainer(model=make_model("vit"), args=args, objective=Nothing())
    with pytest.raises(ValueError, match="Nothing makes none: leave substitution and the preset out"):
        guide(trainer, rows)


def test_pictures_of_the_batch_are_left_alone(tmp_path, rows):
    before = rows["pixel_values"].clone()
    guide(make_trainer(tmp_path, guidance_one_in=7, substitution=1.0), rows)
    assert torch.equal(rows["pixel_values"], before)


def test_a_preset_fills_in_what_is_not_given(tmp_path):
    full, fast = make_args(tmp_path), make_args(tmp_path, preset="fast")
    assert (full.guidance_one_in, full.substitution) == (1, 0.0)
    assert fast.guidance_one_in > 1
    assert fast.substitution > 0
    own = make_args(tmp_path, preset="fast", guidance_one_in=2)
    assert (own.guidance_one_in, own.substitution) == (2, fast.substitution)
    assert make_args(tmp_path, preset="fast", substitution=0.0).substitution == 0
    assert (full.triplet_weight, fast.triplet_weight) == (1.0, 3.0)
    assert (full.objective().triplet_weight, fast.objective().triplet_weight) == (1.0, 3.0)
    assert make_args(tmp_path, preset="fast", triplet_weight=1.0).triplet_weight == 1
    augment = make_args(tmp_path, preset="fast", guidance="augment")  # which has no triplet
    assert (augment.guidance_one_in, augment.triplet_weight) == (fast.guidance_one_in, 1.0)
    assert fast.sage_settings()["guidance_one_in"] == fast.guidance_one_in
    saved = json.loads(fast.to_json_string())
    again = SageTrainingArguments(
        output_dir=str(tmp_path), **{name: saved[name] for name in ("preset", *PRESETS["fast"])}
    )
    assert (again.preset, again.guidance_one_in, again.triplet_weight) == ("fast", fast.guidance_one_in, 3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance_one_in": 0}, "guidance_one_in must be 1 or more"),
        ({"substitution": 1.5, "guidance_one_in": 2}, "substitution is a probability"),
        ({"substitution": 0.5}, "all are guided: set guidance_one_in or guidance_interval above 1"),
        ({"substitution": 0.5, "guidance_one_in": 2, "guidance": "cyborg"}, "guidance='cyborg' makes none"),
        ({"preset": "faster"}, "Unknown preset 'faster'. Choose one of full, fast"),
    ],
)
def test_bad_settings_are_explained(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_args(tmp_path, **settings)
