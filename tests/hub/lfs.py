"""Large files: where the client is told to put them, and the storage that takes them and gives them."""

from __future__ import annotations

import hashlib
from math import ceil
from typing import Any

from tests.hub.routes import KIND, NAME, REPO_PAGE, Answer, Asked, route
from tests.hub.storage import RefusedError

STORAGE = f"/storage/{KIND}/{NAME}/(?P<oid>[0-9a-f]{{64}})"


@route("POST", rf"{REPO_PAGE}\.git/info/lfs/objects/batch")
def batch(asked: Asked, name: str, kind: str | None = None) -> Answer:
    repo, wanted = asked.repo(kind or "models", name, write=True), asked.json()
    hub, objects = asked.hub, []
    multipart = hub.part_size if "multipart" in wanted["transfers"] else None
    for found in wanted["objects"]:
        answer: dict[str, Any] = {"oid": found["oid"], "size": found["size"], "authenticated": True}
        if found["oid"] not in repo.uploaded:
            # Addresses in storage carry their own permission on the Hub: whoever has one may use it.
            put = f"{hub.storage_endpoint}/storage/{repo.kind}/{name}/{found['oid']}"
            upload: dict[str, Any] = {"href": put}
            if multipart and found["size"] > multipart:
                parts = range(1, ceil(found["size"] / multipart) + 1)
                headers = {"chunk_size": str(multipart)} | {str(part): f"{put}?part={part}" for part in parts}
                upload = {"href": f"{hub.endpoint}/api/complete_multipart/{repo.kind}/{name}", "header": headers}
            verify = {"href": f"{hub.endpoint}/{repo.url}.git/info/lfs/objects/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return Answer({"transfer": "multipart" if multipart else "basic", "objects": objects})


@route("PUT", STORAGE)
def put(asked: Asked, kind: str, name: str, oid: str) -> Answer:
    assert asked.upload is not None
    with asked.upload.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if part := asked.query.get("part"):
        asked.hub.parts[oid, int(part[0])] = asked.upload
    elif digest != oid:
        raise RefusedError(400, "BadDigest: what arrived isn't what its name says")
    else:
        asked.hub.storage.adopt(asked.upload, oid)
    return Answer({}, headers={"ETag": f'"{digest}"'})


@route("POST", f"/api/complete_multipart/{KIND}/{NAME}")
def complete(asked: Asked, kind: str, name: str) -> Answer:
    wanted = asked.json()
    whole = asked.hub.storage.new_file()
    with whole.open("wb") as file:
        for part in wanted["parts"]:
            content = asked.hub.parts[wanted["oid"], part["partNumber"]].read_bytes()
            if part["etag"].strip('"') != hashlib.sha256(content).hexdigest():
                raise RefusedError(400, "InvalidPart")
            file.write(content)
    with whole.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted["oid"]:
            raise RefusedError(400, "BadDigest: what arrived isn't what its name says")
    asked.hub.storage.adopt(whole, wanted["oid"])
    return Answer({})


@route("POST", rf"{REPO_PAGE}\.git/info/lfs/objects/verify")
def verify(asked: Asked, name: str, kind: str | None = None) -> Answer:
    repo, wanted = asked.repo(kind or "models", name, write=True), asked.json()
    blob = asked.hub.storage.blob(wanted["oid"])
    if not blob.is_file() or blob.stat().st_size != wanted["size"]:
        raise RefusedError(404, "Object not found")
    # Only what a client has uploaded to this repository may be in its commits.
    if wanted["oid"] not in repo.uploaded:
        repo.uploaded.append(wanted["oid"])
        asked.hub.storage.save(repo)
    return Answer({})


@route("GET|HEAD", STORAGE)
def get(asked: Asked, kind: str, name: str, oid: str) -> Answer:
    repo = asked.hub.storage.get(kind, name)
    if repo is None or oid not in repo.uploaded:
        raise RefusedError(404, "NoSuchKey")
    return Answer(file=asked.hub.storage.blob(oid), headers={"ETag": f'"{oid}"'})
