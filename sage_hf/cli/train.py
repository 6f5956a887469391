"""`sage-hf train`: a checkpoint, a dataset, and out comes a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoImageProcessor, HfArgumentParser, set_seed
from transformers.trainer_utils import TrainOutput
from transformers.utils.peft_utils import find_adapter_config_file

from ..checks import check_output_dir, check_read_apart, check_split_model_is_saved
from ..data.labels import problem_type_of
from ..data.loading import class_names, has_labels, load_saliency_dataset
from ..data.paths import check_folder
from ..data.saliency import DataError
from ..evaluation import METRICS
from ..evaluation.annotated_splits import check_maps
from ..evaluation.model_alignment import align_splits
from ..evaluation.protocols import LeftOut, leave_out
from ..evaluation.trainer_metrics import figures_of, metric_intervals
from ..heads import how_to_load, load_image_classifier
from ..hub.model_card import check_template
from ..hub.push import fetch_card, push_run
from ..hub.resuming import find_checkpoint, on_hub
from ..hub.revisions import model_revision, revision_of
from ..tasks import PROBLEM_TYPES
from ..trainer import SageTrainer
from ..training_args import SageTrainingArguments
from ..whole_checkpoints import resumed_checkpoint
from .card_material import comparable, draw_alignment, draw_pictures, fingerprint, read_compared_run
from .config import read_config, set_defaults
from .launching import launch, split_launch_flags, where_to_launch
from .model_options import add_adapters, needs_interpolation, resize_inputs


@dataclass
class RunArguments:
    """What to train, and on what."""

    model: str = field(metadata={"help": "Hub id or folder of the checkpoint to start from."})
    dataset: str = field(metadata={"help": "Hub id or folder of the dataset."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the model."})
    dataset_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the dataset."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(
        default="validation", metadata={"help": "Split to evaluate on during training, if the dataset has it."}
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read rows as they are needed, in place of downloading the dataset first. See also "
            "shuffle_buffer_size."
        },
    )
    problem_type: str | None = field(
        default=None,
        metadata={
            "help": "single_label_classification, multi_label_classification or regression; read from the labels "
            "if not given."
        },
    )
    leave_out: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Classes, or values of leave_out_column, to keep out of training and validation: sage-hf evaluate "
            "takes their rows for unknown ones."
        },
    )
    leave_out_column: str | None = field(
        default=None, metadata={"help": "Column that leave_out goes by, attack_type say; the labels if not given."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the pictures in pixels, if not the checkpoint's own."}
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": "Train low-rank adapters of all linear layers (peft), and the head in full."}
    )
    license: str | None = field(
        default=None, metadata={"help": "Identifier of the checkpoint's licence, for its card."}
    )
    description: str | None = field(
        default=None, metadata={"help": "What the model is and what for, in words, for its card."}
    )
    annotation: str | None = field(default=None, metadata={"help": "How the maps came about, in words, for the card."})
    compare_with: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of other runs on the same data (a baseline, a control), to stand in the card."},
    )
    bootstrap_resamples: int = field(
        default=1000, metadata={"help": "Resamples for the intervals of the figures, 0 for none."}
    )
    card_template: str | None = field(default=None, metadata={"help": "A template of your own for the card."})
    card_pictures: int = field(
        default=0,
        metadata={
            "help": "Pictures to show on the card: training pictures with their views, and held-out ones, if they "
            "have maps, with where the model looks. They are published with it."
        },
    )
    saliency_alignment: bool = field(
        default=False,
        metadata={"help": "Measure where the model looks against the maps of the evaluated splits, for the card."},
    )
    config: str | None = field(default=None, metadata={"help": "YAML file with any of these arguments; flags win."})
    json: bool = field(default=False, metadata={"help": "Print the results as JSON."})


LAUNCH_HELP = (
    "Flags of accelerate launch are taken as well, and processes started: --num_processes 2, --cpu, --multi_gpu, "
    "--config_file FILE, --use_fsdp, --use_deepspeed, --num_machines, --machine_rank, --main_process_ip and others "
    "that accelerate launch --help lists. --debug and --gradient_accumulation_steps, which both know, are training's."
)


def parse(argv: list[str]) -> tuple[RunArguments, SageTrainingArguments]:
    """
    The arguments of a run, from flags and from the YAML file that `--config` names; flags win.

    Raises:
        `ValueError`: the file isn't a mapping, or has a key that is no argument.
        `SystemExit`: as argparse does, for flags.
    """
    return _parsed(_parser(argv), argv)


def _parsed(parser: HfArgumentParser, argv: list[str]) -> tuple[RunArguments, SageTrainingArguments]:
    run_args, args = parser.parse_args_into_dataclasses(args=argv, look_for_args_file=False)
    run_args.model, run_args.dataset = (os.path.expanduser(path) for path in (run_args.model, run_args.dataset))
    return run_args, args


def _parser(argv: list[str]) -> HfArgumentParser:
    kinds: Any = (RunArguments, SageTrainingArguments)
    parser = HfArgumentParser(kinds, prog="sage-hf train", epilog=LAUNCH_HELP, allow_abbrev=False)
    known = {option.name for kind in (RunArguments, SageTrainingArguments) for option in fields(kind) if option.init}
    set_defaults(parser, read_config(argv), known, where_to_launch)
    return parser


def run(argv: list[str]) -> int:
    """
    Parse the arguments of `sage-hf train`, train, evaluate, save, and say what came of it.

    With flags of `accelerate launch`, processes are started that do so, see [`~sage_hf.cli.launching.launch`].
    """
    parser = _parser(argv)
    flags, rest = split_launch_flags(argv, parser._option_string_actions)
    if flags:
        trained, unknown = parser.parse_known_args(rest)  # a mistake is explained once, and not by each process
        if unknown:
            raise ValueError(f"Neither training nor accelerate launch knows {' '.join(unknown)}.")
        return launch(flags, ["train", *rest], use_cpu=trained.use_cpu)
    run_args, args = _parsed(parser, argv)
    if not run_args.json:
        if (results := train(run_args, args)) is not None:
            print(_summary(results))
        return 0
    with _stdout_to_stderr():
        results = train(run_args, args)
    if results is not None:
        print(json.dumps(results))
    return 0


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What Trainer prints on the way would spoil the JSON, and so would what libraries in C++ do: gloo among them."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def train(run_args: RunArguments, args: SageTrainingArguments) -> dict[str, Any] | None:
    """
    Train, evaluate on every other labelled split, save, and push if asked to.

    Returns:
        `dict`: the figures of the run; `None` on all processes but the first.
    """
    resume: str | bool | None = args.resume_from_checkpoint
    if isinstance(resume, str) and resume.lower() in ("true", "false"):
        resume = resume.lower() == "true"
    hub = HfApi(token=args.hub_token)
    if (address := on_hub(resume)) is not None:
        find_checkpoint(address, hub)  # said now if there is none; fetched when training starts
    else:
        resume = args.resume_from_checkpoint = resumed_checkpoint(resume, str(args.output_dir))
        check_output_dir(args.output_dir, resume)

    check_folder(run_args.model)
    if run_args.card_template is not None:
        check_template(run_args.card_template)
    if run_args.problem_type not in (None, *PROBLEM_TYPES):
        raise ValueError(f"Unknown problem_type {run_args.problem_type!r}. Choose one of {', '.join(PROBLEM_TYPES)}.")
    if find_adapter_config_file(run_args.model, revision=run_args.model_revision) is not None:
        raise ValueError(
            f"{run_args.model} is an adapter. Merge it first: load_image_classifier(...).merge_and_unload(), then "
            "save_pretrained."
        )
    splits = load_saliency_dataset(
        run_args.dataset,
        name=run_args.dataset_name,
        revision=run_args.dataset_revision,
        label_column=args.label_column,
        problem_type=run_args.problem_type,
        streaming=run_args.streaming,
    )
    if run_args.train_split not in splits:
        raise DataError(f"{run_args.dataset} has no split {run_args.train_split!r}; it has {', '.join(splits)}.")
    protocol: dict[str, Any] = {}
    if run_args.leave_out:
        if isinstance(splits, datasets.IterableDatasetDict):
            raise ValueError("leave_out reads all labels beforehand, which streaming is there to avoid: drop one.")
        left_out = LeftOut(run_args.leave_out_column or args.label_column, tuple(run_args.leave_out))
        splits, _ = leave_out(splits, left_out.column, left_out.values, args.label_column, run_args.train_split)
        protocol = {"left_out": left_out.to_dict()}
    elif run_args.leave_out_column is not None:
        raise ValueError("leave_out_column says what leave_out goes by: name the values with leave_out.")
    data = fingerprint(splits, args)
    compared = [read_compared_run(folder, data) for folder in run_args.compare_with]
    names = class_names(splits, args.label_column)
    feature = splits[run_args.train_split].features.get(args.label_column)
    problem_type = run_args.problem_type or problem_type_of(feature)
    config = AutoConfig.from_pretrained(run_args.model, revision=run_args.model_revision)
    if set(config.label2id or {}) == set(names):
        # The checkpoint knows these classes, perhaps in another order: its head keeps its meaning.
        names = [config.id2label[index] for index in range(len(names))]
    set_seed(args.seed)  # a new head is drawn when the model is loaded, before the Trainer sets the seed
    model = load_image_classifier(
        run_args.model,
        revision=run_args.model_revision,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=problem_type,
        ignore_mismatched_sizes=True,
    )
    processor = AutoImageProcessor.from_pretrained(run_args.model, revision=run_args.model_revision)
    if run_args.image_size is not None:
        resize_inputs(processor, run_args.image_size)
        args.interpolate_pos_encoding |= needs_interpolation(model, run_args.image_size)
    if run_args.lora_rank is not None:
        model = add_adapters(model, run_args.lora_rank, args.embedding_layer, revision=run_args.model_revision)
    trainer = SageTrainer(
        model=model,
        args=args,
        train_dataset=splits[run_args.train_split],
        eval_dataset=splits.get(run_args.eval_split),
        processing_class=processor,
        compute_metrics=METRICS[problem_type],
    )
    state = trainer.accelerator.state
    check_split_model_is_saved(
        getattr(state, "fsdp_plugin", None), state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
    )
    if trainer.splits_model:
        check_read_apart(card_pictures=run_args.card_pictures, saliency_alignment=run_args.saliency_alignment)
    trainer.protocol = protocol
    # Checked now as well, so that no bad row of a test split turns up when training is over.
    evaluated: dict[str, Any] = {
        # The Trainer has prepared and checked the one that it evaluates on as it goes.
        name: trainer.eval_dataset if name == run_args.eval_split else trainer.preparation(split, name, check=True)
        for name, split in splits.items()
        if name != run_args.train_split and has_labels(split, args.label_column)
    }
    if run_args.saliency_alignment or run_args.card_pictures:
        needed_by = "saliency_alignment" if run_args.saliency_alignment else None
        check_maps(trainer, {name: splits[name] for name in evaluated}, needed_by=needed_by)
    if args.push_to_hub and trainer.is_world_process_zero():
        fetch_card(str(args.output_dir), str(trainer.hub_model_id), revision=args.hub_revision, api=hub)
    published = None if Path(run_args.dataset).exists() else run_args.dataset
    trainer.keep_for_card(
        dataset=published,
        dataset_revision=revision_of(splits, published, run_args.dataset_revision, hub) if published else None,
        base_model_revision=model_revision(run_args.model, run_args.model_revision),
        license=run_args.license,
        description=run_args.description,
        annotation=run_args.annotation,
        template=run_args.card_template,
    )
    output = trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(_internal_call=True)  # pushed below, with its results
    trainer.save_state()
    predictions = {name: trainer.predict(split, metric_key_prefix=name) for name, split in evaluated.items()}
    metrics = {name: figures_of(prediction, name) for name, prediction in predictions.items()}
    results = _results(trainer, output, metrics)
    results["data"] = data
    if trainer.is_world_process_zero():
        _write(results)  # whatever becomes of what else is measured and drawn
    if run_args.saliency_alignment:
        parts = {name: splits[name] for name in evaluated}
        results["saliency_alignment"] = align_splits(trainer, parts, run_args.bootstrap_resamples)
    if trainer.is_world_process_zero():
        results["intervals"] = {
            name: metric_intervals(prediction, problem_type, run_args.bootstrap_resamples)
            for name, prediction in predictions.items()
        }
        trainer.create_model_card(
            metrics={name: figures | results["intervals"][name] for name, figures in results["metrics"].items()},
            compared=comparable(compared, output.global_step),
            saliency_alignment=results.get("saliency_alignment"),
            pictures=draw_pictures(trainer, run_args.card_pictures)
            | draw_alignment(
                trainer,
                {name: splits[name] for name in evaluated},
                splits[run_args.train_split],
                run_args.card_pictures,
            ),
        )
        _write(results)
    if args.push_to_hub and trainer.is_world_process_zero():
        trainer._finish_current_push()
        repo_id = str(trainer.hub_model_id)
        template = run_args.card_template
        private = args.hub_private_repo
        push_run(
            str(args.output_dir), repo_id, private=private, revision=args.hub_revision, template=template, api=hub
        )
    return results if trainer.is_world_process_zero() else None


def _write(results: dict[str, Any]) -> None:
    kept = {name: value for name, value in results.items() if name != "output_dir"}
    (Path(results["output_dir"]) / "results.json").write_text(json.dumps(kept, indent=2) + "\n")


def _results(trainer: SageTrainer, output: TrainOutput, metrics: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "guidance": trainer.args.guidance,
        "saliency_control": trainer.args.saliency_control,
        "seed": trainer.args.seed,
        "output_dir": trainer.args.output_dir,
        "loading": how_to_load(trainer.accelerator.unwrap_model(trainer.model)),
        "steps": output.global_step,
        "seconds": round(float(output.metrics["train_runtime"]), 1),
        "annotated": trainer.annotated_share(),
        "metrics": metrics,
    }


def _summary(results: dict[str, Any]) -> str:
    annotated = "" if results["annotated"] is None else f", {100 * results['annotated']:.0f} % of the rows with a map"
    lines = [
        "",
        f"guidance {results['guidance']}: {results['steps']} steps in {results['seconds']:.0f} s{annotated}",
    ]
    if results["metrics"]:
        names = list(next(iter(results["metrics"].values())))
        lines += ["", f"{'split':<20}" + "".join(f"{name:>{max(12, len(name) + 2)}}" for name in names)]
        lines += [
            f"{split:<20}" + "".join(f"{value:>{max(12, len(name) + 2)}.4f}" for name, value in values.items())
            for split, values in results["metrics"].items()
        ]
    folder = results["output_dir"]
    plain = results["loading"] == "transformers"
    loader = "AutoModelForImageClassification.from_pretrained" if plain else "sage_hf.load_image_classifier"
    lines += ["", f"saved in {folder}", f'load it with {loader}("{folder}")']
    return "\n".join(lines)
