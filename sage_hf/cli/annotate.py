"""`sage-hf annotate`: mark by hand what matters in pictures, on a page of this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

from ..data.annotations.machine import Kind, Near


def parser() -> argparse.ArgumentParser:
    """The arguments of `sage-hf annotate`."""
    made = argparse.ArgumentParser(
        prog="sage-hf annotate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Open a page on which a person brushes, lassos or boxes what matters in pictures, and labels\n"
        "them. Everything is saved while it is drawn; --export makes a dataset of it.",
    )
    made.add_argument(
        "source", metavar="FOLDER_OR_REPO", help="folder of pictures, folder of a dataset, or a dataset on the Hub"
    )
    made.add_argument(
        "--store",
        metavar="DIR",
        help="where the work is kept (default: FOLDER-annotations beside it), or hf://datasets/OWNER/NAME, where a "
        "Space has kept it, for --export",
    )
    made.add_argument(
        "--classes", nargs="+", metavar="CLASS", help="the labels (default: those of the source, and more)"
    )

    group = made.add_argument_group("pictures of a folder")
    group.add_argument(
        "--saliency", nargs="+", default=[], metavar="PATH", help="maps that exist, to be shown and edited"
    )
    group.add_argument("--labels", metavar="FILE", help="table of labels")
    group.add_argument("--label-column", metavar="NAME", help="column of labels, in the table or in the dataset")

    group = made.add_argument_group("pictures of a dataset")
    group.add_argument("--name", metavar="CONFIG", help="configuration of the dataset")
    group.add_argument("--revision", metavar="REVISION", help="branch, tag or commit on the Hub")
    group.add_argument("--image-column", metavar="NAME", help="(default: image)")
    group.add_argument("--saliency-column", metavar="NAME", help="(default: saliency)")

    group = made.add_argument_group("a model's first guess, shown where nothing is drawn yet")
    group.add_argument("--guess", metavar="MODEL", help="id on the Hub, or a folder")
    group.add_argument("--guess-kind", choices=get_args(Kind), default="segmentation", help="(default: %(default)s)")
    group.add_argument("--guess-labels", nargs="+", metavar="LABEL", help="classes of the model that mark")
    group.add_argument("--guess-near", choices=get_args(Near), help="whether near pixels have high or low depth")
    group.add_argument("--guess-revision", metavar="REVISION", help="branch, tag or commit of the model")
    group.add_argument("--guess-device", metavar="DEVICE", help="such as cuda:0 (default: the CPU)")

    group = made.add_argument_group("page")
    group.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    group.add_argument("--port", type=int, help="(default: the first free one from 7860 on)")
    group.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    group.add_argument(
        "--export-to", metavar="DIR", help="folder that the page's export button writes (default: FOLDER-dataset)"
    )

    group = made.add_argument_group("as a Space on the Hub")
    group.add_argument("--space", metavar="DIR", help="write the folder of a Space that serves the page, and end")
    group.add_argument(
        "--space-store",
        metavar="OWNER/NAME",
        help="dataset repository that the work goes to (default: REPO-annotations)",
    )
    group.add_argument(
        "--space-requirement",
        metavar="TEXT",
        help="what pip installs there (default: this version of sage_hf[annotate])",
    )

    group = made.add_argument_group("without a page")
    group.add_argument("--export", metavar="OUT", help="write the dataset of all finished pictures, and end")
    group.add_argument(
        "--annotators",
        nargs="+",
        metavar="NAME",
        help="whose work is exported, or who may annotate in a Space (default: everybody)",
    )
    group.add_argument(
        "--metadata", choices=["keep", "strip"], default="keep", help="strip removes EXIF from pictures"
    )
    group.add_argument(
        "--on-error", choices=["raise", "skip", "report"], default="raise", help="about rows that can't be used"
    )
    group.add_argument("--num-proc", type=int, default=1, metavar="N", help="processes of the export (default: 1)")
    group.add_argument("--json", action="store_true", help="print the export's figures as JSON")
    return made


def run(argv: list[str]) -> int:
    """Serve the page, or export."""
    args = parser().parse_args(argv)
    if args.space is not None:
        return _space(args)
    project = project_of(args)
    if args.export is not None:
        return _export(project, args)
    return _serve(project, args)


def project_of(args: argparse.Namespace) -> Any:
    """
    The pictures and the store that the arguments name.

    Raises:
        `ValueError`: arguments that don't go together.
        [`~sage_hf.data.DataError`]: pictures that aren't there.
    """
    from ..annotate import AnnotationStore, Project
    from ..annotate.guess import Guesser
    from ..annotate.hub_folder import PROTOCOL, fetched_store
    from ..annotate.pictures import open_pictures
    from ..data.annotations import MachineSaliency

    pictures = open_pictures(
        args.source,
        saliency=tuple(args.saliency),
        labels=args.labels,
        label_column=args.label_column,
        name=args.name,
        revision=args.revision,
        image_column=args.image_column,
        saliency_column=args.saliency_column,
    )
    guesser = None
    if args.guess is not None and args.export is None:
        labels = tuple(args.guess_labels) if args.guess_labels else None
        guesser = Guesser(
            MachineSaliency(
                args.guess, args.guess_kind, labels, args.guess_near, args.guess_revision, args.guess_device
            )
        )
    if args.store is not None and args.store.startswith(PROTOCOL):
        if args.export is None:
            raise ValueError(
                f"{args.store} can be exported with --export; to annotate, give a folder of this machine."
            )
        store = fetched_store(args.store)
    else:
        store = _beside(args.source, "annotations", args.store)
    return Project(pictures, AnnotationStore(store), args.classes, guesser)


def _beside(source: str, what: str, given: str | None) -> Path:
    """`FOLDER-what` beside a folder; for a dataset of the Hub `NAME-what` here."""
    if given is not None:
        return Path(given)
    folder = Path(source)
    if folder.is_dir():
        folder = folder.resolve()
        return folder.with_name(f"{folder.name}-{what}")
    return Path(f"{source.rsplit('/', 1)[-1]}-{what}")


def _space(args: argparse.Namespace) -> int:
    from ..annotate.space import write_space

    if args.guess is not None or args.saliency or args.labels is not None:
        raise ValueError(
            "--guess, --saliency and --labels don't go with --space: it shows a dataset of the Hub as it is."
        )
    store = args.space_store or f"{args.source}-annotations"
    options = {name: getattr(args, name) for name in ("name", "revision", "image_column", "saliency_column")}
    written = write_space(
        args.space,
        args.source,
        store,
        classes=args.classes,
        annotators=args.annotators,
        requirement=args.space_requirement,
        label_column=args.label_column,
        **options,
    )
    print(f"{args.space}: {', '.join(path.name for path in written)}")
    print(f"publish it:  hf upload OWNER/SPACE {args.space} . --repo-type space, with a secret HF_TOKEN for {store}")
    return 0


def _export(project: Any, args: argparse.Namespace) -> int:
    from ..annotate import export_annotations
    from .data.sources import print_refusals, print_unused

    report = export_annotations(
        project,
        args.export,
        annotators=args.annotators,
        metadata=args.metadata,
        on_error=args.on_error,
        num_proc=args.num_proc,
    )
    print_refusals(report.built.refused)
    print_unused(report.built.unused)
    for line in report.disagreements:
        print(f"annotators disagree, and most of them were followed: {line}", file=sys.stderr)
    if args.json:
        print(json.dumps(report.summary()))
        return 0
    print(
        f"{args.export}: {report.built.kept} rows by {', '.join(report.annotators)}, {report.built.annotated} of them "
        f"with a map; {report.skipped} pictures skipped, {report.unfinished} not finished yet."
    )
    print(f"check it:  sage-hf data check {args.export}")
    return 0


def _serve(project: Any, args: argparse.Namespace) -> int:
    from ..annotate.server import launch

    local = args.host in ("127.0.0.1", "localhost", "::1")
    try:
        running = launch(
            project,
            host=args.host,
            port=args.port,
            export_to=_beside(args.source, "dataset", args.export_to),
        )
    except ImportError as error:
        raise ValueError(str(error)) from None
    if not local:
        print(
            f"warning: other machines reach {args.host}. Whoever has the address below, which is sent unencrypted, "
            "sees the pictures and can annotate them. There, put this machine's name or number in localhost's place.",
            file=sys.stderr,
        )
    count, where = len(project.pictures.names), project.pictures.where
    print(f"{count} pictures of {where}; the work is kept in {project.store.folder}")
    print(f"open {running.url}  (Ctrl+C ends)", flush=True)
    if not args.no_browser:
        import webbrowser

        webbrowser.open(running.url)
    running.wait()
    return 0
