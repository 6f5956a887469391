"""Real photographs, what draws on them without a browser, and a server that runs."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from sage_hf.annotate import AnnotationStore, Project, open_pictures
from sage_hf.annotate.maps import packed
from sage_hf.annotate.record import Change

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
SIZE = (640, 427)


def save_photographs(folder, names=("china.jpg", "flower.jpg")):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        stem = "flower" if "flower" in name else "china"
        Image.fromarray(PHOTOGRAPHS[stem]).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path):
    return save_photographs(tmp_path / "photos")


@pytest.fixture
def project(photos):
    return Project(open_pictures(str(photos)), AnnotationStore(f"{photos}-annotations"), ["temple", "flower"])


def drawn(left=100, top=60, right=220, bottom=200, value=255, size=SIZE):
    values = np.zeros(size[::-1], np.uint8)
    values[top:bottom, left:right] = value
    return values


def mark(project, index, annotator, values, label="temple", status="done", note="", source="human"):
    """A picture that an annotator finishes, as the page would save it."""
    latest = project.store.latest(annotator, project.pictures.names[index])
    change = Change(status, label, note, source, session=f"tab of {annotator}")
    content = None if values is None else packed(values)
    return project.save(index, annotator, change, content, latest.revision if latest else 0)


@contextmanager
def serving(*arguments, program=("-m", "sage_hf", "annotate")):
    """
    `sage-hf annotate` as a user starts it, in a process of its own, with a client that sends what it is told to.

    Args:
        *arguments: of the command.
        program: what Python runs in place of it.
    """
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the extra `annotate` is not installed")
    command = [sys.executable, *program, *map(str, arguments), "--no-browser"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # Tests that run in the background of a shell ignore it, and what they start would as well.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads are started here
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("open "):
            break
    assert lines, f"the server ended with {process.wait()}"
    url = lines[-1].split()[1]
    address, _, token = url.partition("/?token=")
    port = int(address.rpartition(":")[2])
    cookie = {"Cookie": f"sage_hf_annotate_{port}={token}"}

    def ask(method, target, values=None, signed_in=True, **headers):
        """Status, headers and body of an answer; `target` is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        given = (cookie if signed_in else {}) | {"Origin": address}
        given |= {name.replace("_", "-"): text for name, text in headers.items()}
        connection.putrequest(method, target, skip_host="Host" in given)
        body = None if values is None else values if isinstance(values, bytes) else json.dumps(values).encode()
        if body is not None and "Content-Length" not in given:
            given["Content-Length"] = str(len(body))
        for name, text in given.items():
            if text is not None:
                connection.putheader(name, text)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return SimpleNamespace(status=answer.status, headers=answer.headers, body=content)

    try:
        yield SimpleNamespace(ask=ask, url=url, port=port, token=token, process=process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(20)
        finally:
            process.kill()
            process.stdout.close()
    assert code == 0
