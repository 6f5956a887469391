"""A checkpoint is a plain transformers model: it loads where sage_hf can't be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CLASSES
from tests.test_trainer import make_trainer

SCRIPT = """
import json, sys
sys.modules["sage_hf"] = None  # importing it, by whatever name in the checkpoint, is an error from here on
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

folder, picture = sys.argv[1:]
image = Image.open(picture)
model = AutoModelForImageClassification.from_pretrained(folder)
inputs = AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")
answer = {
    "logits": model(**inputs).logits[0].tolist(),
    "scores": {entry["label"]: entry["score"] for entry in pipeline("image-classification", folder)(image)},
    "sage": model.config.sage["guidance"],
}
print(json.dumps(answer))
"""


@pytest.mark.parametrize("kind", ["vit", "convnext", "resnet"])
def test_same_logits_without_sage_hf(tmp_path, dataset, processor, kind):
    trainer = make_trainer(tmp_path, kind, train_dataset=dataset, processing_class=processor)
    trainer.train()
    trainer.save_model()
    pixels = np.random.default_rng(5).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    with torch.no_grad():
        inputs = processor(images=Image.fromarray(pixels), return_tensors="pt")
        logits = trainer.model.eval()(**inputs).logits[0]

    run = [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), str(tmp_path / "picture.png")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(answer["logits"]), logits, rtol=1e-4, atol=1e-5)
    scores = dict(zip(CLASSES, logits.softmax(-1).tolist(), strict=True))
    assert answer["scores"] == pytest.approx(scores, rel=1e-4)
    assert answer["sage"] == "sage"
