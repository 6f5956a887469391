import numpy as np
import torch
from PIL import Image

from sage_hf.visualization import CELL, HEADER, MARGIN, alignment_grid, overlaid


def test_overlay_by_hand():
    """White turns to a grey of 0.75 without a map, to 0.4 of that and 0.6 of red at its maximum."""
    image = Image.fromarray(np.full((1, 2, 3), 255, dtype=np.uint8))
    pixels = np.asarray(overlaid(image, torch.tensor([[0.0, 1.0]])), dtype=float) / 255
    np.testing.assert_allclose(pixels[0, 0], [0.75, 0.75, 0.75], atol=1 / 255)
    np.testing.assert_allclose(pixels[0, 1], [0.4 * 0.75 + 0.6, 0.4 * 0.75, 0.4 * 0.75], atol=1 / 255)


def test_alignment_grid_shows_each_map_in_its_place():
    pictures = torch.zeros(2, 1, 4, 4)
    marked, cam = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4)
    marked[0, 0, 0, 0] = cam[1, 3, 3] = 1
    sheet = alignment_grid(pictures, marked, {"cam": cam}, [0.0], [1.0])
    assert sheet.size == (MARGIN + 3 * (CELL + MARGIN), HEADER + MARGIN + 2 * (CELL + MARGIN))
    pixels = np.asarray(sheet).astype(int)
    red = (pixels[..., 0] - pixels[..., 1]) > 100
    cell = CELL // 4
    top, left = HEADER + MARGIN, MARGIN + CELL + MARGIN
    second = (top + CELL + MARGIN, left + CELL + MARGIN)
    expected = np.zeros_like(red)
    expected[top : top + cell, left : left + cell] = True
    expected[second[0] + 3 * cell : second[0] + CELL, second[1] + 3 * cell : second[1] + CELL] = True
    assert (red == expected).all()
