"""Checks of this machine. Each check yields findings with remedies; torch and faiss are imported inside the checks."""

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
    """Compare the installed packages with the versions that this project pins."""
    try:
        requires = metadata.requires("bingo-distillation") or []
    except metadata.PackageNotFoundError:
        what = "this project is not installed, so its pinned versions are unknown"
        yield Finding("note", what, "pip install '.[workflow]'")
        return
    pins = [match.groups() for line in requires if (match := re.fullmatch(r"([\w.-]+)==([^\s;]+)", line))]
    matching = 0
    for name, pinned in pins:
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            yield Finding("fail", f"{name} is not installed", f"pip install {name}=={pinned}")
            continue
        matching += installed == pinned
        if installed != pinned:
            what = f"{name} {installed} is installed, but this project's results were produced with {pinned}"
            yield Finding("note", what, f"pip install {name}=={pinned}")
    version = platform.python_version()
    yield Finding("ok", f"Python {version}; {matching} of {len(pins)} packages have the pinned version")


def workflow() -> Iterator[Finding]:
    """Check for Snakemake and for SLURM's client."""
    if util.find_spec("snakemake") is None:
        yield Finding("fail", "Snakemake is not installed in this environment", "pip install '.[workflow]'")
    else:
        yield Finding("ok", f"Snakemake {metadata.version('snakemake')}")
    slurm = shutil.which("sbatch")
    yield Finding("ok", f"SLURM client: {slurm}" if slurm else "no SLURM client (only needed on clusters)")


def processor() -> Iterator[Finding]:
    """Report cores, memory, and the vector instructions that speed up networks."""
    import torch

    from bingo.training.device import resolve_precision

    cores, capabilities = len(os.sched_getaffinity(0)), torch.cpu.get_capabilities()
    labels = {"avx2": "AVX2", "avx512_f": "AVX512", "avx512_bf16": "AVX512-bf16", "amx_bf16": "AMX-bf16"}
    instructions = ", ".join(label for key, label in labels.items() if capabilities.get(key))
    precision = str(resolve_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    what = f"{cores} CPU cores with {instructions or 'neither AVX2 nor AVX512'}"
    yield Finding("ok", f"{what}; precision: auto uses {precision}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    what = f"{memory / GB:.1f} GB of memory; the demo needs 2 GB"
    small = Finding("note", what, "run one job at a time: --cores 1")
    yield small if memory < 4 * GB else Finding("ok", f"{memory / GB:.1f} GB of memory")


def gpus() -> Iterator[Finding]:
    """Compare the GPUs of the driver with the GPUs that torch can use."""
    import torch

    driver = shutil.which("nvidia-smi")
    if not torch.cuda.is_available():
        if driver is None:
            remedy = "bingo new --scale trial writes a study that runs in minutes"
            yield Finding("note", "no GPU: networks run on the CPU", remedy)
        elif not visible_devices():
            remedy = "repair the driver, or remove nvidia-smi from PATH: with nvidia-smi, rules request a GPU"
            yield Finding("fail", "nvidia-smi exists but shows no usable GPU", remedy)
        else:
            what = f"nvidia-smi shows a GPU, but torch (CUDA {torch.version.cuda}) cannot use it"
            yield Finding("note", what, "update the driver, or install a torch build for it (pytorch.org)")
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
        yield Finding("ok", f"{what}; precision: auto uses {precision}")
    if driver is None:
        remedy = "add nvidia-smi to PATH: without it, rules request no GPU and compute on the CPU"
        yield Finding("note", "torch has a GPU, but nvidia-smi is not on PATH", remedy)


def search() -> Iterator[Finding]:
    """Check whether faiss has GPU support and sees as many GPUs as torch."""
    import faiss
    import torch

    torch_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_gpu_support = hasattr(faiss, "StandardGpuResources")
    faiss_gpus = faiss.get_num_gpus() if has_gpu_support else 0
    support = f"built {'with' if has_gpu_support else 'without'} GPU support"
    what = f"faiss {faiss.__version__}, {support}, sees {faiss_gpus} GPUs"
    if faiss_gpus < torch_gpus:
        remedy = "bags are computed on the CPU; for the GPU: pip uninstall faiss-cpu faiss-gpu, pip install faiss-gpu"
        yield Finding("note", f"{what} of {torch_gpus}", remedy)
    else:
        yield Finding("ok", what)


def decoders() -> Iterator[Finding]:
    """Decode a small image of each format, and a JPEG on the GPU if there is one."""
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
            colour = decode(content).float().mean((1, 2))
        except (BadImageError, RuntimeError):
            broken.append(name)
        else:
            broken += [name] if (colour - torch.tensor(_COLOUR)).abs().max() > 8 else []
    if torch.cuda.is_available():
        import torchvision

        try:
            torchvision.io.decode_jpeg(torch.frombuffer(bytearray(contents["JPEG"]), dtype=torch.uint8), device="cuda")
        except RuntimeError as error:
            what = f"nvJPEG does not work ({str(error).splitlines()[0]})"
            yield Finding("note", what, "keep data.preprocessing.decoder: cpu, the default")
    for name in broken:
        yield Finding("fail", f"{name} files cannot be decoded", "reinstall pillow; its wheel includes the decoders")
    if working := [name for name in _FORMATS if name not in broken]:
        yield Finding("ok", f"decodes {', '.join(working)}")


def extras() -> Iterator[Finding]:
    """Check for optional packages."""
    for name, needed in _EXTRAS.items():
        if util.find_spec(name) is not None:
            yield Finding("ok", f"{name} is installed")
        else:
            what = f"{name} is not installed; it is needed for {needed}"
            yield Finding("note", what, "pip install '.[export]' in the checkout")


def disk(folder: Path) -> Iterator[Finding]:
    """Check disk space, permissions and file locks in ``folder``, and the shared memory for loader workers."""
    free = shutil.disk_usage(folder).free
    what = f"{free / GB:.1f} GB of free disk space in {folder.resolve()}"
    if free < GB:
        yield Finding("fail", what, "free disk space, or run in another folder: snakemake --directory")
    else:
        yield Finding("ok", what)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Finding("ok", f"files in {folder.resolve()} can be written and locked")
    except OSError as error:
        remedy = "run on a file system with locks, or mount this one with the option flock"
        what = f"files in {folder.resolve()} cannot be written or locked ({error.strerror})"
        yield Finding("fail", what, remedy)
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    what = f"{shared / GB:.1f} GB of shared memory for loader workers"
    small = Finding("note", what, "set data.workers: 0, or increase it (docker run --shm-size 8g)")
    yield small if shared < GB else Finding("ok", what)
