import datasets
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sage_hf import SageTrainer
from sage_hf.objectives import AugmentObjective
from sage_hf.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from tests.conftest import make_args, make_dataset, make_model


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_equals_cross_entropy_of_pictures_and_of_their_views(tmp_path, batch, kind):
    model, plain = make_model(kind), make_model(kind).train()
    settings = {"degradation": "mean", "guidance_weight": 0.5, "class_weights": ["1", "2", "4"]}
    trainer = SageTrainer(model, make_args(tmp_path, guidance="augment", label_smoothing_factor=0.1, **settings))
    loss = trainer.compute_loss(model.train(), batch)
    x, s, y, rows = batch["pixel_values"], batch["saliency"], batch["labels"], batch["saliency_mask"]
    preserved = s * x + (1 - s) * x.mean(dim=(2, 3), keepdim=True)
    weights = torch.tensor([1.0, 2.0, 4.0]) / (7 / 3)  # a mean of 1: the data's own labels can't be read beforehand
    common = {"weight": weights, "label_smoothing": 0.1, "reduction": "sum"}
    expected = F.cross_entropy(plain(x).logits, y, **common) / weights[y].sum()
    expected = expected + 0.5 * F.cross_entropy(plain(preserved[rows]).logits, y[rows], **common) / rows.sum()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weights", [("1", "2", "3"), ("10", "20", "30"), ("balanced",)])
def test_class_weights_of_any_scale_count_alike(tmp_path, processor, weights):
    """Maps that mark all make x+ of x, and the loss twice the task's, as torch has it."""
    rows = make_dataset(7, annotated=7)
    white = [Image.new("L", picture.size, 255) for picture in rows["image"]]
    rows = datasets.Dataset.from_list(
        [row | {"saliency": one} for row, one in zip(rows, white, strict=True)], features=rows.features
    )
    model = make_model("vit")
    settings = {"guidance": "augment", "class_weights": list(weights), "max_steps": 1, "logging_steps": 1}
    args = make_args(tmp_path, per_device_train_batch_size=7, save_strategy="no", **settings)
    trainer = SageTrainer(model, args, train_dataset=rows, processing_class=processor)
    with torch.no_grad():
        logits = model.eval()(torch.stack([row["pixel_values"] for row in trainer.train_dataset])).logits
    labels = torch.tensor(rows["label"])
    numbers = torch.tensor(
        [7 / 3 / count for count in labels.bincount().tolist()]
        if weights == ("balanced",)
        else list(map(float, weights))
    )
    expected = F.cross_entropy(logits, labels, numbers).item()
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(2 * expected, rel=1e-4)
    assert [logged["cross_entropy"], logged["augmented"]] == pytest.approx([expected, expected], rel=1e-4)
    assert trainer.model_config.sage["class_weights"] == pytest.approx(numbers.tolist())  # as they were given


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_losses_of_rows_add_up_to_the_loss(problem_type):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 1, -100]) if problem_type == SINGLE_LABEL else torch.rand(5, 3)
    weights = None if problem_type == REGRESSION else (1.0, 0.5, 3.0)
    task = Task(problem_type, 3, weights)
    rows = task.row_losses(logits, labels)
    assert rows.shape == (5,)
    torch.testing.assert_close(rows.sum(), task.total_loss(logits, labels))
    for row in range(5):
        torch.testing.assert_close(rows[row], task.total_loss(logits[row : row + 1], labels[row : row + 1]))


def test_settings_of_another_guidance_are_refused(tmp_path):
    assert AugmentObjective().fewest_rows == (2, 1)
    make_args(tmp_path, guidance="none", margin=0.7, guidance_weight=2.0)
    with pytest.raises(ValueError, match=r"margin=0.7 is a setting of guidance='sage', and guidance='augment' does"):
        make_args(tmp_path, guidance="augment", margin=0.7)
    with pytest.raises(ValueError, match=r"guidance_weight=2.0 is a setting of guidance='augment'.*'sage' does"):
        make_args(tmp_path, guidance_weight=2.0)
    with pytest.raises(ValueError, match="degradation='blur' is a setting of guidance='sage'"):
        make_args(tmp_path, guidance="cyborg", degradation="blur")
