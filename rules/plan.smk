localrules:
    plan,


rule plan:
    """One file of settings, from which a step or a page reads what it needs."""
    output:
        f"{RESULTS}/{{planned}}.json",
    log:
        f"{RESULTS}/logs/plan/{{planned}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        plan=f"{RESULTS}/plan.json",  # written at the start of every workflow
        digest=lambda wildcards: PLAN.digest(wildcards.planned),
    shell:
        "python -m diffusionblocks plan {params.plan} {wildcards.planned} -o {output} > {log} 2>&1"
