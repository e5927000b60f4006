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
if not workflow.deployment_settings.deployment_method:
    environment += f" PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
# A stage stands in its shell's place: SIGTERM would end the shell, and Snakemake would not wait for a state to be saved.
shell.prefix(f"export {environment}; exec ")

# SLURM sends this to every process of a job before its time is up; the Snakemake inside waits for the stage's end.
if not workflow.is_main_process:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def job(stage, wildcards):
    """Return the job of a stage that a rule's wildcards, but for the study's name, say."""
    names = {
        name: int(value) if name in ("seed", "number", "views") else value
        for name, value in wildcards.items()
        if name not in ("study", "identity", "scatteritem")
    }
    return JOBS[stage].of(PLAN, **names)


def inputs(stage):
    """Return the function from wildcards to a job's input files."""
    return lambda wildcards: job(stage, wildcards).inputs


def settings(stage):
    """Return the function from wildcards to a job's settings."""
    return lambda wildcards: job(stage, wildcards).identity


def flags(stage, *names):
    """Return the function from wildcards to some of a job's files, as options; to all inputs by default."""
    return lambda wildcards: job(stage, wildcards).flags(*names)


def cpus_per_process(wildcards, threads):
    """Return the cores of one process of a stage, for SLURM: its threads, and its loader processes."""
    return threads + STUDY.data.workers


def options(**given):
    """Repeat each option for each of its values: ``--shards a.h5 --shards b.h5``."""
    return " ".join(
        f"--{name} {shlex.quote(str(value))}"
        for name, values in given.items()
        for value in ([values] if isinstance(values, str) else values)
    )


def shards(stage, gather, stem, wildcards):
    """Return the files that the jobs of a scattered stage make; none where a single job does it all.

    Their names tell the settings: Snakemake would take the number of shards that were made last with other settings,
    and are gone since, for a change.
    """
    identity = hashlib.sha256(job(stage, wildcards).identity.encode()).hexdigest()[:8]
    paths = gather(f"{stem.format(**wildcards)}-{{scatteritem}}-{identity}.h5")
    return paths if len(paths) > 1 else []


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
