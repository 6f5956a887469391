"""Every message on the page is one that the package gives; those that are cheap to provoke are provoked."""

import re

import datasets
import numpy as np
import pytest
from PIL import Image

from docs.generator.messages import message_patterns, source_of
from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.cli.train import parse
from sage_hf.data.annotations import Boxes
from sage_hf.data.saliency import saliency_array
from sage_hf.evaluation import evaluate_model
from tests.conftest import make_args, make_dataset, make_model
from tests.docs.blocks import DOCS

PAGE = (DOCS / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.M | re.S)


def test_every_message_is_in_the_source():
    patterns = message_patterns()
    assert len(MESSAGES) >= 30
    assert [message for message in MESSAGES if source_of(message, patterns) is None] == []


def test_what_is_not_in_the_source_is_found_out():
    patterns = message_patterns()
    assert (
        source_of("margin=0.5 is a setting of guidance='sage', and nobody reads it. Leave it out.", patterns) is None
    )
    assert source_of("anything at all that a pattern of few words would take for its own", patterns) is None


def trainer(folder, processor, model="vit", **settings):
    dataset = settings.pop("dataset", None) or make_dataset(4)
    return SageTrainer(
        model=make_model(model), args=make_args(folder, **settings), train_dataset=dataset, processing_class=processor
    )


def test_provoked_by_training(tmp_path, processor):
    def message(**settings):
        with pytest.raises((ValueError, OSError)) as found:
            trainer(tmp_path / "run", processor, **settings)
        return str(found.value).splitlines()[-1].split(", row")[-1]

    renamed = make_dataset(4).rename_columns({"saliency": "mask", "label": "class"})
    said = message(dataset=renamed)
    assert "there is no column" in said
    assert "Name the right one with saliency_column=..." in said or "label_column=..." in said
    assert message(per_device_train_batch_size=1) in MESSAGES
    assert message(guidance="gradient") in MESSAGES or "attn_implementation" in message(guidance="gradient")


def test_provoked_by_arguments(tmp_path):
    with pytest.raises(ValueError, match="is a setting of") as found:
        SageTrainingArguments(str(tmp_path), guidance="gradient", margin=0.5, use_cpu=True)
    assert str(found.value) in MESSAGES
    (tmp_path / "run.yaml").write_text("guidence: sage\n")
    with pytest.raises(ValueError, match="guidence") as found:
        parse(["--config", str(tmp_path / "run.yaml"), "--model", "m", "--dataset", "d", "--output_dir", "o"])
    assert str(found.value) in MESSAGES


def test_provoked_by_maps():
    grey = np.zeros((4, 4), dtype=np.float32)
    below, undefined = grey.copy(), grey.copy()
    below[0, 0], undefined[0, 0] = -0.25, np.nan
    for image in (
        Image.new("RGB", (4, 4), "red"),
        Image.merge("LA", (Image.new("L", (4, 4), 255), Image.linear_gradient("L").resize((4, 4)))),
        Image.fromarray(below),
        Image.fromarray(undefined),
    ):
        with pytest.raises(ValueError, match="map") as found:
            saliency_array(image)
        assert str(found.value) in MESSAGES
    with pytest.raises(ValueError, match="no area") as found:
        Boxes(((40, 30, 20, 90),)).saliency((100, 100))
    assert str(found.value) in MESSAGES


def test_provoked_by_evaluation(tmp_path, processor):
    model = make_model("vit")
    model.config.id2label = dict(enumerate(["live", "print", "replay"]))
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    rows = make_dataset(6).cast_column("label", datasets.ClassLabel(names=["live", "print", "replay"]))
    datasets.DatasetDict(test=rows).save_to_disk(tmp_path / "data")
    for settings in ({"threshold_split": "test"}, {"bona_fide": "real"}):
        with pytest.raises(ValueError, match=r"threshold_split|bona_fide") as found:
            evaluate_model(tmp_path / "model", tmp_path / "data", bootstrap_resamples=0, use_cpu=True, **settings)
        assert str(found.value) in MESSAGES
