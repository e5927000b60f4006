rule detection:
    input:
        unpack(job_inputs("detection")),
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
        settings=job_settings("detection"),
        files=job_flags(
            "detection", "images", "annotations", "val_images", "val_annotations"
        ),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " detection --settings {params.settings:q} {params.files}"
        " --weights {input.weights} --output {output.result}"
        " --log {log} --threads {threads} --workers {resources.workers}"
