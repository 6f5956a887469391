import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, grey_dilation

from sage_hf import make_views
from sage_hf.views import DEGRADATIONS, degrade_blur, degrade_noise, fill_marks, grow_marks, partners


def pictures(batch=4, channels=3, height=16, width=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, channels, height, width, generator=generator),
        torch.rand(batch, 1, height, width, generator=generator),
    )


@pytest.mark.parametrize("degradation", DEGRADATIONS)
@settings(max_examples=15, deadline=None)
@given(batch=st.integers(2, 5), channels=st.sampled_from([1, 3]), height=st.integers(2, 23), width=st.integers(2, 23))
def test_views_keep_or_remove_what_is_marked(degradation, batch, channels, height, width):
    x, s = pictures(batch, channels, height, width)
    s = (s > 0.5).float()
    positive, negative = make_views(x, s, degradation, generator=torch.Generator().manual_seed(3))
    marked = s.expand_as(x).bool()
    assert torch.equal(positive[marked], x[marked])
    assert torch.equal(negative[~marked], x[~marked])
    # The two views share one degraded picture, so together they hold the picture and the degraded one.
    degraded = DEGRADATIONS[degradation](x, torch.Generator().manual_seed(3))
    torch.testing.assert_close(positive + negative, x + degraded)


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_views_equal_the_definition_pixel_by_pixel(degradation):
    x, s = (t.double() for t in pictures(3, 2, 5, 4))
    positive, negative = make_views(x, s, degradation, generator=torch.Generator().manual_seed(5))
    degraded = DEGRADATIONS[degradation](x, torch.Generator().manual_seed(5))
    for b, c, i, j in np.ndindex(*x.shape):
        weight, pixel, other = s[b, 0, i, j].item(), x[b, c, i, j].item(), degraded[b, c, i, j].item()
        assert positive[b, c, i, j].item() == pytest.approx(weight * pixel + (1 - weight) * other, abs=1e-12)
        assert negative[b, c, i, j].item() == pytest.approx((1 - weight) * pixel + weight * other, abs=1e-12)


@pytest.mark.parametrize("degradation", [*DEGRADATIONS, "background"])
def test_views_stay_in_the_range_of_the_pictures(degradation):
    x, s = pictures(6)
    for view in make_views(x, s, degradation):
        lowest, highest = x.amin(dim=(0, 2, 3)), x.amax(dim=(0, 2, 3))
        slack = 1e-5  # rounding of the blur's weights
        assert (view.amin(dim=(0, 2, 3)) >= lowest - slack).all()
        assert (view.amax(dim=(0, 2, 3)) <= highest + slack).all()


