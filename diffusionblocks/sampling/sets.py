"""What sampling jobs wrote: which set each file belongs to, what the page says of the job. Standard library only."""

import json

SHOWN = ("first", "seconds", "hardware", "versions", "commit", "node", "slurm_job_id", "evaluations")


def set_key(sampling):
    """What decides a set of samples; into how many files it was split does not."""
    return json.dumps({key: value for key, value in sampling.items() if key != "shards"}, sort_keys=True)


def jobs(sets):
    """Each sampling job: which samples it made, how long it took, where it ran. sets: {key: [(about, path)]}."""
    abouts = [about for shards in sets.values() for about, _ in shards]
    return [{key: about[key] for key in SHOWN if key in about} for about in abouts]
