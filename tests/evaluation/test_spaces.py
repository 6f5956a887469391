"""Metrics as Spaces: what is written loads and runs where sage_hf can't be imported, and what is uploaded is that."""

import base64
import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import RepoCard

from sage_hf import evaluation
from sage_hf.evaluation import OpenSet, export_metric, push_metric
from sage_hf.evaluation.spaces import MARKER

INPUTS = {
    "Calibration": {"predictions": [[0.9, 0.1], [0.3, 0.7]], "references": [0, 0], "bins": 5},
    "Classification": {
        "predictions": [0, 1, 1],
        "references": [0, 1, 0],
        "probabilities": [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]],
    },
    "MultiLabel": {"predictions": [[0.9, 0.6], [0.2, 0.8]], "references": [[1, 0], [0, 1]]},
    "OpenSet": {"predictions": [[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]], "references": [0, 0, -1]},
    "PresentationAttack": {
        "predictions": [0.1, 0.7, 0.4, 0.9],
        "references": [0, 0, 1, 1],
        "attack_types": ["", "", "print", "lens"],
    },
    "Regression": {"predictions": [[1.0], [4.0]], "references": [[1.0], [3.0]]},
    "SaliencyAlignment": {"predictions": [[[1.0, 2.0], [0.0, 5.0]]], "references": [[[1.0, 0.0], [0.0, 1.0]]]},
}

SCRIPT = """
import doctest, json, sys
sys.modules["sage_hf"] = None  # importing it is an error from here on
import evaluate

answers = {}
for name, (folder, inputs) in json.loads(sys.stdin.read()).items():
    answers[name] = evaluate.load(folder).compute(**inputs)
    card = open(folder + "/README.md", encoding="utf-8").read().replace('load("./', f'load("{folder}/../')
    example = doctest.DocTestParser().get_doctest(card.replace("```", ""), {}, name, None, None)
    results = doctest.DocTestRunner().run(example)
    assert results.attempted >= 3 and not results.failed
print(json.dumps(answers))
"""


