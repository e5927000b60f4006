import pytest

from bingo.errors import BingoError
from bingo.study.jobs import ExportJob
from tests.stage import run_stage


@pytest.mark.parametrize(
    ("to", "resize", "named"), [("safetensors", None, "--output"), ("torchvision", 256, "--resize")]
)
def test_an_output_or_option_that_the_format_cannot_have_is_refused(to, resize, named, model):
    content = model.read_bytes()
    again = model.parent / ".." / model.parent.name / model.name
    output = again if to == "safetensors" else model.with_name("network.pth")
    with pytest.raises(BingoError, match=f"^{named}: "):
        run_stage(ExportJob, to=to, resize=resize, weights=model, output=output)
    assert model.read_bytes() == content
