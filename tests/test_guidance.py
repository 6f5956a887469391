"""Which rows of a batch a step guides, and which show x+ in place of x."""

import json

import datasets
import pytest
import torch
import torch.nn.functional as F

from sage_hf import SageObjective, SageTrainer, SageTrainingArguments, make_views
from sage_hf.counting import StepCounts, count_rows
from sage_hf.data import SaliencyCollator
from sage_hf.guidance import Guide
from sage_hf.objectives import Objective
from sage_hf.training_args import PRESETS
from tests.conftest import Rows, make_args, make_dataset, make_model

ANNOTATED = (0, 2, 3, 5, 8, 9, 12)


@pytest.fixture
def rows() -> dict[str, torch.Tensor]:
    """A batch of 16 rows, 7 of them with a map."""
    return SaliencyCollator()([Rows(annotated=ANNOTATED)[index] for index in range(16)])


def make_trainer(folder, model=None, degradation="mean", **settings) -> SageTrainer:
    args = make_args(folder, degradation=degradation, per_device_train_batch_size=16, **settings)
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
    drawn, numbers = set(), []
    for step in range(21):
        found = places(guide(trainer, rows, step)[1], of_all)
        assert found == sorted(set(found))
        numbers.append(len(found))
        drawn.update(found)
    assert numbers == [2, 2, 3] * 7  # a third of 7, rounded up at one step of three
    assert drawn == set(range(7))

    _, terms = guide(trainer, rows)
    guidance = 3 / 7 * (terms["triplet"] + terms["consistency"]).sum()
    torch.testing.assert_close(loss_of(trainer, rows, 0), F.cross_entropy(logits, rows["labels"]) + guidance)


