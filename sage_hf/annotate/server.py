"""The page's server: Gradio's server with the page's own addresses, on loopback."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..data.saliency import DataError
from .guard import MOST_BYTES, Guard, Rules
from .maps import packed
from .project import Project, described, first_unfinished
from .record import Change
from .store import StaleRevisionError

MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
Who = Callable[[Any], str | None]
"""The name of the user who sends a request, if somebody else than the user vouches for it."""


class SignInError(Exception):
    """Nobody is signed in."""


@dataclass
class Running:
    """
    A server that runs.

    Args:
        url (`str`): the address that opens the page, with its key.
        blocks: Gradio's own handle.
    """

    url: str
    app: Any

    def wait(self) -> None:
        """Until the user interrupts it."""
        try:
            self.app.get_blocks().block_thread()
        except (KeyboardInterrupt, OSError):
            self.close()

    def close(self) -> None:
        """Stop."""
        self.app.get_blocks().close(verbose=False)


def page_files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, with their media types."""
    folder = files("sage_hf.annotate") / "page"
    found = {}
    for item in folder.iterdir():
        suffix = Path(item.name).suffix
        if suffix in MEDIA:
            found[item.name] = (item.read_bytes(), f"{MEDIA[suffix]}; charset=utf-8")
    return found


def make_app(
    project: Project,
    *,
    token: str | None,
    export_to: Path | None = None,
    who: Who | None = None,
    any_host: bool = False,
    framed_by: str = "'none'",
    host: str = "localhost",
    more_paths: tuple[str, ...] = (),
) -> Any:
    """
    The application, a `gradio.Server` that is not launched yet.

    Args:
        project ([`Project`]): what is annotated.
        token (`str`, *optional*): key in the address; `None` where everybody may come.
        export_to (`Path`, *optional*): folder that the page's export button writes; no button if not given.
        who (`Callable`, *optional*): gives the name of the user who sends a request, `None` if nobody is signed in;
            names are chosen on the page if not given.
        any_host, framed_by, host: see [`Rules`].
        more_paths (`tuple[str, ...]`): further addresses that the application has.

    Raises:
        `ImportError`: Gradio is not installed.
    """
    gradio = import_gradio()
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    static = page_files()
    app = gradio.Server(title="sage-hf annotate", docs_url=None, redoc_url=None, openapi_url=None)

    def name_of(request: Request) -> str:
        if who is None:
            return request.query_params.get("annotator", "")
        name = who(request)
        if name is None:
            raise SignInError("Sign in first.")
        return name

    def number(request: Request) -> int:
        return int(request.path_params["index"])

    def page(name: str) -> Callable[[Request], Response]:
        content, media = static[name]
        return lambda _: Response(content, media_type=media, headers={"cache-control": "no-cache"})

    def about(request: Request) -> Response:
        user = who(request) if who is not None else None
        known = {
            "where": Path(project.pictures.where).name or project.pictures.where,
            "count": len(project.pictures.names),
            "classes": project.classes,
            "open_classes": project.open_classes,
            "guess": project.guesser.source if project.guesser is not None else None,
            "annotators": project.store.annotators() if who is None else [],
            "signed_in": user,
            "sign_in": "/oauth/huggingface/login" if who is not None else None,
            "exports": export_to is not None,
        }
        return JSONResponse(known)

    def progress(request: Request) -> Response:
        states = project.progress(name_of(request))
        return JSONResponse({"states": states, "first": first_unfinished(states)})

    def picture(request: Request) -> Response:
        content, media = project.shown(number(request))
        return Response(content, media_type=media, headers={"cache-control": "private, max-age=3600"})

    def state(request: Request) -> Response:
        return JSONResponse(project.state(number(request), name_of(request)))

    def drawn(request: Request) -> Response:
        revision = request.query_params.get("revision")
        values = project.map_of(number(request), name_of(request), _whole(revision))
        return _map_response(values)

    def start(request: Request) -> Response:
        return _map_response(project.start(number(request), request.path_params["what"] == "guess"))

    def _map_response(values: Any) -> Response:
        if values is None:
            return Response(status_code=204)
        headers = {"cache-control": "no-store"}
        return Response(packed(values), media_type="application/octet-stream", headers=headers)

    async def save(request: Request) -> Response:
        values = await _body(request)
        return await run_in_threadpool(_save, request, values)

    def _save(request: Request, values: dict[str, Any]) -> Response:
        content = values.pop("map", None)
        base = values.pop("base", None)
        known = ("status", "label", "note", "source", "session")
        if not isinstance(base, int) or not set(values) <= set(known):
            raise DataError(f"a change has base, map and {', '.join(known)}.")
        change = Change(**values)
        if not isinstance(content, str | None):
            raise DataError(f"map is {type(content).__name__}, not text.")
        try:
            drawn_map = None if content is None else base64.b64decode(content, validate=True)
        except ValueError as error:
            raise DataError(f"map is no base64: {error}.") from None
        record = project.save(number(request), name_of(request), change, drawn_map, base)
        return JSONResponse(described(record))

    async def add_class(request: Request) -> Response:
        values = await _body(request)
        return await run_in_threadpool(lambda: JSONResponse({"classes": project.add_class(str(values.get("name")))}))

    async def _body(request: Request) -> dict[str, Any]:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MOST_BYTES:  # the guard has only read what the header promises
                raise DataError(f"a request has at most {MOST_BYTES} bytes.")
        try:
            values = json.loads(bytes(content))
        except ValueError as error:
            raise DataError(f"the request is no JSON: {error}.") from None
        if not isinstance(values, dict):
            raise DataError("a request is a JSON object.")
        return values

    def export(_: Request) -> Response:
        from .export import export_annotations, free_folder  # which loads datasets: seconds

        assert export_to is not None
        report = export_annotations(project, free_folder(export_to))
        return JSONResponse(report.summary())

    def stale(_: Request, error: Any) -> Response:
        return JSONResponse({"error": str(error), "latest": described(error.latest)}, 409)

    def wrong(_: Request, error: Any) -> Response:
        status = {SignInError: 401, LookupError: 404}.get(type(error), 400)
        return JSONResponse({"error": str(error)}, status)

    def failed(_: Request, error: Any) -> Response:
        return JSONResponse({"error": error.strerror or str(error)}, 500)

    app.add_route("/", page("index.html"))
    for name in static:
        app.add_route(f"/page/{name}", page(name))
    app.add_route("/api/project", about)
    app.add_route("/api/progress", progress)
    app.add_route("/api/classes", add_class, methods=["POST"])
    app.add_route("/api/pictures/{index:int}", state)
    app.add_route("/api/pictures/{index:int}", save, methods=["PUT"])
    app.add_route("/api/pictures/{index:int}/image", picture)
    app.add_route("/api/pictures/{index:int}/map", drawn)
    app.add_route("/api/pictures/{index:int}/start/{what:str}", start)
    if export_to is not None:
        app.add_route("/api/export", export, methods=["POST"])
    app.add_exception_handler(StaleRevisionError, stale)
    for kind in (DataError, LookupError, SignInError):
        app.add_exception_handler(kind, wrong)
    app.add_exception_handler(OSError, failed)
    paths = ("/", "/page/", "/api/", *more_paths)
    app.add_middleware(Guard, rules=Rules(token, paths, any_host, framed_by, host))
    return app


