import hashlib
import shlex
import signal
import sys
import time
from pathlib import Path
from shutil import which

from bingo.study.plan import plan_or_exit
from bingo.study.stages import JOBS
from bingo.views.recipes import RECIPES

STARTED = time.time()
PLAN = plan_or_exit(config, workflow.configfiles)
STUDY = PLAN.study

if PLAN.left_out and workflow.is_main_process:
    print(f"bingo: left out: {PLAN.left_out}", file=sys.stderr)

GPU = int(which("nvidia-smi") is not None)

# PYTHONPATH: jobs import the package of this checkout, even with `snakemake --directory`. PATH: without --sdm, jobs use
# Snakemake's environment, even if it is not activated. BINGO_PARENT: jobs end when Snakemake is killed.
rules_folder = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
checkout = shlex.quote(str(rules_folder.parents[1]))
environment = f"BINGO_PARENT=$PPID PYTHONPATH={checkout}:${{{{PYTHONPATH:-}}}}"
# glibc keeps freed memory. Requesting it from the system for each batch takes 6 % of the demo teacher's training time.
environment += " MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647"
if not workflow.deployment_settings.deployment_method:
    environment += f" PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
# `exec` replaces the shell by the stage. SIGTERM would otherwise end only the shell, and Snakemake would not wait until
# the stage has saved its state.
shell.prefix(f"export {environment}; exec ")

# SLURM sends SIGUSR1 to every process of a job before its time limit; the Snakemake in the job waits for the stage.
if not workflow.is_main_process:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def job(stage, wildcards):
    """Return the job of a stage for the wildcards."""
    names = {
        name: int(value) if name in ("seed", "number", "views") else value
        for name, value in wildcards.items()
        if name not in ("study", "identity", "scatteritem")
    }
    return JOBS[stage].of(PLAN, **names)


# Sections of rules accept functions of wildcards. The following helpers return such functions.


def job_inputs(stage):
    """Return the input files of the job."""
    return lambda wildcards: job(stage, wildcards).inputs


def job_settings(stage):
    """Return the settings of the job as JSON; Snakemake reruns the stage when they change."""
    return lambda wildcards: job(stage, wildcards).identity


def job_flags(stage, *names):
    """Return the named fields of the job as command-line options."""
    return lambda wildcards: job(stage, wildcards).flags(*names)


def job_shards(stage):
    """Return the shards of the job; empty if one job does all the work.

    Their names contain a digest of the settings, so that Snakemake does not compare the number of shards with a run with
    other settings, whose shards are deleted.
    """

    def paths(wildcards):
        merged = job(stage, wildcards)
        digest = hashlib.sha256(merged.identity.encode()).hexdigest()[:8]
        name = f"{merged.output.stem}-{{scatteritem}}-{digest}.h5"
        shards = getattr(gather, stage)(str(merged.output.parent / "shards" / name))
        return shards if len(shards) > 1 else []

    return paths


def flags(**values):
    """Return command-line options, repeated for each value: ``--shards a.h5 --shards b.h5``."""
    return " ".join(
        f"--{name} {shlex.quote(str(value))}"
        for name, entry in values.items()
        for value in ([entry] if isinstance(entry, str) else entry)
    )


def results_so_far(wildcards):
    """Return the existing result files of a table."""
    return [path for path in PLAN.table_results(wildcards.table) if Path(path).exists()]


def cpus_per_process(wildcards, threads):
    """Return the cores per process that a stage requests from SLURM: its threads plus its loader processes."""
    return threads + STUDY.data.workers


# The errors of failed jobs may be far up in the output.
onerror:
    print(*(f"bingo: failed: {fault}" for fault in PLAN.faults(STARTED)), sep="\n")


wildcard_constraints:
    study=STUDY.study,
    split="train|val",
    teacher="|".join(STUDY.teachers) or "-",
    bags="|".join(STUDY.bags) or "-",
    student="|".join(STUDY.students) or "-",
    model="|".join([*STUDY.teachers, *STUDY.students]) or "-",
    table="|".join(STUDY.tables) or "-",
    seed=r"\d+",
    target="|".join(PLAN.targets) or "-",
    recipe="|".join(RECIPES),
    precision="auto|float32|bfloat16",
    layer="projection|features",
    number=r"\d+",
    identity="[0-9a-f]{8}",
    views=r"\d+",
