"""What this machine has. Each check yields what it found, and a remedy; torch and faiss are imported inside them."""

import fcntl
import io
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from bingo.cli.doctor.finding import GB, Finding
from bingo.cli.launch import visible_devices

_FORMATS = ("JPEG", "PNG", "WebP", "GIF")
_EXTRAS = {
    "timm": "backbones timm/<name>, and bingo export --to timm or huggingface",
    "onnx": "bingo export --to onnx or huggingface",
    "onnxscript": "bingo export --to onnx or huggingface",
}
_COLOUR = (200, 40, 90)


def packages() -> Iterator[Finding]:
    """Compare the installed packages with those that this project pins."""
    try:
        requires = metadata.requires("bingo-distillation") or []
    except metadata.PackageNotFoundError:
        yield Finding("note", "this project is not installed, so its pins are not known", "pip install '.[workflow]'")
        return
    pins = [found.groups() for line in requires if (found := re.fullmatch(r"([\w.-]+)==([^\s;]+)", line))]
    same = 0
    for name, pinned in pins:
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            yield Finding("fail", f"{name} is not installed", f"pip install {name}=={pinned}")
            continue
        same += installed == pinned
        if installed != pinned:
            what = f"{name} {installed} is installed, {pinned} is what results were made with"
            yield Finding("note", what, f"pip install {name}=={pinned}")
    yield Finding("ok", f"Python {platform.python_version()}; {same} of {len(pins)} packages as they are pinned")


def workflow() -> Iterator[Finding]:
    """Look for Snakemake and for SLURM's client."""
    if util.find_spec("snakemake") is None:
        yield Finding("fail", "Snakemake is not installed beside this project", "pip install '.[workflow]'")
    else:
        yield Finding("ok", f"Snakemake {metadata.version('snakemake')}")
    slurm = shutil.which("sbatch")
    yield Finding("ok", f"SLURM's client: {slurm}" if slurm else "no SLURM client, which only clusters need")


def processor() -> Iterator[Finding]:
    """Tell cores, memory, and which instructions networks gain by."""
    import torch

    from bingo.training.device import resolve_precision

    cores, found = len(os.sched_getaffinity(0)), torch.cpu.get_capabilities()
    fast = {"avx2": "AVX2", "avx512_f": "AVX512", "avx512_bf16": "AVX512-bf16", "amx_bf16": "AMX-bf16"}
    instructions = ", ".join(label for key, label in fast.items() if found.get(key)) or "neither AVX2 nor AVX512"
    precision = str(resolve_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    yield Finding("ok", f"{cores} CPU cores with {instructions}; precision: auto is {precision} on them")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    small = Finding("note", f"{memory / GB:.1f} GB of memory; the demo takes 2", "run one job at a time: --cores 1")
    yield small if memory < 4 * GB else Finding("ok", f"{memory / GB:.1f} GB of memory")


def gpus() -> Iterator[Finding]:
    """Compare the GPUs of the driver with those that torch can use."""
    import torch

    driver = shutil.which("nvidia-smi")
    if not torch.cuda.is_available():
        if driver is None:
            yield Finding("note", "no GPU: networks run on the CPU", "bingo new --scale trial makes a study of minutes")
        elif not visible_devices():
            remedy = "repair the driver, or take nvidia-smi off PATH: rules ask for a GPU where it is"
            yield Finding("fail", "nvidia-smi is there but shows no GPU that may be used", remedy)
        else:
            what = f"nvidia-smi shows a GPU, but torch (CUDA {torch.version.cuda}) cannot use it"
            yield Finding("note", what, "update the driver, or install a torch for this one (pytorch.org)")
        return
    from bingo.training.device import resolve_precision

    version = ""
    if driver is not None:
        query = [driver, "--query-gpu=driver_version", "--format=csv,noheader"]
        version = subprocess.run(query, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        precision = str(resolve_precision("auto", torch.device("cuda", i))).removeprefix("torch.")
        capability = f"compute capability {device.major}.{device.minor}"
        software = f"driver {version}, CUDA {torch.version.cuda}"
        what = f"GPU {i}: {device.name}, {device.total_memory / GB:.0f} GB, {capability}, {software}"
        yield Finding("ok", f"{what}; precision: auto is {precision}")
    if driver is None:
        remedy = "put it on PATH: without it rules ask for no GPU, and compute on the CPU"
        yield Finding("note", "torch has a GPU, but there is no nvidia-smi", remedy)


def search() -> Iterator[Finding]:
    """Look whether faiss was built for GPUs, and sees as many as torch does."""
    import faiss
    import torch

    wanted = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = hasattr(faiss, "StandardGpuResources")
    seen = faiss.get_num_gpus() if built else 0
    what = f"faiss {faiss.__version__}, built {'with' if built else 'without'} GPU support, sees {seen} GPUs"
    if seen < wanted:
        remedy = "bags are made on the CPU; for the GPU: pip uninstall faiss-cpu faiss-gpu, pip install faiss-gpu"
        yield Finding("note", f"{what} of {wanted}", remedy)
    else:
        yield Finding("ok", what)


def decoders() -> Iterator[Finding]:
    """Decode a tiny image of each format, on a GPU too where there is one."""
    import torch
    from PIL import Image

    from bingo.data.decode import BadImageError, decode

    contents = {}
    for name in _FORMATS:
        file = io.BytesIO()
        Image.new("RGB", (16, 16), _COLOUR).save(file, name)
        contents[name] = file.getvalue()
    broken = []
    for name, content in contents.items():
        try:
            shown = decode(content).float().mean((1, 2))
        except (BadImageError, RuntimeError):
            broken.append(name)
        else:
            broken += [name] if (shown - torch.tensor(_COLOUR)).abs().max() > 8 else []
    if torch.cuda.is_available():
        import torchvision

        try:
            torchvision.io.decode_jpeg(torch.frombuffer(bytearray(contents["JPEG"]), dtype=torch.uint8), device="cuda")
        except RuntimeError as error:
            yield Finding("note", f"nvJPEG does not work ({str(error).splitlines()[0]})", "leave decoder: cpu as it is")
    for name in broken:
        yield Finding("fail", f"{name} files cannot be decoded", "reinstall pillow: its wheel brings the decoders")
    if sound := [name for name in _FORMATS if name not in broken]:
        yield Finding("ok", f"decodes {', '.join(sound)}")


def extras() -> Iterator[Finding]:
    """Look for packages that only some studies need."""
    for name, needed in _EXTRAS.items():
        if util.find_spec(name) is not None:
            yield Finding("ok", f"{name} is installed")
        else:
            what = f"{name} is not installed, needed for {needed}"
            yield Finding("note", what, "pip install '.[export]' in the checkout")


def disk(folder: Path) -> Iterator[Finding]:
    """Look at space, rights and file locks where results will lie, and at the memory that loader workers share."""
    free = shutil.disk_usage(folder).free
    what = f"{free / GB:.1f} GB of free disk in {folder.resolve()}"
    if free < GB:
        yield Finding("fail", what, "free some, or run in another folder: snakemake --directory")
    else:
        yield Finding("ok", what)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Finding("ok", "file locks work there")
    except OSError as error:
        remedy = "run on a file system that has them, or mount this one with flock"
        yield Finding("fail", f"{folder.resolve()} takes no files, or no locks on them ({error.strerror})", remedy)
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    what = f"{shared / GB:.1f} GB of shared memory for loader workers"
    small = Finding("note", what, "data.workers: 0, or more of it (docker run --shm-size 8g)")
    yield small if shared < GB else Finding("ok", what)