@pytest.mark.parametrize("interval", [1, 2])
def test_one_in_k_rows_are_guided_over_k_turns_whatever_a_batch_holds(tmp_path, monkeypatch, interval):
    """Batches of 1 to 9 annotated rows: at successive steps, in one step, or at one step of several processes."""
    trainer = make_trainer(tmp_path, guidance_one_in=7, guidance_interval=interval)

    def guided(annotated: int, step: int = 0, batch: int = 0, process: int = 0) -> int:
        monkeypatch.setattr(type(trainer.args), "process_index", process)
        trainer._guide.batches = batch
        return trainer._guide._how_many(annotated, step)

    for annotated in range(1, 10):
        of_turns = [
            [guided(annotated, step=step) for step in range(0, 7 * interval, interval)],
            [guided(annotated, step=4 * interval, batch=batch) for batch in range(7)],
            [guided(annotated, process=process) for process in range(7)],
        ]
        for numbers in of_turns:
            assert sum(numbers) == annotated
            assert set(numbers) <= {annotated // 7, annotated // 7 + 1}
        assert interval == 1 or all(guided(annotated, step=step) == 0 for step in range(1, 14, 2))


def test_a_step_that_happens_to_guide_no_row_is_plain_and_shows_positive_views(tmp_path, rows):
    rows["saliency_mask"][list(ANNOTATED[1:])] = False
    alone = make_trainer(tmp_path / "alone", guidance_one_in=7)
    of_none = F.cross_entropy(alone.model.train()(rows["pixel_values"]).logits, rows["labels"])
    for step in range(6):
        assert guide(alone, rows, step)[1] == {}
        torch.testing.assert_close(loss_of(alone, rows, step), of_none)
    assert len(guide(alone, rows, 6)[1]["triplet"]) == 1

    shown = make_trainer(tmp_path, model=alone.model, guidance_one_in=7, substitution=1.0)
    for step in range(6):
        assert guide(shown, rows, step)[1] == {}
        assert not torch.isclose(loss_of(shown, rows, step), of_none)


@pytest.mark.parametrize("size", [16, 4])
def test_one_in_k_rows_have_the_loss_of_all_in_the_mean(tmp_path, rows, size):
    """However few rows a batch has: seven of sixteen, or one to three of four, are annotated here."""
    every = make_trainer(tmp_path / "every")
    parts = [{name: value[at : at + size] for name, value in rows.items()} for at in range(0, 16, size)]
    losses = []
    with torch.no_grad():
        plain = F.cross_entropy(guide(every, rows)[0], rows["labels"])
        of_all = loss_of(every, rows, 0) - plain
        some = make_trainer(tmp_path, model=every.model, guidance_one_in=5)
        for step in range(200):
            some.state.global_step = step
            _, counts = some.get_batch_samples(iter(parts), len(parts), torch.device("cpu"))
            of_step = [some.compute_loss(some.model, dict(part), num_items_in_batch=counts) for part in parts]
            losses.append(sum(of_step) - plain)
    mean, error = torch.stack(losses).mean(), torch.stack(losses).std() / len(losses) ** 0.5
    assert error < 0.06 * of_all
    assert abs(mean - of_all) < 3 * error


def test_rows_that_can_be_drawn_are_counted_over_the_whole_step(tmp_path):
    """Maps of other rows, as a control, take two of them."""
    masks = [[True] * 4, [True, False, True, False], [False] * 4, [True, False, False, False]]
    batches = [{"labels": torch.zeros(4, dtype=torch.long), "saliency_mask": torch.tensor(mask)} for mask in masks]
    trainer = make_trainer(tmp_path, saliency_control="shuffled")
    counts = StepCounts(*count_rows(batches, trainer.task, torch.device("cpu"), trainer._guide.guidable))
    assert (counts.rows, counts.annotated) == (16, 7)
    assert counts.guided == 4 + 2 + 0 + 0  # the last has fewer annotated rows than it takes


def views_of(trainer: SageTrainer, monkeypatch, batch: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    """What the objective was asked to make views of, and what it made: pictures, rows, x+ and x-; empty if nothing."""
    seen = []
    kind = type(trainer.guidance_objective)
    make = kind.views

    def views(self, pixel_values, saliency, rows, generator=None):
        made = make(self, pixel_values, saliency, rows, generator)
        seen.append((pixel_values, rows, *made))
        return made

    with monkeypatch.context() as patch:
        patch.setattr(kind, "views", views)
        loss_of(trainer, batch, 0)
    return seen


def test_background_views_show_no_row_without_a_map(tmp_path, monkeypatch, rows):
    """Each picture has a colour of its own; 1 and 4 have a blank map, 5 rows and more none."""
    colours = torch.arange(16.0) / 16
    rows["pixel_values"] = colours.view(-1, 1, 1, 1).expand_as(rows["pixel_values"]).clone()
    rows["saliency"][:, :, :4] = 0.0  # so that every map leaves something unmarked
    rows["saliency_known"][[1, 4]] = True
    known = sorted({*ANNOTATED, 1, 4})
    trainer = make_trainer(tmp_path / "all", degradation="background")
    some = make_trainer(tmp_path, degradation="background", guidance_one_in=2, substitution=1.0)
    for one in (trainer, some):
        for pictures, made_of, positive, negative in views_of(one, monkeypatch, rows):
            torch.testing.assert_close(pictures[:, 0, 0, 0], colours[known])
            assert set(made_of.tolist()) <= {known.index(row) for row in ANNOTATED}
            around = positive[:, 0, 0, 0]  # where nothing is marked: the other picture's colour
            assert all((around - colours[known].view(-1, 1)).abs().min(dim=0).values < 1e-6)
            assert not torch.isclose(around, pictures[made_of][:, 0, 0, 0]).any()
            torch.testing.assert_close(negative[:, 0, 0, 0], pictures[made_of][:, 0, 0, 0])
    del rows["saliency_known"]  # a collator of one's own, which does not say: as it was, of all rows
    ((pictures, *_),) = views_of(trainer, monkeypatch, rows)
    assert len(pictures) == 16


def test_other_views_are_made_of_all_rows(tmp_path, monkeypatch, rows):
    trainer = make_trainer(tmp_path, degradation="shuffle")
    ((pictures, made_of, *_),) = views_of(trainer, monkeypatch, rows)
    assert (len(pictures), made_of.tolist()) == (16, list(ANNOTATED))


def test_a_batch_with_one_known_row_has_no_background(tmp_path, monkeypatch, rows):
    rows["saliency_mask"][list(ANNOTATED[1:])] = False
    rows["saliency_known"] = rows["saliency_mask"].clone()
    trainer = make_trainer(tmp_path, degradation="background")
    assert views_of(trainer, monkeypatch, rows) == []
    counted = {"task": trainer.task, "device": torch.device("cpu"), "guidable": trainer._guide.guidable}
    assert StepCounts(*count_rows([rows], **counted)).guided == 0
    rows["saliency_known"][4] = True
    assert len(views_of(trainer, monkeypatch, rows)) == 1
    assert StepCounts(*count_rows([rows], **counted)).guided == 1


@pytest.mark.parametrize(("interval", "norm", "warned"), [(4, 1.0, True), (4, 0.0, False), (1, 1.0, False)])
def test_clipping_of_an_interval_is_warned_of(tmp_path, monkeypatch, interval, norm, warned):
    said = []
    monkeypatch.setattr("sage_hf.checks.logger.warning", lambda text, *values: said.append(text % values))
    make_trainer(tmp_path, guidance_interval=interval, max_grad_norm=norm)
    assert [line.split(" multiplies")[0] for line in said] == ["guidance_interval=4"] * warned


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


def test_an_objective_need_not_inherit(tmp_path, rows):
    class Bare:
        """What the protocol had before it asked which rows views may show."""

        names, weights, needs, fewest_rows = ("bare",), {"bare": 1.0}, frozenset(), (1, 1)

        def maps(self, saliency, rows, generator=None):
            return saliency

        def views(self, pixel_values, saliency, rows, generator=None):
            assert len(pixel_values) == 16
            return (pixel_values[rows],)

        def terms(self, anchor, *views, batch):
            return {"bare": (anchor.logits - views[0].logits).sum(dim=1)}

    trainer = SageTrainer(model=make_model("vit"), args=make_args(tmp_path), objective=Bare())
    rows["saliency_known"] = rows["saliency_mask"]
    assert guide(trainer, rows)[1]["bare"].abs().max() < 1e-5
    counted = trainer.get_batch_samples(iter([rows]), 1, torch.device("cpu"))[1]
    assert StepCounts(*counted).guided == len(ANNOTATED)


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


def healthy_trainer(folder, processor, **settings) -> SageTrainer:
    """Rows of three classes in turn, `healthy` the first; 1, 2 and 4 have a map, all others none."""
    rows = make_dataset(9)
    kept = [picture if index in (1, 2, 4) else None for index, picture in enumerate(rows["saliency"])]
    rows = datasets.Dataset.from_list(
        [row | {"saliency": one} for row, one in zip(rows, kept, strict=True)], features=rows.features
    )
    args = make_args(folder, degradation="background", per_device_train_batch_size=9, max_steps=1, **settings)
    return SageTrainer(make_model("vit"), args, train_dataset=rows, processing_class=processor)


@pytest.mark.parametrize(("classes", "shown"), [(None, {1, 2, 4}), (["healthy"], {0, 3, 6, 1, 2, 4})])
def test_pictures_of_classes_with_nothing_to_mark_are_backgrounds(tmp_path, monkeypatch, processor, classes, shown):
    trainer = healthy_trainer(tmp_path, processor, unmarked_classes=classes)
    assert trainer.model_config.sage.get("unmarked_classes") == classes
    pictures = [row["pixel_values"] for row in trainer.train_dataset]
    seen, make = [], SageObjective.views

    def views(self, pixel_values, *others):
        seen.extend(next(i for i, one in enumerate(pictures) if torch.equal(one, picture)) for picture in pixel_values)
        return make(self, pixel_values, *others)

    monkeypatch.setattr(SageObjective, "views", views)
    trainer.train()
    assert sorted(seen) == sorted(shown)


def test_classes_with_nothing_to_mark_are_those_of_the_model(tmp_path, processor):
    with pytest.raises(ValueError, match=r"unmarked_classes holds \['health'\], and the classes are 'healthy'"):
        healthy_trainer(tmp_path, processor, unmarked_classes=["health"])
    args = make_args(tmp_path, unmarked_classes=["a"])
    model = make_model("vit")
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match="unmarked_classes is for one label a picture"):
        SageTrainer(model, args)
