import pytest

from sage_hf.tasks import MULTI_LABEL, REGRESSION
from tests.conftest import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("examples/problem_types.py")


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, REGRESSION])
def test_one_epoch_gives_every_figure(script, problem_type):
    metrics = script.train(problem_type, "sage", seed=0, epochs=1)
    assert set(metrics) == set(script.SPLITS)
    for values in metrics.values():
        assert set(values) == set(script.FIGURES[problem_type])


def test_labels_are_those_of_the_digits(script):
    splits = script.digits_with_shortcut(seed=0)
    relabelled, names = script.relabelled(splits, MULTI_LABEL)
    for digit, labels in zip(splits["shifted"]["label"], relabelled["shifted"]["label"], strict=True):
        found = {names[label] for label in labels}
        assert ("even" in found) == (digit % 2 == 0)
        assert ("prime" in found) == (digit in (2, 3, 5, 7))
    values, _ = script.relabelled(splits, REGRESSION)
    assert list(values["shifted"]["label"]) == list(splits["shifted"]["label"])
