"""What the real client does when the Hub goes wrong: which requests it sends again, and what it raises at last."""

import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.accounts import WRITE_TOKEN
from tests.hub.client import client, online, run_script
from tests.hub.server import Hub

WEIGHTS = np.random.default_rng(0).bytes(300_000)
REPO = "me/tiny"

# Every request of the upload of one large file, in its order.
PREUPLOAD = ("POST", "/preupload/")
BATCH = ("POST", "/objects/batch")
PUT = ("PUT", "/storage/")
VERIFY = ("POST", "/objects/verify")
COMMIT = ("POST", "/commit/")
AGAIN = [PREUPLOAD, BATCH, PUT, VERIFY]  # those that the client sends again; a commit it sends once


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server, online():
        client(server).create_repo(REPO)
        yield server


@pytest.fixture
def api(server):
    return client(server)


def upload(api, content=WEIGHTS, path="w.bin"):
    return api.upload_file(repo_id=REPO, path_or_fileobj=content, path_in_repo=path)


def status_of(error):
    """The status that stopped an upload: storage's errors come wrapped in a RuntimeError."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error.response.status_code


def download(server, cache, path="w.bin", **kwargs):
    file = hf_hub_download(REPO, path, endpoint=server.endpoint, cache_dir=cache, token=WRITE_TOKEN, **kwargs)
    return Path(file).read_bytes()


@pytest.mark.parametrize("status", [429, 503])
def test_all_but_the_commit_is_sent_again(server, api, status):
    faults = [server.faults.add(*request, status=status, headers={"Retry-After": "0"}) for request in AGAIN]
    upload(api)
    assert [fault.fired for fault in faults] == [1, 1, 1, 1]
    assert server.read(REPO, "w.bin") == WEIGHTS


@pytest.mark.parametrize("status", [429, 500, 503, 507])
def test_a_commit_is_sent_once(server, api, status):
    fault = server.faults.add(*COMMIT, status=status, headers={"Retry-After": "0"})
    with pytest.raises(HfHubHTTPError) as caught:
        upload(api)
    assert status_of(caught.value) == status
    assert len(server.requests(*COMMIT)) == fault.fired == 1
    # What was uploaded stays in storage, so that another attempt sends the commit alone.
    upload(api)
    assert len(server.requests(*PUT)) == 1
    assert server.read(REPO, "w.bin") == WEIGHTS


@pytest.mark.parametrize("request_line", AGAIN)
@pytest.mark.parametrize("status", [413, 507])
def test_no_space_is_said_at_once(server, api, request_line, status):
    server.faults.add(*request_line, status=status, body={"error": "no space left"})
    expected = RuntimeError if request_line in (PUT, VERIFY) else HfHubHTTPError
    with pytest.raises(expected) as caught:
        upload(api)
    assert status_of(caught.value) == status
    assert len(server.requests(*request_line)) == 1
    assert "w.bin" not in server.files(REPO)


def test_no_space_for_one_object(server, api):
    objects = [{"oid": "0" * 64, "size": 1, "error": {"code": 507, "message": "no space left"}}]
    server.faults.add(*BATCH, status=200, body={"objects": objects})
    with pytest.raises(ValueError, match="no space left"):
        upload(api)


def test_the_client_gives_up_after_six_attempts(server, api):
    fault = server.faults.add(*PUT, status=503, headers={"Retry-After": "0"}, times=None)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'w\.bin'") as caught:
        upload(api)
    assert status_of(caught.value) == 503
    assert fault.fired == 6


def test_the_client_waits_as_long_as_it_is_told_and_a_second(server, api):
    server.faults.add(*PREUPLOAD, status=429, headers={"Retry-After": "1"})
    start = time.monotonic()
    upload(api)
    assert 2 <= time.monotonic() - start < 4


def test_what_is_asked_before_the_upload_is_asked_once(server, api):
    for path in ("/api/repos/create", "/api/whoami-v2", f"/api/models/{REPO}", "/branch/"):
        server.faults.add("GET|POST", path, status=503)
    for ask in (
        lambda: api.create_repo("me/other", exist_ok=True),
        api.whoami,
        lambda: api.repo_info(REPO),
        lambda: api.create_branch(REPO, branch="b"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            ask()
        assert status_of(caught.value) == 503


def test_a_proxy_page_in_place_of_the_check_of_a_card(server, api):
    # The client reads JSON from the answer before it looks at the status.
    server.faults.add("POST", "/validate-yaml", status=503, body="<html>Service Unavailable</html>")
    with pytest.raises(ValueError, match="Expecting value"):
        upload(api, b"---\nlicense: mit\n---\n", "README.md")


@pytest.mark.parametrize("request_line", [PREUPLOAD, BATCH, PUT, VERIFY])
def test_a_connection_cut_in_an_upload_is_made_again(server, api, request_line):
    fault = server.faults.add(*request_line, cut=50)
    upload(api)
    assert fault.fired == 1
    first, second = server.requests(*request_line)
    assert first.status is None
    assert first.body == second.body[:50]
    assert server.read(REPO, "w.bin") == WEIGHTS


@pytest.mark.parametrize("after", [1, 65_536, 299_999])
def test_an_upload_cut_anywhere_starts_again(server, api, after):
    server.faults.add(*PUT, cut=after)
    upload(api)
    assert [record.size for record in server.requests(*PUT)] == [after, len(WEIGHTS)]
    assert server.read(REPO, "w.bin") == WEIGHTS


def test_a_part_cut_is_sent_again_alone(tmp_path):
    with Hub(tmp_path / "hub", part_size=100_000) as server, online():
        api = client(server)
        api.create_repo(REPO)
        server.faults.add("PUT", "part=2", cut=10)
        (tmp_path / "w.bin").write_bytes(WEIGHTS)
        upload(api, tmp_path / "w.bin")
        assert [record.path[-6:] for record in server.requests(*PUT)] == ["part=1", "part=2", "part=2", "part=3"]
        assert server.read(REPO, "w.bin") == WEIGHTS


def test_a_commit_cut_is_raised_and_did_nothing(server, api):
    server.faults.add(*COMMIT, cut=20)
    with pytest.raises(httpx2.TransportError):
        upload(api)
    assert "w.bin" not in server.files(REPO)


def test_a_commit_whose_answer_is_lost_is_raised_and_was_made(server, api):
    server.faults.add(*COMMIT, lose=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        upload(api)
    assert server.read(REPO, "w.bin") == WEIGHTS
    # The same again changes nothing, and the client makes no second commit of it.
    assert upload(api).oid == server.repo(REPO).find("main")
    assert len(server.repo(REPO).commits) == 2


def test_a_pull_request_whose_answer_is_lost_is_opened_twice(server, api):
    server.faults.add(*COMMIT, lose=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.upload_file(repo_id=REPO, path_or_fileobj=WEIGHTS, path_in_repo="w.bin", create_pr=True)
    assert api.upload_file(repo_id=REPO, path_or_fileobj=WEIGHTS, path_in_repo="w.bin", create_pr=True).pr_num == 2


def test_another_commit_in_between(server, api):
    other = client(server)
    server.faults.add(*PUT, hook=lambda: upload(other, b"theirs", "other.txt"))
    upload(api)
    assert {"other.txt", "w.bin"} <= set(server.files(REPO))
    parent = api.repo_info(REPO).sha
    server.faults.add(*PREUPLOAD, hook=lambda: upload(other, b"theirs again", "other.txt"))
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        api.create_commit(REPO, [CommitOperationAdd("a", b"a")], commit_message="a", parent_commit=parent)
    assert status_of(caught.value) == 412


@pytest.mark.parametrize(("request_line", "refused"), [(PUT, VERIFY), (VERIFY, VERIFY), (COMMIT, COMMIT)])
def test_a_token_that_expires_in_the_middle(server, api, request_line, refused):
    server.faults.add(*request_line, hook=lambda: server.accounts.expire(WRITE_TOKEN))
    with pytest.raises((HfHubHTTPError, RuntimeError)) as caught:
        upload(api)
    assert status_of(caught.value) == 401
    assert [record.status for record in server.requests(*refused)] == [401]
    assert "w.bin" not in server.files(REPO)


def test_a_server_that_restarts_in_the_middle_of_an_upload(server, api):
    fault = server.faults.add(*PUT, cut=100_000, hook=lambda: server.restart(0.3))
    upload(api)
    assert fault.fired == 1
    assert [record.size for record in server.requests(*PUT)] == [100_000, len(WEIGHTS)]
    assert server.read(REPO, "w.bin") == WEIGHTS


def test_a_server_that_stops_for_good(server, api):
    server.faults.add(*COMMIT, hook=server.stop)
    with pytest.raises(httpx2.TransportError):
        upload(api)
    with pytest.raises(httpx2.ConnectError):
        api.repo_info(REPO)
    server.start()
    upload(api)
    assert server.read(REPO, "w.bin") == WEIGHTS


def test_a_hook_at_the_second_of_several_files(server, api, tmp_path):
    for index in range(4):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / f"{index}.bin").write_bytes(WEIGHTS[index:])
    fired = []
    server.faults.add(*PUT, at=2, hook=lambda: fired.append(len(server.requests(*PUT))))
    api.upload_folder(repo_id=REPO, folder_path=tmp_path / "folder")
    assert len(fired) == 1
    assert fired[0] >= 2


def test_a_delay(server, api):
    server.faults.add(*COMMIT, delay=0.4)
    start = time.monotonic()
    upload(api)
    assert time.monotonic() - start >= 0.4


def test_a_download_cut_is_resumed_where_it_ended(server, api, tmp_path):
    upload(api)
    server.faults.add("GET", "/storage/", cut=100_000)
    assert download(server, tmp_path) == WEIGHTS
    # The client writes in pieces of 10 MB: of this file it had written none when it was cut.
    assert [record.status for record in server.requests("GET", "/storage/")] == [200, 200]


def test_statuses_of_a_download(server, api, tmp_path):
    upload(api)
    server.faults.add("HEAD", "/resolve/", status=503, headers={"Retry-After": "0"})
    fault = server.faults.add("GET", "/storage/", status=429, headers={"Retry-After": "0"})
    assert download(server, tmp_path / "one") == WEIGHTS
    assert fault.fired == 1
    server.faults.add("GET", "/storage/", status=503)
    with pytest.raises(HfHubHTTPError) as caught:
        download(server, tmp_path / "two")
    assert status_of(caught.value) == 503


def test_a_download_of_what_is_cached_needs_no_server(server, api, tmp_path):
    upload(api)
    assert download(server, tmp_path) == WEIGHTS
    server.stop()
    assert download(server, tmp_path) == WEIGHTS


TRAINER = """
import torch
from huggingface_hub.errors import HfHubHTTPError
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

class Rows(Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return {"pixel_values": torch.ones(3, 8, 8) * index, "labels": index % 2}

config = ViTConfig(image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                   intermediate_size=8, num_labels=2)
arguments = TrainingArguments("out", max_steps=4, save_steps=2, use_cpu=True, report_to="none", push_to_hub=True,
                              hub_model_id="me/trained", hub_always_push=True)
trainer = Trainer(ViTForImageClassification(config), arguments, train_dataset=Rows())
trainer.train()
print("trained", trainer.state.global_step)
try:
    trainer.push_to_hub()
except HfHubHTTPError as error:
    print("raised", error.response.status_code)
"""


def test_the_trainer_says_nothing_of_a_push_that_failed_while_it_trained(server, tmp_path):
    fault = server.faults.add("POST", "me/trained/commit/", status=503, times=None)
    # Its pushes run in the background, where nothing reads what they raise; only one that is waited for tells.
    assert run_script(TRAINER, server, tmp_path).splitlines()[-2:] == ["trained 4", "raised 503"]
    assert fault.fired >= 2  # a background push is left out while the one before is still under way
    assert len(server.repo("me/trained").commits) == 1