def launch(
    project: Project,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    export_to: Path | None = None,
) -> Running:
    """
    Serve the page.

    Args:
        project ([`Project`]): what is annotated.
        host (`str`, *optional*, defaults to `"127.0.0.1"`): the address to listen at. The page always needs the key
            that is in the printed address.
        port (`int`, *optional*): the first free one from 7860 on, if not given.
        export_to (`Path`, *optional*): folder that the page's export button writes.

    Raises:
        `ImportError`: Gradio is not installed.
        `OSError`: the port is taken.
    """
    token = secrets.token_urlsafe(16)
    app = make_app(project, token=token, export_to=export_to, host=host)
    running = start(app, host, port)
    running.url = f"{running.url}?token={token}"
    return running


def start(app: Any, host: str, port: int | None) -> Running:
    """Launch an application of [`make_app`], with nothing of Gradio's but its server."""
    _, url, _ = app.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        _frontend=False,
    )
    return Running(url, app)


def import_gradio() -> Any:
    """
    Gradio, which then reports nothing about its use to anybody.

    Raises:
        `ImportError`: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"sage-hf annotate needs Gradio ({error}): pip install 'sage_hf[annotate]'") from error
    return gradio


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 9:
        raise DataError(f"{text[:20]!r} is no revision.")
    return int(text)
