import datasets
import pytest

from sage_hf import DataError
from sage_hf.data.known_classes import known_and_unknown
from sage_hf.data.labels import LabelReader


def rows(labels, feature):
    return datasets.Dataset.from_dict({"label": labels}, features=datasets.Features(label=feature))


def test_classes_without_rows_do_not_matter():
    named = rows([0, 2, 0], datasets.ClassLabel(names=["rust", "mould", "miner"]))
    known, unknown = known_and_unknown(named, "label", ["miner", "rust"])
    assert (len(known), len(unknown)) == (3, 0)


def test_numbers_are_left_alone():
    numbers = rows([0.5, 2.0], datasets.Value("float32"))
    known, unknown = known_and_unknown(numbers, "label", ["label"])
    assert (len(known), len(unknown)) == (2, 0)


def test_rows_without_a_label_stay_to_be_found():
    named = rows([0, None, 1], datasets.ClassLabel(names=["rust", "mould"]))
    known, unknown = known_and_unknown(named, "label", ["rust"], ["mould"])
    assert list(known["label"]) == [0, None]
    assert list(unknown["label"]) == [1]


def test_several_labels():
    several = rows([[0], [], [0, 1]], datasets.List(datasets.ClassLabel(names=["rust", "mould"])))
    with pytest.raises(DataError, match=r"test split: column 'label' has rows of \['mould'\]"):
        known_and_unknown(several, "label", ["rust"], name="test split")
    with pytest.raises(DataError, match="unknown classes need one"):
        known_and_unknown(several, "label", ["rust"], ["mould"])


@pytest.mark.parametrize(
    ("stored", "known", "message"),
    [
        (["rust", "mould"], ["LABEL_0", "LABEL_1"], r"These are no names.*config\.id2label = \{0: \.\.\., 1"),
        (["0", "1"], ["rust", "mould"], r"cast_column\('label', ClassLabel"),
        (["rust", "mould"], ["rust"], "name them as unknown classes"),
    ],
)
def test_how_classes_could_be_matched_is_said(stored, known, message):
    with pytest.raises(DataError, match=message):
        known_and_unknown(rows([0, 1], datasets.ClassLabel(names=stored)), "label", known)


def test_a_reader_goes_by_name_where_any_name_is_shared():
    read = LabelReader("label", names=["rust", "miner"], stored=["mould", "miner", "rust"])
    assert [read(1), read(2)] == [1, 0]
    with pytest.raises(DataError, match="class 'mould' is not one of the model's: rust, miner"):
        read(0)
    with pytest.raises(DataError, match="outside the head's range 0 to 2"):
        read(3)
