"""What metrics can be computed from. No torch: planning asks here too."""

from collections import namedtuple

Input = namedtuple("Input", "kinds source")
Input.__doc__ = """kinds: of the data that have it. source: what serves it, and so what a metric's `sampling` holds:

predict: the method's chain on the test set; keywords of `predict`
bound: the method's likelihood bound on the test set, in so many `passes`
samples: images or texts that were generated; keywords of `sample` or `extend`, and how many
teacher: another network's opinion of generated texts; the metric names the `teacher`
network: an update of the network itself; no keywords
logs: what training wrote; no keywords
count: an update of a network that is not there (evaluation/count.py), in tables that are `counted`; of a chain,
    keywords of `predict`; what is `timed` is the one thing there that is computed (evaluation/timing.py)
"""

IMAGES, TEXT, BOTH = ("images",), ("text",), ("images", "text")

# {name of a metric's positional argument: Input}. A test set has N samples; values are numpy arrays and plain data.
INPUTS = {
    "logits": Input(IMAGES, "predict"),  # (N, classes), the chain's last step
    "labels": Input(IMAGES, "predict"),  # (N,)
    "correct": Input(BOTH, "predict"),  # (steps, N), whether the likeliest class is right; of texts the share of tokens
    "losses": Input(TEXT, "predict"),  # (steps, N), nats per token
    "probability": Input(TEXT, "predict"),  # (steps, N), mean of the true tokens'
    "agreement": Input(TEXT, "predict"),  # (N,), chance that samples of two chains, alike but for the noise, agree
    "scrambled_losses": Input(TEXT, "predict"),  # (N,), nats at the first step after another test sequence's tokens
    "nelbo": Input(TEXT, "bound"),  # (passes, N), nats per token
    "nelbo_per_level": Input(TEXT, "bound"),  # its density over intervals of the masking rate, a list
    "features": Input(IMAGES, "samples"),  # of generated images, an array (n, D) per set
    "references": Input(IMAGES, "samples"),  # {split: {mu (D,), sigma (D, D), features (m, D)}} of the real images
    "evaluations": Input(IMAGES, "samples"),  # {layers, networks: run for an image; num_layers: of a network}
    "texts": Input(TEXT, "samples"),  # (n, length), token ids of what was generated, without prompts
    "text_features": Input(TEXT, "teacher"),  # (generated (n, D), what really follows the prompts (m, D))
    "text_nll": Input(TEXT, "teacher"),  # (nats (n,), scored tokens (n,)) of generated texts
    "reference_nll": Input(TEXT, "teacher"),  # (nats (m,), scored tokens (m,)) of what really follows the prompts
    "update_cost": Input(TEXT, "network"),  # {forward, backward: layers run in a training update}
    "counted": Input(BOTH, "count"),  # what an update of the row holds and computes, see evaluation/count.py
    "compared": Input(BOTH, "count"),  # the same of the row that it is compared with
    "timed": Input(BOTH, "count"),  # seconds of an update of the row, see evaluation/timing.py
    "timed_compared": Input(BOTH, "count"),  # the same of the row that it is compared with, from the same process
    "timed_chain": Input(BOTH, "count"),  # as timed, of the method's chain with the column's `sampling`
    "timed_chain_compared": Input(BOTH, "count"),  # of the same column of the row that it is compared with
    "chain": Input(BOTH, "count"),  # {layers: that the method's chain runs for a sample}
    "training": Input(BOTH, "logs"),  # {updates, seconds: of all parts together}
}
FEATURES = ("features", "references")  # what an extractor makes of images
TIMED_CHAIN = ("timed_chain", "timed_chain_compared")
TIMED = ("timed", "timed_compared", *TIMED_CHAIN)
ON_A_GPU = "timed on a GPU alone"  # why they may be absent
# {input: the member of a teacher that gives it}.
OFFERED = {"text_features": "features", "text_nll": "nll", "reference_nll": "nll"}


def served(*sources: str) -> set[str]:
    """Names of all inputs that one of the sources serves."""
    return {name for name, (_, source) in INPUTS.items() if source in sources}


def prompts(sampling: dict) -> int:
    """How many prompts so many samples need, by `continuations` of each; and so many real texts there are."""
    return -(-sampling["num_samples"] // sampling.get("continuations", 1))


def source_of(names: list[str], kind: str) -> str:
    """The one source of a metric's inputs, "samples" for a teacher's too; "logs" if there is no other.

    kind: of the data. Raises ValueError for inputs that it does not have or that do not come together.
    """
    there = [name for name, (kinds, _) in INPUTS.items() if kind in kinds]
    if foreign := [name for name in names if name not in there]:
        raise ValueError(f"needs {', '.join(foreign)}, and of {kind} there are: {', '.join(there)}")
    sources = {INPUTS[name].source.replace("teacher", "samples") for name in names} - {"logs"}
    if len(sources) > 1:
        raise ValueError(f"{', '.join(names)} do not come together: they are of {' and '.join(sorted(sources))}")
    return sources.pop() if sources else "logs"
