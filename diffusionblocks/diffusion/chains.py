"""The reverse process of several batches: chains of network evaluations, each level by the block that owns it.

A chain is a coroutine: it yields what it wants predicted, (z, level, block), and is sent the prediction. That buys one
thing: `block_by_block` can hold all chains at the border of a block, so that a block is loaded once and alone. Where
all blocks are there anyway, methods have a plain loop.
"""

import contextlib
from collections import namedtuple
from collections.abc import Callable, Generator, Iterator

import torch

Step = namedtuple("Step", "sigma block prediction")
Step.__doc__ = (
    "One network evaluation: its level, the block that acted (None where there are no blocks), what it predicted."
)


def block_by_block(chains: list[Generator], predictor: Callable) -> Iterator[tuple[int, Step]]:
    """Drive chains together: all that block 0 does in any of them, then all that block 1 does, and so on.

    So a block is needed once, and no two at a time. predictor(block) gives a function (index of the chain, z, sigma) ->
    prediction. Yields (index of the chain, Step); of each chain in its order. The last Step has a chain's answer: the
    last prediction, or what the chain returns (tokens, where a network predicts logits).
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
def layers_run(method: torch.nn.Module) -> Iterator[list]:
    """A list that has grown, at the end, by one entry for each layer of a method's networks that was run in between:

    whether it was run with gradients.
    """
    ran = []
    layers = [layer for model in method.models.values() for layer in model.layers]
    hooks = [layer.register_forward_hook(lambda *_: ran.append(torch.is_grad_enabled())) for layer in layers]
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


def guide(
    predict: Callable,
    z: torch.Tensor,
    sigma: torch.Tensor,
    cond: torch.Tensor,
    unconditional: torch.Tensor,
    guidance: float,
) -> torch.Tensor:
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
