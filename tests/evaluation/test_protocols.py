import subprocess
import sys
from dataclasses import asdict

from bingo.evaluation.protocols import PROTOCOLS

# A name stands for these hyper-parameters in every table that was ever made. So do not edit a line here to make the
# test pass: a variant gets a name of its own, and a line of its own.
FROZEN = {
    "linear-moco": {
        "epochs": 100,
        "batch_size": 256,
        "lr": 30.0,
        "weight_decay": 0.0,
        "milestones": (60, 80),
        "decay": 0.1,
        "augment": True,
        "standardise": False,
    },
    "linear-moco-small": {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.1,
        "weight_decay": 0.0,
        "milestones": (60, 80),
        "decay": 0.1,
        "augment": False,
        "standardise": True,
    },
    "knn-1": {"k": 1},
    "knn-10": {"k": 10},
    "knn-20": {"k": 20},
}


def test_the_hyper_parameters_of_a_name_never_change():
    found = {name: asdict(protocol) for name, protocol in PROTOCOLS.items()}
    for parameters in found.values():
        assert parameters.pop("source")
    assert found == FROZEN


def test_protocols_are_known_without_torch():
    code = "import sys, bingo.evaluation.protocols; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
