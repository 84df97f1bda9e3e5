"""The reverse process: from pure noise down the levels, each level by the block that owns it.

A solver is a coroutine. It yields what it wants predicted, (z, sigma, block), and is sent the prediction; who drives it
decides where and in which order networks run. The last prediction is the answer: the step from sigma_min to 0 is D. A
solver whose answer is another (tokens, where a network predicts logits) returns it, and the last Step has it.
"""

import contextlib
from collections import namedtuple

import torch

from diffusionblocks.diffusion.noise import euler_step

Step = namedtuple("Step", "sigma block prediction")
Step.__doc__ = (
    "One network evaluation: its level, the block that acted (None where there are no blocks), what it predicted."
)


def euler(z, sigmas, owners, to_z):
    """Euler steps down the descending `sigmas` (equations 3-4): one evaluation each.

    owners: the block of each sigma. to_z(prediction, block): the clean target that a prediction stands for, in that
    block's coordinates. Blocks with embedding tables of their own hand over the noise of z alone (`noise.euler_step`),
    so no block needs another's table in training.
    """
    for i, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
        prediction = yield z, sigma, block
        if i + 1 < len(sigmas):
            denoised = to_z(prediction, block)
            handed_on = denoised if owners[i + 1] == block else to_z(prediction, owners[i + 1])
            z = euler_step(z, denoised, sigma, sigmas[i + 1], handed_on)


def heun(z, sigmas, owners, to_z):
    """Heun's second-order steps (Karras et al. 2022, algorithm 1): 2 N - 1 evaluations for N sigmas.

    The correction at the next level is made by the block that owns that level. For targets that all blocks have in
    common, such as images; embedding tables of each block's own have no common slope.
    """
    for i, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
        prediction = yield z, sigma, block
        if i + 1 < len(sigmas):
            following, owner = sigmas[i + 1], owners[i + 1]
            slope = (z - to_z(prediction, block)) / sigma
            ahead = z + (following - sigma) * slope
            correction = yield ahead, following, owner
            z = z + (following - sigma) * (slope + (ahead - to_z(correction, owner)) / following) / 2


SOLVERS = {"euler": euler, "heun": heun}


def follow(chain, predict):
    """Drive one solver to its end. predict(z, sigma, block) is a network evaluation; yields a Step for each."""
    request = next(chain)
    while request is not None:
        z, sigma, block = request
        request, prediction = _send(chain, predict(z, sigma, block))
        yield Step(sigma, block, prediction)


def block_by_block(chains, predictor):
    """Drive solvers together: all that block 0 does in any of them, then all that block 1 does, and so on.

    So a block is needed once, and no two at a time. predictor(block) gives a function (index of the chain, z, sigma) ->
    prediction. Yields (index of the chain, Step); of each chain in its order.
    """
    requests = {index: next(chain) for index, chain in enumerate(chains)}
    while requests:
        block = min(request[2] for request in requests.values())
        predict = predictor(block)
        for index in list(requests):
            while index in requests and requests[index][2] == block:
                z, sigma, _ = requests.pop(index)
                request, prediction = _send(chains[index], predict(index, z, sigma))
                if request is not None:
                    requests[index] = request
                yield index, Step(sigma, block, prediction)


@contextlib.contextmanager
def layers_run(method):
    """A list that has grown, at the end, by one entry for each layer of a method's networks that was run in between."""
    ran = []
    layers = [layer for model in method.models.values() for layer in model.layers]
    hooks = [layer.register_forward_hook(lambda *_: ran.append(None)) for layer in layers]
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


def guide(predict, z, sigma, cond, unconditional, guidance):
    """Classifier-free guidance on the denoised target: D = D_null + guidance (D_cond - D_null), in one evaluation.

    All channels are guided (DiT's code guides three). predict(z, sigma, cond); sigma: (N,).
    """
    both = predict(torch.cat([z, z]), torch.cat([sigma, sigma]), torch.cat([cond, unconditional]))
    conditional, null = both.chunk(2)
    return null + guidance * (conditional - null)


def _send(chain, prediction):
    """(The solver's next request, or None when it has ended; the prediction, or the answer it has returned then.)"""
    try:
        return chain.send(prediction), prediction
    except StopIteration as end:
        return None, prediction if end.value is None else end.value
