"""What sampling and training cost, counted or timed while they ran.

evaluations: {layers, networks: run for an image; num_layers: of a network}. update_cost: {forward, backward: layers run
in a training update}. training: {updates, seconds}, of all parts together.
"""

from diffusionblocks.evaluation.metric import metric


@metric(better="lower", beside=True)
def layer_evaluations(evaluations: dict) -> float:
    """Layers run for an image, a guided pair counted once (appendix H); counted while sampling, not computed."""
    return evaluations["layers"]


@metric(unit="×", better="higher", beside=True)
def relative_speed(evaluations: dict) -> float:
    """How many times fewer layers are run than if all of the network's were at every step (tables 8 and A2)."""
    return evaluations["networks"] * evaluations["num_layers"] / evaluations["layers"]


@metric(better="lower", beside=True)
def layers_forward(update_cost: dict) -> float:
    """Layers run forward in a training update, recurrent passes counted each; counted, not computed (section 5.5)."""
    return update_cost["forward"]


@metric(better="lower", beside=True)
def layers_backward(update_cost: dict) -> float:
    """Layers run backward in a training update; as `layers_forward`."""
    return update_cost["backward"]


@metric(unit="thousands", better="lower", beside=True)
def training_layers(update_cost: dict, training: dict) -> float:
    """Thousands of layers run in all training updates, backward counted twice, since it takes about twice the work."""
    return training["updates"] * (update_cost["forward"] + 2 * update_cost["backward"]) / 1000


@metric(unit="s", beside=True)
def training_seconds(training: dict) -> float:
    """Seconds in training of all parts together, on the hardware that the page names."""
    return training["seconds"]
