"""`bingo doctor`: what this machine has of what a study needs, and what helps where it has not."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from bingo.cli.doctor.finding import Check, Finding
from bingo.cli.doctor.machine import decoders, disk, extras, gpus, packages, processor, search, workflow
from bingo.cli.doctor.study import study
from bingo.errors import BingoError


def examine(study_file: Path | None) -> Iterator[Finding]:
    """Run all checks; one that breaks off is a finding itself."""
    checks: list[Check] = [packages, workflow, processor, gpus, search, decoders, extras, partial(disk, Path())]
    checks += [] if study_file is None else [partial(study, study_file)]
    for check in checks:
        try:
            yield from check()
        except BingoError as error:
            what, _, remedy = str(error).partition("; ")
            yield Finding("fail", what, remedy)
        except (ImportError, OSError, RuntimeError) as error:
            yield Finding("fail", f"{type(error).__name__}: {' '.join(str(error).split())}", "reinstall what it names")


def diagnose(findings: Iterable[Finding]) -> tuple[str, bool]:
    """Return the findings as text, a line each and one for a remedy, and whether a study could run."""
    lines, sound = [], True
    for finding in findings:
        lines.append(f"{finding.status:<4}  {finding.what}")
        lines += [f"      -> {finding.remedy}"] if finding.remedy else []
        sound &= finding.status != "fail"
    return "\n".join(lines), sound
