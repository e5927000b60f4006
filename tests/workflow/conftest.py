import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from torch import nn
from torchvision.io import write_jpeg

ROOT = Path(__file__).parents[2]
TINY = {"architecture": "resnet10", "stem": "small", "width": 0.0625}
TRAINING = {"epochs": 2, "batch_size": 16, "views": "small"}
COMMON = {"backbone": TINY, "training": TRAINING, "queue_size": 64}


def tiny_study() -> dict:
    """Return a study that takes seconds: every kind of entry once."""
    return {
        "study": "tiny",
        "seeds": [0],
        "data": {"source": "demo", "preprocessing": {"size": 28, "resize": 28}, "max_train": 96, "max_val": 64},
        "teachers": {"big": {"method": "moco", **COMMON}},
        "bags": {"knn": {"criterion": "knn", "teacher": "big", "size": 3}},
        "students": {"alone": {"method": "moco", **COMMON}, "distilled": {"method": "bingo", "bags": "knn", **COMMON}},
        "evaluations": ["knn-10"],
        "tables": {"main": {"title": "Tiny"}},
    }


def folder_study(**data) -> dict:
    study = tiny_study()
    study["data"] = {"source": "folder", "train": "photos", "preprocessing": {"size": 16, "resize": 16}, **data}
    for entry in (study["teachers"]["big"], *study["students"].values()):
        entry["training"] = {"epochs": 1, "batch_size": 8, "views": "small"}
    return study


def write_photos(folder, count, seed=0):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        pixels = torch.randint(0, 256, (3, 30 + i % 3, 40), dtype=torch.uint8, generator=generator)
        write_jpeg(pixels, str(folder / f"{i:03}.jpg"))


def write_moco_checkpoint(path):
    """Write a MoCo-v2 training file: both encoders, queue, optimizer."""
    path.parent.mkdir()
    encoders = {}
    for name in ("encoder_q", "encoder_k"):
        network = torchvision.models.resnet18()
        network.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
        encoders |= {f"module.{name}.{key}": value for key, value in network.state_dict().items()}
    state = {**encoders, "module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}, path)


class Workspace:
    """A folder in which Snakemake runs a checkout's workflow on a study file."""

    def __init__(self, folder: Path, snakefile: Path = ROOT / "Snakefile") -> None:
        self.folder, self.snakefile = folder, snakefile

    def write(self, study: dict) -> None:
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    def command(self, *options: str) -> list[str]:
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(self.snakefile)]
        return [*snakemake, "--configfile", "study.yaml", "--cores", "2", *options]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1"}  # jobs run side by side

    def start(self, *options: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.command(*options), cwd=self.folder, env=self.environment(), **pipes)

    def run(self, *options: str) -> subprocess.CompletedProcess:
        process = self.start(*options)
        output, _ = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def finish(self, *options: str) -> str:
        """Run until everything asked for is there; return the output."""
        result = self.run(*options)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def planned(self, *options: str) -> set[str]:
        """Return the jobs that `snakemake -n` would run, as rule or rule:wildcards, except `all`."""
        jobs, rule = [], None
        for line in self.finish("--dry-run", "--nocolor", *options).splitlines():
            words = line.split()
            if len(words) == 2 and words[0] in ("rule", "localrule"):
                rule = words[1].rstrip(":")
                jobs.append(rule)
            elif words[:1] == ["wildcards:"]:
                values = [pair.split("=")[1].rstrip(",") for pair in words[1:]]
                if len(values) > 1:
                    jobs[-1] = ":".join([rule, *values[1:]])
        return set(jobs) - {"all"}


def refused(result, *words):
    """Assert that a run ended with one error line that holds ``words``."""
    lines = [line for line in result.stdout.splitlines() if line.startswith("bingo: error: ")]
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stdout
    assert len(lines) == 1, result.stdout
    for word in words:
        assert word in lines[0]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)
