"""A study with a job of every stage, and all its jobs."""

import copy

import yaml

from bingo.study import jobs, report_jobs
from bingo.study.images import CocoSet
from bingo.study.plan import Plan
from bingo.study.report_contents import model_seeds
from bingo.study.schema import parse_study

STUDY = yaml.safe_load("""
study: s
seeds: [0, 1]
data: {source: folder, train: photos/train, val: photos/val, pack: {shorter_side: 320}}
teachers:
  big: {method: moco, backbone: &big {architecture: resnet50}}
  given: {checkpoint: given.pt}
bags:
  knn-5: {criterion: knn, teacher: big}
  knn-9: {criterion: knn, teacher: big, size: 9}
  classes: {criterion: label}
students:
  alone: {method: moco, backbone: &small {architecture: resnet18}}
  bingo-5: {method: bingo, bags: knn-5, backbone: *small}
  bingo-9: {method: bingo, bags: knn-9, backbone: *small}
  label: {method: bingo, bags: classes, teacher: given, backbone: *small}
  seed: {method: seed, teacher: given, teacher_views: 2, backbone: *small}
transfer:
  flowers: {source: folder, train: flowers/train, val: flowers/val}
  coco: {source: coco, train: c/train, train_annotations: c/train.json, val: c/val, val_annotations: c/val.json}
evaluations: [knn-10, flowers-linear]
tables:
  all: {title: All}
  some: {title: Some, students: [bingo-5, alone], evaluations: [semi-1, coco-mask-rcnn], published: paper.csv}
""")


def make_data(folder):
    """Make the folders and files that `STUDY` and its variants name; a plan looks at them."""
    for images in ("photos/train", "photos/val", "flowers/train", "flowers/val", "elsewhere"):
        for name in ("a", "b"):
            (folder / images / name).mkdir(parents=True)
    for path in ("c/train/x.jpg", "c/val/x.jpg", "c/train.json", "c/val.json", "elsewhere.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    for path in ("given.pt", "moved/given.pt", "lists/1percent.txt"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    for name in ("paper.csv", "other.csv"):
        (folder / name).write_text("method,student,teacher,protocol,metric,published,source\n")


def changed(path, value):
    """Return the study with another value at a key; None takes the key away."""
    raw = copy.deepcopy(STUDY)
    *folders, key = path.split(".")
    section = raw
    for folder in folders:
        section = section[folder]
    section[key] = value
    if value is None:
        del section[key]
    return raw


def plan_of(raw):
    """Return the plan of a study; its data are in the working folder."""
    return Plan(parse_study(raw, "s.yaml"))


def every_job(raw):
    """Return every job of a study, by a name for it."""
    plan = plan_of(raw)
    study = plan.study
    figures = {"training": report_jobs.TrainingFigureJob, "bag size": report_jobs.BagSizeFigureJob}
    found = {name: kind.of(plan) for name, kind in {"report": report_jobs.ReportJob, **figures}.items()}
    for split in ("train", "val"):
        found[f"data {split}"] = jobs.DataJob.of(plan, split)
        if plan.packed:
            found[f"pack {split}"] = jobs.PackJob.of(plan, split)
        sets = [name for name, images in study.transfer.items() if not isinstance(images, CocoSet)]
        found |= {f"{name} {split}": jobs.DataJob.of(plan, split, name) for name in sets}
    for name in study.teachers:
        kind = jobs.TeacherJob if name in plan.trained_teachers() else jobs.ImportJob
        found |= {f"teacher {name}": kind.of(plan, name), f"embeddings {name}": jobs.EmbeddingsJob.of(plan, name)}
        found[f"purity {name}"] = report_jobs.PurityFigureJob.of(plan, name)
    for name in study.bags:
        found[f"bags {name}"] = jobs.BagsJob.of(plan, name)
        found[f"similarity {name}"] = report_jobs.SimilarityFigureJob.of(plan, name)
    for name, entry in study.students.items():
        found |= {f"student {name} {seed}": jobs.StudentJob.of(plan, name, seed) for seed in study.seeds}
        if (views := entry.stored_views()) is not None:
            drawn = (entry.training.views, entry.training.precision, entry.layer, 0, views)
            found[f"targets {name}"] = jobs.TargetsJob.of(plan, study.teacher_of(name), *drawn)
    for model in (*study.teachers, *study.students):
        found[f"map {model}"] = report_jobs.MapFigureJob.of(plan, model)
        for name in plan.requested:
            kind = jobs.DetectionJob if name in plan.detections() else jobs.EvaluationJob
            for seed in model_seeds(study, model):
                found[f"{name} {model} {seed}"] = kind.of(plan, model, seed, name)
    for name in study.tables:
        found[f"table {name}"] = report_jobs.TableJob.of(plan, name)
        found[f"text {name}"] = report_jobs.TableTextJob.of(plan, name)
        found[f"accuracy {name}"] = report_jobs.AccuracyFigureJob.of(plan, name)
    return found
