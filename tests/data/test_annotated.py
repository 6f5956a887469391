import datasets
import pytest

from sage_hf.data.annotated import rows_with_map


@pytest.mark.parametrize("kind", [datasets.List, datasets.LargeList])
def test_a_list_without_a_map_holds_none(kind):
    rows = [["a.png"], [], [None], None, [None, "b.png"], ["c.png", "d.png"]]
    features = datasets.Features({"saliency": kind(datasets.Value("string"))})
    split = datasets.Dataset.from_dict({"saliency": rows}, features=features)
    assert rows_with_map(split, "saliency") == [0, 4, 5]
    assert rows_with_map(split.select([1, 4, 5, 0, 2]), "saliency") == [1, 2, 3]
    assert rows_with_map(split.select([1, 2, 3]), "saliency") == []
    assert rows_with_map(datasets.concatenate_datasets([split] * 400), "saliency")[-3:] == [2394, 2398, 2399]
