"""Deletion, insertion and the marked region, against loops and models whose every answer is known."""

import numpy as np
import pytest
import torch

from sage_hf import SageTrainer
from sage_hf.evaluation.model_faithfulness import faithfulness_of_splits
from sage_hf.evaluation.removal import deletion_insertion, without_marked_region
from sage_hf.views import degrade_blur
from tests.conftest import make_args, make_dataset, make_model

HEIGHT, WIDTH = 6, 8


def make_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(2, 3, HEIGHT, WIDTH, generator=generator)
    weight = torch.randn(3 * HEIGHT * WIDTH, 4, generator=generator) / 4
    maps = torch.rand(2, HEIGHT, WIDTH, generator=generator)
    return pictures, maps, lambda x: (x.flatten(1) @ weight).softmax(dim=1)


@pytest.mark.parametrize("steps", [1, 4, 48])
def test_curves_by_a_loop_over_pixels(steps):
    pictures, maps, predict = make_case()
    deletion, insertion = deletion_insertion(predict, pictures, maps, torch.tensor([1, 3]), steps=steps)
    for row, target in enumerate([1, 3]):
        order = np.argsort(-maps[row].numpy().ravel())
        curves = {"deletion": [], "insertion": []}
        for step in range(steps + 1):
            without, back = pictures[row].clone(), degrade_blur(pictures)[row].clone()
            for pixel in order[: round(step * HEIGHT * WIDTH / steps)]:
                y, x = divmod(pixel, WIDTH)
                without[:, y, x] = pictures[row].mean(dim=(1, 2))
                back[:, y, x] = pictures[row, :, y, x]
            curves["deletion"].append(predict(without[None])[0, target].item())
            curves["insertion"].append(predict(back[None])[0, target].item())
        expected = {name: np.trapezoid(curve, np.linspace(0, 1, steps + 1)) for name, curve in curves.items()}
        assert deletion[row].item() == pytest.approx(expected["deletion"], rel=1e-5)
        assert insertion[row].item() == pytest.approx(expected["insertion"], rel=1e-5)


def test_the_right_map_deletes_faster_and_inserts_faster_than_its_opposite():
    """A model that sums one region of a picture."""
    region = torch.zeros(1, HEIGHT, WIDTH)
    region[:, :3, :4] = 1
    picture = (0.1 + 0.8 * region).expand(3, -1, -1)[None]

    def predict(x):
        mean = (x * region).sum(dim=(1, 2, 3)) / region.sum() / 3
        return torch.stack([mean, 1 - mean], dim=1)

    target = torch.tensor([0])
    right, wrong = (deletion_insertion(predict, picture, maps, target) for maps in (region, 1 - region))
    assert right[0] < wrong[0]
    assert right[1] > wrong[1]


def test_equal_values_are_taken_in_one_order_whatever_their_scale():
    pictures, maps, predict = make_case()
    binary, targets = (maps > 0.5).float(), torch.tensor([0, 0])
    once, again = (deletion_insertion(predict, pictures, scale * binary, targets) for scale in (1, 200))
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])


def test_marked_region_by_hand():
    pictures, maps, predict = make_case(1)
    targets = predict(pictures).argmax(dim=1)
    found = without_marked_region(predict, pictures, maps[:, None], targets)
    mean = pictures.mean(dim=(2, 3), keepdim=True)
    rest = pictures * (1 - maps[:, None]) + mean * maps[:, None]
    kept = pictures * maps[:, None] + mean * (1 - maps[:, None])
    for row, target in enumerate(targets.tolist()):
        whole = predict(pictures)[row, target]
        assert found["comprehensiveness"][row] == pytest.approx((whole - predict(rest)[row, target]).item(), abs=1e-6)
        assert found["sufficiency"][row] == pytest.approx((whole - predict(kept)[row, target]).item(), abs=1e-6)
    assert torch.equal(found["predicted_without_marked"], predict(rest).argmax(dim=1))


@pytest.mark.parametrize(
    ("steps", "shape", "message"), [(0, (2, 6, 8), "steps is 0"), (4, (2, 8, 6), r"maps must be \(2, 6, 8\)")]
)
def test_mistakes(steps, shape, message):
    pictures, _, predict = make_case()
    with pytest.raises(ValueError, match=message):
        deletion_insertion(predict, pictures, torch.rand(shape), torch.tensor([0, 0]), steps=steps)


def test_figures_of_a_split(tmp_path, processor):
    model = make_model("convnext")
    trainer = SageTrainer(model, make_args(tmp_path), processing_class=processor)
    split = make_dataset(6, annotated=4)
    found = faithfulness_of_splits(trainer, {"test": split}, resamples=10)["test"]
    assert found["pictures"] == 4
    assert set(found) == {"pictures", "cam", "gradient", "human", "marked_region"}
    rows = [trainer.preparation(split, "test", maps=True)[index] for index in range(4)]
    pictures, saliency = (torch.stack([row[name] for row in rows]) for name in ("pixel_values", "saliency"))
    labels = torch.tensor([row["labels"] for row in rows])
    model.eval()
    with torch.no_grad():

        def predict(x):
            return model(pixel_values=x).logits.softmax(dim=1)

        targets = predict(pictures).argmax(dim=1)
        deletion, _ = deletion_insertion(predict, pictures, saliency[:, 0], targets)
        changed = without_marked_region(predict, pictures, saliency, targets)
    assert found["human"]["deletion"]["value"] == pytest.approx(deletion.mean().item(), rel=1e-5)
    marked = found["marked_region"]
    assert marked["accuracy"]["value"] == (targets == labels).float().mean()
    assert marked["accuracy_without_marked"]["value"] == (changed["predicted_without_marked"] == labels).float().mean()
    assert marked["comprehensiveness"]["value"] == pytest.approx(changed["comprehensiveness"].mean().item(), abs=1e-6)
    for figures in (found["cam"], found["gradient"]):
        assert 0 < figures["deletion"]["low"] <= figures["deletion"]["high"] < 1
