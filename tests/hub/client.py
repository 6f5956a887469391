"""The real client against the server of these tests, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from tests.hub.accounts import WRITE_TOKEN
from tests.hub.server import Hub


@contextmanager
def online() -> Iterator[None]:
    """Lets `huggingface_hub` out in this process, where `HF_HUB_OFFLINE` is set: its own client minds, this not."""
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=30))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


@contextmanager
def endpoint(server: Hub) -> Iterator[None]:
    """Lets this process take the server for the Hub, where a client is made without an endpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("transformers.utils.hub._hf_api", None)  # transformers keeps one client
        yield


def client(server: Hub, token: str | bool = WRITE_TOKEN) -> HfApi:
    return HfApi(endpoint=server.endpoint, token=token)


def environment(server: Hub, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
    """What another process needs to take the server for the Hub."""
    outer = {name: text for name, text in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    outer |= {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    outer |= {"HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}
    return outer | ({"HF_TOKEN": token} if token else {})


def run_script(script: str, server: Hub, work: Path, token: str | None = WRITE_TOKEN) -> str:
    """Runs a Python script in `work` against the server, and gives what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=work,
        env=environment(server, work / "home", token),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    return done.stdout
