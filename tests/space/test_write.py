"""What is written is complete: it runs where sage_hf is not, and says where everything is from."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import RepoCard
from PIL import Image

from sage_hf.cli import main
from sage_hf.space.parts import STUB, needed_files, third_party
from sage_hf.space.write import HERE, MANIFEST, write_space
from tests.conftest import CLASSES, make_dataset
from tests.hub.client import client, online, run_script
from tests.hub.server import Hub
from tests.space.small import make_picture, probabilities, save_model

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys
from pathlib import Path
import app
from PIL import Image

assert Path(sys.modules["sage_hf"].__file__).parent.parent == Path.cwd()
extra = [name for name in ("datasets", "evaluate", "sklearn") if name in sys.modules]
settings = json.loads(Path("app.json").read_text())
demo = app.Demo(app.Subject.load("model", name=settings["title"]))
prediction, *_ = app.looked(demo, Image.open("picture.png"))
given = Image.open("picture.png"), next(iter(app.SOURCES)), 20, next(iter(app.FILLINGS)), None
*_, without, alone, sentence = app.compared(demo, *given)
print(json.dumps({"prediction": prediction, "without": without, "sentence": sentence, "extra": extra}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "leaves"
    save_model(folder)
    return folder


def test_the_written_app_runs_without_sage_hf(model, tmp_path):
    folder = write_space(model, tmp_path / "space", include_weights=True)
    make_picture().save(folder / "picture.png")
    # -P and an empty path: nothing but what stands in the Space and what its requirements would install.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    script = "import sys; sys.path.insert(0, '.')\n" + SCRIPT
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = probabilities(save_model(tmp_path / "again"), _inputs(make_picture()))
    assert found["prediction"] == pytest.approx(expected, abs=1e-5)
    assert found["sentence"].startswith("The region covers")
    assert found["extra"] == []


def _inputs(picture):
    import torch

    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_the_parts_are_those_of_the_source_and_need_what_is_required():
    files = needed_files("sage_hf.space.app")
    for name, text in files.items():
        assert text in (STUB, (ROOT / name).read_text()), name
    assert len(files) < 40
    required = (HERE / "requirements.txt").read_text().split()
    names = {line.split(">")[0] for line in required}
    assert third_party(files) == {"PIL", "numpy", "torch", "transformers"}
    assert {"pillow", "numpy", "torch", "transformers", "kornia"} == names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(required) <= set(project["dependencies"])
    assert project["optional-dependencies"]["space"] == ["gradio>=6.29,<7"]


def test_the_card_and_the_examples(model, tmp_path, capsys):
    datasets.DatasetDict(train=make_dataset(3), test=make_dataset(8)).save_to_disk(tmp_path / "data")
    arguments = ["space", model, "--out", tmp_path / "space", "--include_weights", "--examples", tmp_path / "data"]
    assert main([*map(str, arguments), "--title", "Leaves and lesions"]) == 0
    folder = tmp_path / "space"
    card = RepoCard.load(folder / "README.md", ignore_metadata_errors=False)
    data = card.data.to_dict()
    assert (data["sdk"], data["app_file"], data["title"]) == ("gradio", "app.py", "Leaves and lesions")
    assert len(data["short_description"]) <= 60
    assert "license" not in data  # of the weights, which are not ours
    settings = json.loads((folder / "app.json").read_text())
    assert settings["examples"] == [f"examples/{index}.png" for index in range(1, 7)]
    # One of each class first.
    rows = make_dataset(8)
    assert len({rows[index]["label"] for index in range(3)}) == len(CLASSES)
    with Image.open(folder / "examples" / "3.png") as example:
        assert np.array_equal(example, rows[2]["image"])
        assert not example.info
    for path in folder.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_what_is_there_stays(model, tmp_path, capsys):
    folder = write_space(model, tmp_path / "space", include_weights=True, examples=[make_picture()])
    write_space(model, folder, include_weights=True)  # its own files may be written anew
    assert not (folder / "examples" / "1.png").exists()
    (folder / "README.md").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds README\.md, notes\.txt, which sage_hf has not written"):
        write_space(model, folder, include_weights=True)
    assert (folder / "README.md").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        write_space(model, tmp_path / "file", include_weights=True)


def test_a_list_of_own_files_reaches_nothing_outside_of_the_folder(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"files": {"../notes.txt": "", str(tmp_path / "notes.txt"): ""}}))
    write_space(model, folder, include_weights=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_models_that_a_space_can_not_have(model, tmp_path):
    with pytest.raises(ValueError, match=r"is a folder, which a Space can't reach. Push it"):
        write_space(model, tmp_path / "space")
    with pytest.raises(ValueError, match="--include_weights copies a folder"):
        write_space("me/model", tmp_path / "space", include_weights=True)
    (model / "weights.pkl").write_bytes(b"")
    try:
        with pytest.raises(ValueError, match="is a pickle"):
            write_space(model, tmp_path / "space", include_weights=True)
    finally:
        (model / "weights.pkl").unlink()
    assert not (tmp_path / "space").exists()


def test_a_model_of_the_hub_and_a_push(model, tmp_path):
    """By the command, against a server that speaks the Hub's protocol."""
    with Hub(tmp_path / "hub") as server:
        with online():
            client(server).create_repo("me/leaves", private=True)
            client(server).upload_folder(repo_id="me/leaves", folder_path=model)
        script = "from sage_hf.cli import main; main(['space', 'me/leaves', '--out', 'space', '--push', 'me/demo'])"
        printed = run_script(script, server, tmp_path)
        assert f"pushed to {server.endpoint}/spaces/me/demo" in printed
        folder, files = tmp_path / "space", server.files("me/demo", "spaces")
        assert json.loads((folder / "app.json").read_text())["model"] == "me/leaves"
        data = RepoCard.load(folder / "README.md").data.to_dict()
        assert (data["models"], data["title"], data["license"]) == (["me/leaves"], "leaves", "apache-2.0")
        assert not (folder / "model").exists()
        for name in ("app.py", "app.json", "requirements.txt", "sage_hf/views.py"):
            assert server.read("me/demo", name, "spaces") == (folder / name).read_bytes()
        here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert {name for name in files if name != ".gitattributes"} == here
