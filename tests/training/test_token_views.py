import pytest
import torch

from tests.conftest import load_script


@pytest.fixture(scope="module")
def token_views():
    return load_script("benchmarks/token_views.py")


def test_chosen_tokens_are_kept_ones(token_views):
    tokens = torch.arange(3 * 9, dtype=torch.float32).view(3, 9, 1)
    kept = torch.zeros(3, 8, dtype=torch.bool)
    kept[0, [1, 2, 5, 6, 7]] = True
    kept[1, 3] = True
    chosen = token_views.chosen_tokens(tokens, kept, 4, torch.Generator().manual_seed(0))[..., 0]
    assert chosen.shape == (3, 5)
    assert chosen[:, 0].tolist() == [0, 9, 18]  # the class tokens
    assert len(set(chosen[0, 1:].tolist())) == 4
    assert set(chosen[0, 1:].tolist()) <= {2, 3, 6, 7, 8}
    assert chosen[1, 1:].tolist() == [13] * 4
    assert set(chosen[2, 1:].tolist()) <= set(range(19, 27))  # nothing is kept: of all


def test_all_tokens_give_the_encoding_of_the_picture(token_views):
    torch.manual_seed(0)
    model = token_views.decoy_mnist.make_model("vit").eval()
    picture = torch.rand(2, 1, 28, 28)
    embedded = token_views.encode(model, model.vit.embeddings(picture))
    torch.testing.assert_close(embedded.logits, model(picture).logits)
    # The order of tokens does not matter to a transformer, and all of them are the picture.
    x, positive, _ = token_views.encodings(
        model, picture, torch.ones(2, 1, 28, 28), 1 - 1e-9, 0.5, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(positive.logits, x.logits, atol=1e-5, rtol=1e-4)


def test_marked_pixels_decide_which_tokens_a_view_has(token_views):
    torch.manual_seed(0)
    model = token_views.decoy_mnist.make_model("vit").eval()
    maps = torch.zeros(1, 1, 28, 28)
    maps[..., :14] = 1  # the left half
    pictures = torch.rand(1, 1, 28, 28)
    others = pictures.clone()
    others[..., 14:] = 0  # the right half differs
    seeds = (torch.Generator().manual_seed(0) for _ in range(2))
    first, second = (
        token_views.encodings(model, one, maps, 0.5, 0.5, seed)
        for one, seed in zip((pictures, others), seeds, strict=True)
    )
    torch.testing.assert_close(first[1].logits, second[1].logits)  # x+
    assert not torch.allclose(first[2].logits, second[2].logits)  # x-


def test_a_quick_try_makes_a_table(token_views, tmp_path, capsys, monkeypatch):
    quick = {name: task | {"data": _few(task["data"])} for name, task in token_views.TASKS.items()}
    monkeypatch.setattr(token_views, "TASKS", quick)
    token_views.main(["--out", str(tmp_path / "out.json"), "--quick", "--seeds", "1"])
    out = capsys.readouterr().out
    for name in quick:
        for mode in token_views.MODES:
            assert f"| {name} | {mode} | 1 |" in out


def _few(load):
    def loaded(seed):
        train, scored = load(seed)
        return tuple(part[:33] for part in train), [tuple(part[:20] for part in split) for split in scored]

    return loaded
