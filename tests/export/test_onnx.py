import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from bingo.errors import BingoError
from bingo.export.onnx import export_onnx

SPEC = {"architecture": "resnet10", "width": 1 / 16, "stem": "small"}


def test_onnxruntime_gives_the_features_for_any_number_of_images(student, images, same, tmp_path):
    network, path = student(**SPEC)
    output = tmp_path / "exports" / "network.onnx"
    export_onnx(path, output, 80)
    assert [path.name for path in output.parent.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:], found.name, found.shape[1:]) == ("images", [3, 64, 64], "features", [32])
    for batch in (images, images.repeat(2, 1, 1, 1)[:3]):
        same(session.run(None, {"images": batch.numpy()})[0], network(batch))
    (alone,) = session.run(None, {"images": images[:1].numpy()})
    np.testing.assert_allclose(alone, network(images[:1]), rtol=1e-3, atol=1e-4)

    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata.pop("architecture") == "resnet10"
    view = {"size": 64, "resize": 80, "mean": [0.3, 0.4, 0.5], "std": [0.1, 0.2, 0.3]}
    assert {name: json.loads(value) for name, value in metadata.items()} == view
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    assert b"stack_trace" not in model.SerializeToString()
    assert b".py" not in model.SerializeToString()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_and_its_remedy_are_named(package, student, monkeypatch, tmp_path):
    _, path = student(**SPEC)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BingoError, match=rf"^--to onnx: .*\b{package}\b.*\.\[export\]"):
        export_onnx(path, tmp_path / "network.onnx", None)
