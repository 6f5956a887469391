import pytest
import torch

from sage_hf import SageObjective, SageTrainingArguments
from sage_hf.controls import CONTROLS, control_saliency


def maps(height=12, width=20):
    """A soft rectangle, noise, a full map and a single pixel."""
    generator = torch.Generator().manual_seed(0)
    saliency = torch.zeros(4, 1, height, width)
    saliency[0, 0, 2:7, 3:9] = 0.5
    saliency[0, 0, 4, 4] = 1.0
    saliency[1] = torch.rand(1, height, width, generator=generator)
    saliency[2] = 1.0
    saliency[3, 0, 0, 0] = 1.0
    return saliency


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("control", sorted(CONTROLS))
def test_rows_without_a_map_stay_and_the_generator_decides(control):
    saliency, rows = maps(), torch.tensor([0, 1, 3])
    found = control_saliency(saliency, rows, control, seeded())
    assert torch.equal(found[2], saliency[2])
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found, control_saliency(saliency, rows, control, seeded()))
    assert not torch.equal(found[0], saliency[0])
    assert torch.equal(saliency, maps()), "the maps themselves were changed"


def test_a_centre_gaussian_has_the_maps_area_and_the_pictures_shape():
    saliency = maps()[[0, 1]]
    found = CONTROLS["center_gaussian"](saliency, None)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), saliency.sum(dim=(1, 2, 3)))
    assert found.amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0]
    for flipped in (found.flip(2), found.flip(3)):
        torch.testing.assert_close(flipped, found)
    # exp(-(u^2 + v^2) / 2 k^2), u and v the distances from the middle as shares of height and width: between the
    # pixels of rows 6 and 9 in column 10, only u changes.
    row = found[0, 0, :, 10].double()
    u = (torch.arange(12) - 5.5) / 12
    k_squared = (u[9] ** 2 - u[6] ** 2) / (2 * (row[6] / row[9]).log())
    column = found[0, 0, 6].double()
    v = (torch.arange(20) - 9.5) / 20
    assert (column[10] / column[15]).log().item() == pytest.approx(
        ((v[15] ** 2 - v[10] ** 2) / (2 * k_squared)).item(), rel=1e-3
    )


def test_a_centre_gaussian_of_a_full_or_a_tiny_map_stays_finite():
    found = CONTROLS["center_gaussian"](maps()[[2, 3]], None)
    torch.testing.assert_close(found[0], torch.ones_like(found[0]), rtol=0, atol=1e-4)
    assert torch.isfinite(found).all()


def test_random_blobs_have_the_very_values_of_the_map_elsewhere():
    saliency = maps()
    found, other = (CONTROLS["random_blobs"](saliency, seeded(seed)) for seed in (1, 2))
    assert torch.equal(found.flatten(1).sort().values, saliency.flatten(1).sort().values)
    assert not torch.equal(found, other)
    # Blobs, not noise: a marked pixel has marked neighbours. 31 of 240 pixels are marked.
    marked = found[0, 0] > 0
    pairs = (marked[:, 1:] & marked[:, :-1]).sum() + (marked[1:] & marked[:-1]).sum()
    assert pairs > 1.2 * marked.sum()


def test_what_can_not_be_controlled(tmp_path):
    with pytest.raises(ValueError, match="Unknown saliency_control 'noise'"):
        control_saliency(maps(), torch.tensor([0]), "noise")
    with pytest.raises(ValueError, match="Shuffling needs another row"):
        control_saliency(maps(), torch.tensor([0]), "shuffled")
    with pytest.raises(ValueError, match="center_gaussian, random_blobs"):
        SageTrainingArguments(output_dir=str(tmp_path), saliency_control="random")
    assert SageObjective(saliency_control="random_blobs").fewest_rows == (2, 1)
