"""`bingo doctor`: check whether this machine can run a study, and suggest remedies."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from bingo.cli.doctor.finding import Check, Finding
from bingo.cli.doctor.machine import decoders, disk, extras, gpus, packages, processor, search, workflow
from bingo.cli.doctor.study import study
from bingo.errors import BingoError


def examine(study_file: Path | None) -> Iterator[Finding]:
    """Run all checks; an exception in a check becomes a finding."""
    checks: list[Check] = [packages, workflow, processor, gpus, search, decoders, extras, partial(disk, Path())]
    checks += [] if study_file is None else [partial(study, study_file)]
    for check in checks:
        try:
            yield from check()
        except BingoError as error:
            what, _, remedy = str(error).partition("; ")
            yield Finding("fail", what, remedy)
        except (ImportError, OSError, RuntimeError) as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Finding("fail", message, "reinstall the package that the message names")


def diagnose(findings: Iterable[Finding]) -> tuple[str, bool]:
    """Return the findings as text, with remedies on separate lines, and whether a study can run."""
    lines, passed = [], True
    for finding in findings:
        lines.append(f"{finding.status:<4}  {finding.what}")
        lines += [f"      -> {finding.remedy}"] if finding.remedy else []
        passed &= finding.status != "fail"
    return "\n".join(lines), passed