@pytest.mark.parametrize("degradation", ["noise", "shuffle", "background"])
def test_a_seed_decides_the_views(degradation):
    x, s = pictures(batch=12)
    first, again, other = (
        make_views(x, s, degradation, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(7)
    first = make_views(x, s, degradation)[0]
    torch.manual_seed(7)
    assert torch.equal(first, make_views(x, s, degradation)[0])


def test_blur_equals_scipy():
    x, _ = pictures(2, 3, 40, 30)
    expected = np.stack(
        [[gaussian_filter(channel, sigma=3.0, mode="mirror", radius=9) for channel in image] for image in x.numpy()]
    )
    np.testing.assert_allclose(degrade_blur(x).numpy(), expected, atol=1e-5)


def test_filled_marks_equal_scipy():
    x, s = (t.double() for t in pictures(2, 3, 40, 30))
    s[0, :, :25] = 1  # farther than the blur reaches: the mean of what is unmarked
    filled = fill_marks(x, s).numpy()

    def blur(plane):
        return gaussian_filter(plane, sigma=3.0, mode="mirror", radius=9)

    for image, (mark,), found in zip(x.numpy(), s.numpy(), filled, strict=True):
        w = 1 - mark
        for channel, values in zip(image, found, strict=True):
            around = (blur(w * channel) + 1e-3 * np.average(channel, weights=w)) / (blur(w) + 1e-3)
            np.testing.assert_allclose(values, w * channel + mark * around, atol=1e-6)
    assert (fill_marks(x, torch.ones_like(s)) == 0).all()
    assert torch.equal(fill_marks(x, torch.zeros_like(s)), x)


def test_a_background_holds_nothing_that_is_marked():
    x, s = torch.zeros(2, 1, 20, 20), torch.zeros(2, 1, 20, 20)
    s[0, :, 4:9, 4:9] = 1
    s[1, :, 12:15, 12:15] = 1
    x = x + s  # what is marked is white, everything else black
    positive, negative = make_views(x, s, "background")
    torch.testing.assert_close(positive, x)  # the other picture's marks are not there
    torch.testing.assert_close(negative, torch.zeros_like(x))
    shuffled, _ = make_views(x, s, "shuffle")
    assert (shuffled - x).abs().max() == 1


def test_marks_grow_as_in_scipy():
    _, s = pictures(2, 1, 40, 50)
    s = s * (s > 0.98)
    for share, reach in ((0.1, 4), (0.001, 1)):
        grown = grow_marks(s.double(), share).numpy()
        for (mark,), (found,) in zip(s.double().numpy(), grown, strict=True):
            wide = grey_dilation(mark, size=2 * reach + 1, mode="constant")
            soft = gaussian_filter(wide, sigma=reach / 2, mode="mirror", radius=math.ceil(1.5 * reach))
            np.testing.assert_allclose(found, np.maximum(soft, mark), atol=1e-6)
    assert (grow_marks(torch.zeros_like(s), 0.1) == 0).all()
    assert torch.equal(grow_marks(s, 0.0), s)


def test_noise_has_the_moments_of_its_picture():
    x = torch.rand(1, 2, 200, 200, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0]).view(2, 1, 1)
    noise = degrade_noise(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise.mean(dim=(2, 3)), x.mean(dim=(2, 3)), rtol=0.02, atol=0.02)
    # A uniform picture reaches a = sqrt(3) deviations either side of its mean. A normal variable clamped there has the
    # variance P(|z| < a) - 2 a phi(a) + a^2 P(|z| > a) = 0.9167 - 0.3083 + 0.2498 = 0.8582, the deviation 0.9264.
    torch.testing.assert_close(noise.std(dim=(2, 3)), 0.9264 * x.std(dim=(2, 3)), rtol=0.01, atol=0.0)


@given(count=st.integers(2, 40), seed=st.integers(0, 10_000))
def test_partners_are_a_permutation_without_a_fixed_point(count, seed):
    partner = partners(count, torch.device("cpu"), torch.Generator().manual_seed(seed))
    assert sorted(partner.tolist()) == list(range(count))
    assert (partner != torch.arange(count)).all()


def test_rows_choose_the_views_and_not_the_degradation():
    x, s = pictures(5)
    rows = torch.tensor([1, 4])
    whole = make_views(x, s, "shuffle", generator=torch.Generator().manual_seed(2))
    chosen = make_views(x, s, "shuffle", rows=rows, generator=torch.Generator().manual_seed(2))
    for all_rows, some_rows in zip(whole, chosen, strict=True):
        assert torch.equal(all_rows[rows], some_rows)


def test_a_degradation_of_ones_own():
    x, s = pictures()
    positive, _ = make_views(x, torch.zeros_like(s), lambda x, generator: torch.full_like(x, 0.5))
    assert (positive == 0.5).all()
    with pytest.raises(ValueError, match="must keep the shape"):
        make_views(x, s, lambda x, generator: x[:1])


def test_bad_input_is_explained():
    x, s = pictures()
    with pytest.raises(ValueError, match=r"Unknown degradation 'blurr'. Choose .* shuffle, background, or pass"):
        make_views(x, s, "blurr")
    with pytest.raises(ValueError, match=r"saliency must be \(4, 1, 16, 20\).*got \(4, 1, 8, 10\)"):
        make_views(x, s[..., ::2, ::2])
    with pytest.raises(ValueError, match="pixel_values must be"):
        make_views(x[0], s)
    for degradation in ("shuffle", "background"):
        with pytest.raises(ValueError, match="batch of 1"):
            make_views(x[:1], s[:1], degradation)
