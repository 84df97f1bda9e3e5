"""DiffusionBlocks: every block of layers is a denoiser of its own range of noise levels, trained alone (section 3)."""

import math
from functools import partial
from typing import Literal

import torch
from torch import nn

from diffusionblocks.diffusion import partition as parts
from diffusionblocks.diffusion.ancestral import ancestral, masking_levels
from diffusionblocks.diffusion.noise import MASK, NOISES, inference_sigmas, karras_sigmas
from diffusionblocks.diffusion.solvers import SOLVERS, Step, block_by_block, euler, follow, guide


class Method(nn.Module):
    """Block-wise training of a network of the `model` contract (docs/extending.md).

    sharing: `independent` gives each block a network of its own with its own copies of the small modules around the
    layers, so its training process holds nothing of any other block; `joint` is the official protocol, one network in
    one process, a random block per step, the small modules shared.
    loss_weight: `per_sample` is the paper's mean(w loss); `decoupled` is mean(w) mean(loss), what the official code
    computes through a broadcast; `none` leaves the weight out.
    target_norm, p_mean, sigma_min: length of a discrete target's embedding, mean of log sigma, and the lowest sigma, at
    which a chain ends; they set how loud the noise is. A network whose `noise_kind` is "masking" has none of them; its
    levels are masking rates.
    """

    needs = ("condition", "target", "predict", "loss", "to_z")  # of a network

    def __init__(
        self,
        build_model,
        part=None,
        *,
        num_blocks=3,
        layers_per_block=None,
        sharing: Literal["independent", "joint"] = "independent",
        partition: Literal["equi_probability", "uniform", "log_uniform"] = "equi_probability",
        overlap=0.05,
        loss_weight: Literal["decoupled", "per_sample", "none"] = "decoupled",
        target_norm=1.0,
        p_mean=-1.2,
        sigma_min=0.002,
    ):
        super().__init__()
        if target_norm <= 0:
            raise ValueError(f"target_norm must be above 0, and is {target_norm}")
        self.masking = getattr(build_model.func, "noise_kind", "edm") == "masking"
        if self.masking and (target_norm, p_mean, sigma_min) != (1, -1.2, 0.002):
            raise ValueError("a network with masking noise takes none of target_norm, p_mean and sigma_min")
        self.noise = NOISES["masking"]() if self.masking else NOISES["edm"](p_mean=p_mean, sigma_min=sigma_min)
        self.loss_weight, self.sharing = loss_weight, sharing
        self.boundaries = parts.boundaries(num_blocks, partition, self.noise)
        self.intervals = [parts.interval(self.boundaries, block, overlap, self.noise) for block in range(num_blocks)]
        self.layers = parts.split_layers(build_model.keywords["num_layers"], num_blocks, layers_per_block)
        build_model = partial(build_model, noise=self.noise, target_norm=target_norm)
        self.blocks = list(range(num_blocks))
        if sharing == "joint":
            self.models = nn.ModuleDict({"all": build_model()})
        elif sharing == "independent":
            names = [f"block{block}" for block in self.blocks]
            if part is not None:
                if part not in names:
                    raise ValueError(f"part {part!r} is not one of {', '.join(names)}")
                self.blocks = [names.index(part)]
            self.models = nn.ModuleDict(
                {names[block]: build_model(num_layers=len(self.layers[block])) for block in self.blocks}
            )
        else:
            raise ValueError(f"sharing must be independent or joint, not {sharing!r}")
        self.z_shape = next(iter(self.models.values())).z_shape

    def _network(self, block):
        """The network that holds a block, and the block's layers in it."""
        if self.sharing == "joint":
            model = self.models["all"]
            return model, model.layers[self.layers[block].start : self.layers[block].stop]
        model = self.models[f"block{block}"]
        return model, model.layers

    def loss(self, batch, block):
        """Denoising loss of one block on a batch.

        Returns the objective (scalar), the unweighted losses (N,) and their levels (N,). The block is an index that the
        caller drew; it is never inferred from the levels, which with an overlap may lie in a neighbour's interval.
        """
        model, layers = self._network(block)
        z0 = model.target(batch)
        u = self.noise.spread(torch.rand(len(z0), dtype=torch.float64, device=z0.device))
        sigma = self.noise.sample(u, *self.intervals[block]).float()
        z = self.noise.corrupt(z0, sigma, self.noise.randomness(z0))
        losses = model.loss(model.predict(z, sigma, model.condition(batch), layers), batch, z)
        weight = self.noise.weight(sigma)
        objective = {
            "decoupled": lambda: weight.mean() * losses.mean(),
            "per_sample": lambda: (weight * losses).mean(),
            "none": lambda: losses.mean(),
        }[self.loss_weight]()
        return objective, losses.detach(), sigma

    def owner(self, level):
        """Index of the block that acts at a level."""
        return parts.owner(self.boundaries, level)

    def _levels(self, num_steps, grid="equi_probability"):
        """The descending sigmas of inference, by default one per block (appendix H), and the block that owns each."""
        num_steps = len(self.blocks) if num_steps is None else num_steps
        sigmas = {"equi_probability": inference_sigmas, "karras": karras_sigmas}[grid](num_steps, self.noise)
        return sigmas, [self.owner(sigma) for sigma in sigmas]

    def _to_z(self, prediction, block, hand_off="soft"):
        model = self._network(block)[0]
        return model.to_z(prediction, hard=True) if hand_off == "hard" else model.to_z(prediction)

    def predict(self, batch, eps, *, num_steps=None, from_target=False, hand_off: Literal["soft", "hard"] = "soft"):
        """Steps of the chain that starts at sigma_max eps and ends at sigma_min; the last prediction is the answer.

        eps: (N, *z_shape) standard normal. num_steps: network evaluations, by default one per block (appendix H).
        from_target: each level sees the true target under noise instead of the chain's own z, which shows how well a
        block denoises where it was trained. hand_off: the mean embedding of a discrete target, or the likeliest one's.
        """
        sigmas, owners = self._levels(num_steps)
        conditions = {block: self._network(block)[0].condition(batch) for block in set(owners)}

        def predict(z, sigma, block):
            model, layers = self._network(block)
            return model.predict(z, z.new_full((len(z),), sigma), conditions[block], layers)

        if not from_target:
            to_z = partial(self._to_z, hand_off=hand_off)
            return list(follow(euler(eps * sigmas[0], sigmas, owners, to_z), predict))
        steps = []
        for sigma, block in zip(sigmas, owners, strict=True):
            z0 = self._network(block)[0].target(batch)
            z = self.noise.corrupt(z0, eps.new_full((len(eps),), sigma), eps)
            steps.append(Step(sigma, block, predict(z, sigma, block)))
        return steps

    def scores(self, step, batch):
        """What a text model's Step scores on the true tokens: its network's `scores`."""
        return self._network(step.block)[0].scores(step.prediction, batch)

    def bound(self, batch, u, eps):
        """The NELBO of each sequence under a masked diffusion model, at one level t each (N,), in nats per token.

        u: (N,) levels in [0, 1), each scored by the block that owns it, on the exact intervals: whatever the overlap in
        training, the mean over u is the bound of the composed model. eps: (N, seq_len) uniforms, which tokens go.
        Each contains MD4's reconstruction term.
        """
        z0 = self.models[next(iter(self.models))].target(batch)
        z = self.noise.corrupt(z0, u, eps)
        owners = torch.tensor([self.owner(t) for t in u.tolist()], device=u.device)
        bound = torch.empty_like(u)
        for block in owners.unique().tolist():
            model, layers = self._network(block)
            mine = owners == block
            part = {name: value[mine] for name, value in batch.items()}
            prediction = model.predict(z[mine], u[mine], model.condition(part), layers)
            bound[mine] = self.noise.weight(u[mine]) * model.loss(prediction, part, z[mine])
        return bound + (1 - self.noise.keep(0.0)) * math.log(len(prediction.head))

    def sample(
        self,
        batches,
        eps,
        device,
        *,
        num_steps=50,
        guidance=1.0,
        solver: Literal["euler", "heun"] = "euler",
        grid: Literal["equi_probability", "karras"] = "equi_probability",
        masking_grid: Literal["cosine", "uniform"] = "cosine",
    ):
        """Generate; yields (index of the batch, Step) of every network evaluation, of each batch in its order.

        batches: what is known of each (a dictionary with `label`), on `device`; eps: what `randomness` asks for, for
        each. A batch's last Step holds its samples. All batches pass through a block before the next block
        starts, and only the network that acts is on the device: with independent blocks, a B-th of the whole.
        guidance: weight of classifier-free guidance; 1 is the conditional model, without a second evaluation.
        grid: levels at equal quantiles of the noise distribution (appendix H), or those of Karras et al. (2022);
        masking_grid, for masking noise: MD4's cosine of equal steps, or equal steps.
        """
        if self.masking:
            levels = masking_levels(num_steps, masking_grid)
            owners = [self.owner(t) for t in levels]
            start = [torch.full(draws.shape[::2], MASK, device=device) for draws in eps]
            chains = [ancestral(z, levels, owners, draws) for z, draws in zip(start, eps, strict=True)]
        else:
            sigmas, owners = self._levels(num_steps, grid)
            # The state of the solver is kept in double precision, as in EDM's sampler.
            chains = [SOLVERS[solver](noise.double() * sigmas[0], sigmas, owners, self._to_z) for noise in eps]
        resident = None

        def predictor(block):
            nonlocal resident
            model, layers = self._network(block)
            if resident is not None and resident is not model:
                resident.to("cpu")
            resident = model.to(device)

            def predict(index, z, level):
                cond = model.condition(batches[index])
                z = z if self.masking else z.float()
                level = torch.full((len(z),), level, dtype=torch.float32, device=z.device)
                network = partial(model.predict, layers=layers)
                if guidance == 1:
                    return network(z, level, cond)
                return guide(network, z, level, cond, model.unconditional(batches[index]), guidance)

            return predict

        return block_by_block(chains, predictor)

    def extend(self, tokens, eps, draws, *, num_steps=None, hand_off: Literal["soft", "hard"] = "soft"):
        """Texts (N, length) that go on from `tokens` (N, P), token by token, each a chain of denoisers, its end greedy.

        eps: (N, length, width) standard normal, position by position; draws: uniforms, which this method needs not.
        num_steps: levels per token, by default one per block. hand_off: as for `predict`. Every block keeps a cache of
        its own: it sees the tokens before through its own layers alone.
        """
        sigmas, owners = self._levels(num_steps)
        length = eps.shape[1]
        sessions = {}
        for block in set(owners):
            model, layers = self._network(block)
            sessions[block] = model.begin(tokens, layers, length, eps)
        to_z = partial(self._to_z, hand_off=hand_off)
        while tokens.shape[1] < length:
            chain = euler(eps[:, tokens.shape[1]] * sigmas[0], sigmas, owners, to_z)
            *_, last = follow(chain, lambda z, sigma, block: sessions[block].predict(z, sigma, sigmas.index(sigma)))
            chosen = last.prediction.argmax()
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            for session in sessions.values():
                session.append(chosen)
        return tokens
