localrules:
    doctor,
    nodes,


rule doctor:
    """What a training needs of the machine, or of a cluster's nodes: one line for each thing."""
    log:
        f"{RESULTS}/logs/doctor.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        asked=asked_of_slurm,
    params:
        results=RESULTS,
    shell:
        "python -m diffusionblocks doctor {params.results} {resources.asked} 2>&1 | tee {log}"


rule nodes:
    """The same, once before the first training; what it finds later is no reason to train again."""
    output:
        f"{RESULTS}/nodes.txt",
    log:
        f"{RESULTS}/logs/nodes.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        asked=asked_of_slurm,
    params:
        results=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m diffusionblocks doctor {params.results} {resources.asked} --output {output} > {log} 2>&1"
