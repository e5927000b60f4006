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

# Jobs find the package in this checkout, also under `snakemake --directory elsewhere`; without --sdm they run in the
# environment of Snakemake itself, also where that is not activated.
# BINGO_PARENT lets them end with a Snakemake that was killed.
rules_folder = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
checkout = shlex.quote(str(rules_folder.parents[1]))
environment = f"BINGO_PARENT=$PPID PYTHONPATH={checkout}:${{{{PYTHONPATH:-}}}}"
# glibc keeps freed memory: each batch would ask the system for it again, which takes 6 % of the time of the demo's teacher.
environment += " MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647"
if not workflow.deployment_settings.deployment_method:
    environment += f" PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
# A stage stands in its shell's place: SIGTERM would end the shell, and Snakemake would not wait for a state to be saved.
shell.prefix(f"export {environment}; exec ")

# SLURM sends this to every process of a job before its time is up; the Snakemake inside waits for the stage's end.
if not workflow.is_main_process:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def job(stage, wildcards):
    """Return the stage's job that the wildcards name."""
    names = {
        name: int(value) if name in ("seed", "number", "views") else value
        for name, value in wildcards.items()
        if name not in ("study", "identity", "scatteritem")
    }
    return JOBS[stage].of(PLAN, **names)


# Sections of rules take functions of wildcards. These return such functions.


def job_inputs(stage):
    """Return the job's input files."""
    return lambda wildcards: job(stage, wildcards).inputs


def job_settings(stage):
    """Return the job's settings as JSON: Snakemake reruns the stage when they change."""
    return lambda wildcards: job(stage, wildcards).identity


def job_flags(stage, *names):
    """Return some of the job's files as options of its command."""
    return lambda wildcards: job(stage, wildcards).flags(*names)


def job_shards(stage):
    """Return the files of the jobs that share the work; none if one job does it all.

    Their names hold a digest of the settings: Snakemake must not compare the number of shards with that of a run with
    other settings, whose shards are gone.
    """

    def paths(wildcards):
        whole = job(stage, wildcards)
        digest = hashlib.sha256(whole.identity.encode()).hexdigest()[:8]
        name = f"{whole.output.stem}-{{scatteritem}}-{digest}.h5"
        found = getattr(gather, stage)(str(whole.output.parent / "shards" / name))
        return found if len(found) > 1 else []

    return paths


def flags(**values):
    """Return options of a command, each repeated for all its values: ``--shards a.h5 --shards b.h5``."""
    return " ".join(
        f"--{name} {shlex.quote(str(value))}"
        for name, given in values.items()
        for value in ([given] if isinstance(given, str) else given)
    )


def results_so_far(wildcards):
    """Return the result files of a table that exist."""
    return [path for path in PLAN.table_results(wildcards.table) if Path(path).exists()]


def cpus_per_process(wildcards, threads):
    """Return the cores of one process of a stage, for SLURM: its threads and its loader processes."""
    return threads + STUDY.data.workers


# Jobs that fail may say why long before the end.
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
