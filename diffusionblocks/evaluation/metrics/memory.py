"""What an update needs of memory and arithmetic, counted and not measured (appendix G, section 5.5).

counted, compared: what evaluation/count.py counts of an update of the row, and of the row that it is compared with.
"""

from diffusionblocks.base.files import UserError
from diffusionblocks.evaluation.metric import metric

MB = 1e6


@metric(unit="MB", better="lower", beside=True)
def parameter_memory(counted: dict) -> float:
    """Of the parameters of a training process."""
    return counted["parameters"] / MB


@metric(unit="MB", better="lower", beside=True)
def gradient_memory(counted: dict) -> float:
    """Of their gradients."""
    return counted["gradients"] / MB


@metric(unit="MB", better="lower", beside=True)
def optimizer_memory(counted: dict) -> float:
    """Of the optimizer's state: AdamW's two moments, or Adafactor's second in rows and columns."""
    return counted["optimizer"] / MB


@metric(unit="MB", better="lower", beside=True)
def average_memory(counted: dict) -> float:
    """Of the averaged weights (EMA), which the paper's 4P leaves out."""
    return counted["average"] / MB


@metric(unit="MB", better="lower", beside=True)
def activation_memory(counted: dict) -> float:
    """Of what the backward pass of a micro-batch needs."""
    return counted["activations"] / MB


@metric(unit="MB", better="lower", beside=True)
def peak_memory(counted: dict) -> float:
    """The most at a time in an update, the data set not among it."""
    return counted["peak"] / MB


@metric(unit="MB", better="lower", beside=True)
def memory_around_layers(counted: dict) -> float:
    """Parameters, gradients and moments of what is no layer: embeddings, conditioning, head. Every block has its own,
    so no cut into blocks makes them fewer; of what is frozen there are the parameters alone."""
    layers = counted["layers"]
    around = 2 * (counted["parameters"] - layers["parameters"]) - counted["frozen"]
    return (around + counted["moments"] - layers["moments"]) / MB


@metric(unit="MB", better="lower", beside=True)
def memory_by_formula(counted: dict, compared: dict) -> float:
    """Appendix G's: (4P + A) L end to end, over B in blocks, 4PL + A with checkpointing, 4PL/B + A with both.

    P and A are the mean bytes of parameters and of activations of a layer of `compared`, A in the row's micro-batches.
    4 is of AdamW: one of parameters, one of gradients, and as many of moments as the row's optimizer has.
    """
    layers, own = compared["layers"], counted["layers"]
    a_layer = layers["activations"] / layers["run"] * counted["micro_batch"] / compared["micro_batch"]
    kept = 1 if counted["checkpointing"] else own["run"]
    copies = 2 + own["moments"] / own["parameters"]
    return (copies * layers["parameters"] / layers["held"] * own["held"] + a_layer * kept) / MB


@metric(unit="×", better="higher")
def state_factor(counted: dict, compared: dict) -> float:
    """How many times fewer bytes of parameters, gradients, moments and averages than `compared`."""
    return _state(compared) / _state(counted)


@metric(unit="×", better="higher")
def peak_factor(counted: dict, compared: dict) -> float:
    """How many times less memory at the peak of an update than `compared`."""
    return compared["peak"] / counted["peak"]


@metric(unit="GFLOP", better="lower", beside=True)
def gflop_per_sample(counted: dict) -> float:
    """Of a sample, forward and backward, in an update of every block."""
    return counted["flop"] / 1e9


@metric(unit="×", better="lower", beside=True)
def work_factor(counted: dict, compared: dict) -> float:
    """How many times the arithmetic of `compared` it takes to show a sample to every block."""
    return counted["flop"] / compared["flop"]


@metric(better="lower")
def layers_in_chain(chain: dict) -> float:
    """Layers run for a sample, from noise to the answer (appendix H); counted on the method's chain, not computed."""
    return chain["layers"]


@metric(beside=True)
def epochs(counted: dict) -> float:
    """Epochs of training, of the settings."""
    if counted["epochs"] is None:
        raise UserError("metrics of all of training need train.epochs: of steps, what they come to is not known")
    return counted["epochs"]


@metric(better="lower", beside=True)
def passes_forward(counted: dict) -> float:
    """Runs of the layers in an update; more than one of a network that recurs (section 5.5)."""
    return counted["passes"]["forward"]


@metric(better="lower", beside=True)
def passes_backward(counted: dict) -> float:
    """As `passes_forward`, of runs that carry gradients."""
    return counted["passes"]["backward"]


@metric(unit="GFLOP", better="lower", beside=True)
def training_gflop(counted: dict) -> float:
    """Of all of training, for each sample of the data set: its epochs times the arithmetic of an update."""
    return epochs(counted) * counted["flop"] / 1e9


@metric(unit="×", better="higher", beside=True)
def compute_factor(counted: dict, compared: dict) -> float:
    """How many times less arithmetic than `compared` all of training takes."""
    return training_gflop(compared) / training_gflop(counted)


def _state(counted):
    return sum(counted[name] for name in ("parameters", "gradients", "optimizer", "average"))
