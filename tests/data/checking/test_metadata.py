import pytest

from sage_hf.data.checking.metadata import is_absolute_path


@pytest.mark.parametrize(
    "text",
    [
        "/home/ann/1.png",
        "/mnt/x",
        "C:/scans/1.png",
        r"\\server\share",
        "file:///x",
        "~/x",
        "see /Users/ann/Pictures/1",
    ],
)
def test_paths_of_some_computer(text):
    assert is_absolute_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "1.png",
        "images/home/1.png",
        "https://example.org/home/index.html",
        "s3://data/x",
        "/m/0bt9lr",
        "and/or",
        "/",
        "",
    ],
)
def test_what_is_no_path_of_a_computer(text):
    assert not is_absolute_path(text)
