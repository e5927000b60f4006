"""Job classes of all stages, by stage name."""

from bingo.study import jobs, report_jobs
from bingo.study.job import Job

JOBS: dict[str, type[Job]] = {
    job.STAGE: job
    for job in (
        jobs.DataJob,
        jobs.PackJob,
        jobs.TeacherJob,
        jobs.ImportJob,
        jobs.EmbeddingsJob,
        jobs.BagsJob,
        report_jobs.SheetsJob,
        jobs.TargetsJob,
        jobs.StudentJob,
        jobs.EvaluationJob,
        jobs.DetectionJob,
        jobs.ExportJob,
        report_jobs.TableJob,
        report_jobs.TableTextJob,
        report_jobs.AccuracyFigureJob,
        report_jobs.BagSizeFigureJob,
        report_jobs.TrainingFigureJob,
        report_jobs.PurityFigureJob,
        report_jobs.SimilarityFigureJob,
        report_jobs.MapFigureJob,
        report_jobs.ReportJob,
    )
}
"""In execution order."""
