rule detection:
    input:
        annotations=lambda wildcards: PLAN.detection_images(
            wildcards.evaluation
        ).train_annotations,
        val_annotations=lambda wildcards: PLAN.detection_images(
            wildcards.evaluation
        ).val_annotations,
        model=lambda wildcards: PLAN.weights(wildcards.model, int(wildcards.seed)),
    output:
        result="results/{study}/evaluation/{model}/seed-{seed}/{evaluation}.json",
    log:
        "logs/{study}/detection/{model}/seed-{seed}/{evaluation}.log",
    benchmark:
        "results/{study}/benchmarks/detection/{model}/seed-{seed}/{evaluation}.tsv"
    wildcard_constraints:
        evaluation="|".join(PLAN.detections()) or "-",
    conda:
        "../../envs/bingo.yaml"
    threads: 1
    resources:
        gpu=GPU,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        settings=lambda wildcards: settings.detection_settings(
            STUDY, wildcards.model, wildcards.evaluation, int(wildcards.seed)
        ),
        images=lambda wildcards: PLAN.detection_images(wildcards.evaluation).train,
        val_images=lambda wildcards: PLAN.detection_images(wildcards.evaluation).val,
        annotations=lambda wildcards: PLAN.detection_images(
            wildcards.evaluation
        ).train_annotations,
        val_annotations=lambda wildcards: PLAN.detection_images(
            wildcards.evaluation
        ).val_annotations,
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " detection --settings {params.settings:q}"
        " --images {params.images:q} --annotations {params.annotations:q}"
        " --val-images {params.val_images:q} --val-annotations {params.val_annotations:q}"
        " --model {input.model} --output {output.result}"
        " --log {log} --threads {threads} --workers {resources.workers}"
