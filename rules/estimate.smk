localrules:
    estimate,


rule estimate:
    """What all of it would cost: hours, memory, jobs, disk and downloads of every row, before anything is trained."""
    log:
        f"{RESULTS}/logs/estimate.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
        options=estimate_with,
    params:
        plan=f"{RESULTS}/plan.json",  # written at the start of every workflow
    shell:
        "python -m diffusionblocks estimate --plan {params.plan} --data-dir {resources.data_dir:q} {resources.options}"
        " 2>&1 | tee {log}"
