"""Embeddings and bags made in shards, and that their number reruns nothing."""

import os

from .conftest import folder_study, tiny_study, write_moco_checkpoint, write_photos

SHARDED = ("--set-scatter", "embeddings=2", "bags=3")
TARGETS = ("results/tiny/embeddings/big.h5", "results/tiny/bags/knn.h5")


def test_shards_change_no_byte_and_their_number_reruns_nothing(finished):
    finished.write(tiny_study())
    assert finished.planned(*SHARDED) == set()
    before = [(finished.folder / path).read_bytes() for path in TARGETS]
    for path in TARGETS:
        (finished.folder / path).unlink()
    result = finished.run(*SHARDED, "--", *TARGETS)
    assert result.returncode == 0, result.stdout
    for job, count in (("embeddings_shard", 2), ("bags_shard", 3)):
        assert result.stdout.count(f"rule {job}:") == count
    assert [(finished.folder / path).read_bytes() for path in TARGETS] == before
    assert not list((finished.folder / "results/tiny").glob("*/shards/*.h5"))
    for scatter in ((), SHARDED, ("--set-scatter", "embeddings=5", "bags=2")):
        assert finished.planned(*scatter) == set()


def test_other_settings_are_made_by_as_many_jobs_as_asked_for_and_clusters_by_one(finished):
    study = tiny_study()
    study["data"]["preprocessing"] = {"size": 28, "resize": 32}
    study["bags"]["clusters"] = {"criterion": "kmeans", "teacher": "big", "clusters": 5}
    finished.write(study)
    targets = (*TARGETS, "results/tiny/bags/clusters.h5")
    jobs = {"embeddings:big", "bags:knn", "bags:clusters"}
    assert finished.planned("--", *targets) == jobs
    shards = [job.rpartition(":")[0] for job in finished.planned(*SHARDED, "--", *targets) - jobs]
    assert sorted(shards) == [
        *(f"bags_shard:knn:{number}-of-3" for number in (1, 2, 3)),
        *(f"embeddings_shard:big:{number}-of-2" for number in (1, 2)),
    ]


def test_a_teacher_from_another_file_is_taken_over_again_however_old_the_file_is(workspace):
    study = folder_study()
    write_photos(workspace.folder / "photos", 4)
    for name in ("a", "b"):
        write_moco_checkpoint(workspace.folder / name / "moco.pth.tar")
        os.utime(workspace.folder / name / "moco.pth.tar", (0, 0))
    target = "results/tiny/teachers/big.safetensors"
    study["teachers"]["big"] = {"checkpoint": "a/moco.pth.tar"}
    workspace.write(study)
    assert workspace.run("--", target).returncode == 0
    assert workspace.planned("--", target) == set()
    study["teachers"]["big"] = {"checkpoint": "b/moco.pth.tar"}
    workspace.write(study)
    assert workspace.planned("--", target) == {"imported_teacher:big"}
