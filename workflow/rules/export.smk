rule export:
    input:
        model=lambda wildcards: PLAN.weights(wildcards.model, int(wildcards.seed)),
    output:
        weights="results/{study}/export/{model}/seed-{seed}/{format}.{suffix}",
    log:
        "logs/{study}/export/{model}/seed-{seed}/{format}.{suffix}.log",
    wildcard_constraints:
        format="detectron2|timm|torchvision",
        suffix="pkl|pth|safetensors",
    conda:
        "../../envs/bingo.yaml"
    params:
        version=JOBS["export"].STAGE_VERSION,
        options="",
    shell:
        "python -m bingo export {input.model} --to {wildcards.format} {params.options}"
        " --output {output.weights} --log {log}"


# Formats that include the preprocessing, which is unknown for imported teachers.
use rule export as export_described with:
    wildcard_constraints:
        model="|".join([*PLAN.trained_teachers(), *STUDY.students]) or "-",
        format="onnx|safetensors",
        suffix="onnx|safetensors",
    params:
        version=JOBS["export"].STAGE_VERSION,
        options=f"--resize {STUDY.data.preprocessing.resize}",


# The model card contains the results of the evaluations, so they are inputs.
rule export_huggingface:
    input:
        model=lambda wildcards: PLAN.weights(wildcards.model, int(wildcards.seed)),
        results=lambda wildcards: PLAN.network_results(
            wildcards.model, int(wildcards.seed)
        ),
    output:
        folder=directory("results/{study}/export/{model}/seed-{seed}/huggingface"),
    log:
        "logs/{study}/export/{model}/seed-{seed}/huggingface.log",
    wildcard_constraints:
        model="|".join([*PLAN.trained_teachers(), *STUDY.students]) or "-",
    conda:
        "../../envs/bingo.yaml"
    params:
        version=JOBS["export"].STAGE_VERSION,
        options=f"--resize {STUDY.data.preprocessing.resize}",
    shell:
        "python -m bingo export {input.model} --to huggingface {params.options}"
        " --output {output.folder} --log {log}"