def run_python(script, home, given="", **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    run = [sys.executable, "-c", script]
    return subprocess.run(
        run,
        input=given,
        env=environment | {"HF_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=home,
    )


def snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def test_every_metric_loads_without_sage_hf_and_gives_the_same_numbers(tmp_path):
    work = {}
    for name, inputs in INPUTS.items():
        folder = export_metric(getattr(evaluation, name), tmp_path / snake(name))
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [f"{snake(name)}.py", "README.md", "app.py", "requirements.txt"]
        )
        work[name] = (str(folder), inputs)
    done = run_python(SCRIPT, tmp_path, json.dumps(work), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for name, inputs in INPUTS.items():
        expected = getattr(evaluation, name)(keep_in_memory=True).compute(**inputs)
        assert answers[name] == expected  # floats survive JSON


def test_no_metric_is_left_out():
    names = {name for name in evaluation.__all__ if hasattr(getattr(evaluation, name), "_compute")}
    assert names == set(INPUTS)


def test_the_card_says_what_a_space_needs(tmp_path):
    folder = export_metric(OpenSet(keep_in_memory=True), tmp_path / "my_open_set", repo_id="me/my_open_set")
    card = RepoCard.load(folder / "README.md")
    assert card.data.title == "Open Set"
    assert card.data.sdk == "gradio"
    assert card.data.app_file == "app.py"
    assert card.data.tags == ["evaluate", "metric"]
    for heading in ("How to Use", "Inputs", "Output Values", "Limitations and Bias", "Citation"):
        assert f"# {heading}\n" in card.text
    assert 'evaluate.load("me/my_open_set").compute(' in card.text
    assert "- **temperature** (`float`, *optional*, defaults to 1.0)" in card.text
    assert "@inproceedings{liu2020energy" in card.text
    assert (folder / "requirements.txt").read_text().split() == [
        "datasets>=5.2",
        "evaluate>=0.4.6",
        "numpy>=1.26",
        "scikit-learn>=1.5",
        "scipy>=1.15",
    ]
    assert '"my_open_set.py"' in (folder / "app.py").read_text()


def test_widget_is_launched_with_the_metric(tmp_path):
    # gradio is no dependency: this stands for its sixth version, without `inputs` and `outputs`.
    folder = export_metric(OpenSet, tmp_path / "open_set")
    (folder / "gradio.py").write_text(
        "class Interface:\n"
        "    def __init__(self, fn, inputs, outputs, title, **kwargs):\n"
        "        print(title, inputs['headers'])\n"
        "    def launch(self):\n"
        "        print('launched')\n"
        "class components:\n"
        "    Dataframe = Textbox = staticmethod(lambda **kwargs: kwargs)\n"
    )
    script = f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); runpy.run_path({str(folder / 'app.py')!r})"
    done = run_python(script, tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Metric: open_set ('predictions', 'references')", "launched"]


def test_own_work_is_left_alone(tmp_path):
    folder = export_metric(OpenSet, tmp_path / "open_set")
    export_metric(OpenSet, folder)  # its own files may be written again
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds notes.txt, which .* Give a new or empty folder"):
        export_metric(OpenSet, folder)
    (folder / "notes.txt").unlink()
    edited = (folder / "README.md").read_text().replace(MARKER, "Mine.")
    (folder / "README.md").write_text(edited)
    with pytest.raises(FileExistsError, match=r"holds README.md, app.py"):
        export_metric(OpenSet, folder)
    assert (folder / "README.md").read_text() == edited
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        export_metric(OpenSet, tmp_path / "file")


def load_own(tmp_path, old, new):
    """A person's metric, from a file of theirs: OpenSet's with some text replaced."""
    text = Path(sys.modules[OpenSet.__module__].__file__).read_text()
    assert old in text
    file = tmp_path / "own" / "mine.py"
    file.parent.mkdir()
    file.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location("mine", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mine"] = module  # where inspect looks for the file
    spec.loader.exec_module(module)
    return module.OpenSet


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(0.833, 0.667, 0.667)", "(0.9, 0.667, 0.667)", "The example does not give what it says"),
        ("    Example:\n", "    Examples\n", "has no `Example:`"),
        ("    Limitations:\n", "    Limits\n", "lack Limitations"),
        ("import inspect\n", "import inspect\nif 0:\n    from . import x\n", r"imports from its own package \(\.\)"),
        ("import inspect\n", "import inspect\nimport sage_hf\n", r"imports from its own package \(sage_hf\)"),
    ],
)
def test_what_would_not_work_in_a_space_is_said(tmp_path, monkeypatch, old, new, message):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    own = load_own(tmp_path, old, new)
    with pytest.raises(ValueError, match=message):
        export_metric(own, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_names_and_what_is_no_metric(tmp_path):
    with pytest.raises(ValueError, match="'open-set' is no name that evaluate can import"):
        export_metric(OpenSet, tmp_path / "open-set")
    with pytest.raises(ValueError, match=r"dict is no evaluate\.Metric"):
        export_metric(dict, tmp_path / "open_set")
    with pytest.raises(ValueError, match="expected 'owner/name'"):
        push_metric(OpenSet, "open_set")


@contextmanager
def spaces_hub():
    """The requests by which `huggingface_hub` creates a Space and commits to it; yields address and what arrived."""
    arrived = {"files": {}, "tokens": set()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            arrived["tokens"].add(self.headers.get("Authorization"))
            answer = {}
            if self.path == "/api/repos/create":
                arrived["created"] = json.loads(body)
                answer = {"url": f"http://{self.headers['Host']}/spaces/me/open_set"}
            elif self.path == "/api/validate-yaml":
                arrived["validated"] = True
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                answer = {
                    "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                }
            elif "/commit/" in self.path:
                arrived["commit"] = self.path
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        arrived["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"]).decode()
                answer = {"commitUrl": f"http://{self.headers['Host']}/spaces/me/open_set/commit/0", "commitOid": "0"}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_push_creates_a_space_and_uploads_it_with_the_real_client(tmp_path):
    script = (
        "from sage_hf.evaluation import OpenSet, push_metric\n"
        "print(push_metric(OpenSet, 'me/open_set', private=True, token='hf_test'))"
    )
    with spaces_hub() as (endpoint, arrived):
        done = run_python(
            script,
            tmp_path,
            HF_ENDPOINT=endpoint,
            HF_HUB_DISABLE_XET="1",
            PYTHONPATH=str(Path(__file__).parents[2]),
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{endpoint}/spaces/me/open_set"
    assert arrived["created"]["type"] == "space"
    assert arrived["created"]["sdk"] == "gradio"
    assert arrived["created"].get("private") is True or arrived["created"].get("visibility") == "private"
    assert arrived["tokens"] == {"Bearer hf_test"}
    assert arrived["commit"].startswith("/api/spaces/me/open_set/commit/main")
    folder = export_metric(OpenSet, tmp_path / "open_set", repo_id="me/open_set")
    assert arrived["files"] == {path.name: path.read_text() for path in folder.iterdir()}
