import shlex

import pytest

from tests.study.every_job import STUDY, every_job, make_data


def has_settings(kind):
    return bool(kind.model_fields.keys() - kind.roles())


def as_command(job):
    """Return the words of `bingo stage` that run a job."""
    return [job.STAGE, *shlex.split(job.flags()), *(["--settings", job.identity] if has_settings(type(job)) else [])]


@pytest.fixture(scope="session")
def jobs(tmp_path_factory):
    """A job of every stage, by the stage; none of what it reads is there."""
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return {job.STAGE: job for job in every_job(STUDY).values()}
