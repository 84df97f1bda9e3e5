"""DiffusionBlocks: every block of layers is a denoiser of its own range of noise levels, trained alone (section 3)."""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from diffusionblocks.diffusion import partition as parts
from diffusionblocks.diffusion.chains import Step, block_by_block, guide
from diffusionblocks.diffusion.edm import hand_over
from diffusionblocks.layers.vocabulary import nucleus
from diffusionblocks.methods import base


class Method(base.Method):
    """Block-wise training of a network of the contract `models.base`.

    sharing: `independent` gives each block a network of its own with its own copies of the small modules around the
    layers, so its training process holds nothing of any other block; `joint` is the official protocol, one network in
    one process, a random block per step, the small modules shared.
    loss_weight: `per_sample` is the paper's mean(w loss); `decoupled` is mean(w) mean(loss), what the official code
    computes through a broadcast, with the w of the whole update; `none` leaves the weight out.
    target_norm, p_mean, sigma_min, sigma_max: length of a discrete target's embedding, mean of log sigma, and the ends
    of all sigmas, between which chains go; they set how loud the noise is. A network whose `noise_kind` is "masking"
    has none of them; its levels are masking rates. partition: how the noise is cut, a function of diffusion/partitions
    or one's own.
    """

    needs = ("condition", "target", "predict", "loss", "to_z")  # of a network

    def __init__(
        self,
        network: base.Network,
        part: str | None = None,
        *,
        num_blocks: int = 3,
        layers_per_block: list[int] | None = None,
        sharing: Literal["independent", "joint"] = "independent",
        partition: str = "equi_probability",
        overlap: float = 0.05,
        loss_weight: Literal["decoupled", "per_sample", "none"] = "decoupled",
        target_norm: float = 1.0,
        p_mean: float = -1.2,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ):
        super().__init__()
        self.noise = network.noise.of_options(target_norm, p_mean, sigma_min, sigma_max)
        self.loss_weight, self.sharing = loss_weight, sharing
        self.boundaries = parts.boundaries(num_blocks, partition, self.noise)
        self.intervals = [parts.interval(self.boundaries, block, overlap, self.noise) for block in range(num_blocks)]
        self.layers = parts.split_layers(network.num_layers, num_blocks, layers_per_block)
        build = partial(network.build, noise=self.noise, target_norm=target_norm)
        self.blocks = list(range(num_blocks))
        if sharing == "joint":
            self.models = nn.ModuleDict({"all": build()})
        else:
            names = [f"block{block}" for block in self.blocks]
            if part is not None:
                if part not in names:
                    raise ValueError(f"part {part!r} is not one of {', '.join(names)}")
                self.blocks = [names.index(part)]
            self.models = nn.ModuleDict(
                {names[block]: build(num_layers=len(self.layers[block])) for block in self.blocks}
            )
        self.z_shape = next(iter(self.models.values())).z_shape

    def acting(self, block: int) -> tuple[nn.Module, nn.ModuleList]:
        """The network that holds a block, and the block's layers in it."""
        if self.sharing == "joint":
            model = self.models["all"]
            return model, model.layers[self.layers[block].start : self.layers[block].stop]
        model = self.models[f"block{block}"]
        return model, model.layers

    def first_layer(self, name: str) -> int:
        """Which layer of the whole network the first one of a network in `models` is."""
        return 0 if name == "all" else self.layers[int(name.removeprefix("block"))].start

    def training_levels(self, count: int, block: int, device: torch.device) -> Tensor:
        """Levels (count,) that a block trains at, in double precision, drawn for the whole of an update.

        `decoupled` takes the mean weight of all its samples, and masking rates are at equal distances over all.
        """
        u = self.noise.spread(torch.rand(count, dtype=torch.float64, device=device))
        return self.noise.sample(u, *self.intervals[block])

    def loss(
        self, batch: dict, block: int, levels: Tensor | None = None, mine: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Denoising loss of one block on a batch.

        levels: of the update that the batch is a part of, whose samples are at levels[mine]; None for a batch that is
        the whole. Returns the objective (scalar; that of an update is the mean over its batches), the unweighted losses
        (N,) and their levels (N,). The block is an index that the caller drew; it is never inferred from the levels,
        which with an overlap may lie in a neighbour's interval.
        """
        model, layers = self.acting(block)
        z0 = model.target(batch)
        levels = self.training_levels(len(z0), block, z0.device) if levels is None else levels
        sigmas = levels.to(torch.promote_types(z0.dtype, torch.float32))
        sigma = sigmas[mine]
        z = self.noise.corrupt(z0, sigma, self.noise.randomness(z0))
        losses = model.loss(model.predict(z, sigma, model.condition(batch), layers), batch, z)
        weight = self.noise.weight(sigmas)
        objective = {
            "decoupled": lambda: weight.mean() * losses.mean(),
            "per_sample": lambda: (weight[mine] * losses).mean(),
            "none": lambda: losses.mean(),
        }[self.loss_weight]()
        return objective, losses.detach(), sigma

    def owner(self, level: float) -> int:
        """Index of the block that acts at a level."""
        return parts.owner(self.boundaries, level)

    def _levels(self, num_steps, grid):
        """The descending levels of a chain, by default one per block (appendix H), and the block that owns each."""
        levels = self.noise.levels(len(self.blocks) if num_steps is None else num_steps, grid)
        return levels, [self.owner(level) for level in levels]

    def _to_z(self, prediction, block, hand_off="soft"):
        model = self.acting(block)[0]
        return model.to_z(prediction, hard=True) if hand_off == "hard" else model.to_z(prediction)

    def predict(
        self,
        batch: dict,
        eps: Tensor,
        *,
        num_steps: int | None = None,
        from_target: bool = False,
        hand_off: Literal["soft", "hard"] = "soft",
        grid: str = "quantiles",
    ) -> list[Step]:
        """Steps of the Euler chain from sigma_max eps down to sigma_min; the last prediction is the answer.

        eps: (N, *z_shape) standard normal. num_steps: network evaluations, by default one per block (appendix H).
        from_target: each level sees the true target under noise instead of the chain's own z, which shows how well a
        block denoises where it was trained. hand_off: the mean embedding of a discrete target, or the likeliest one's.
        grid: where the levels of a chain lie, a function of diffusion/grids or one's own.
        """
        sigmas, owners = self._levels(num_steps, grid)
        conditions = {block: self.acting(block)[0].condition(batch) for block in set(owners)}
        to_z = partial(self._to_z, hand_off=hand_off)
        z, steps = eps * sigmas[0], []
        for step, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
            model, layers = self.acting(block)
            level = eps.new_full((len(eps),), sigma)
            if from_target:
                z = self.noise.corrupt(model.target(batch), level, eps)
            steps.append(Step(sigma, block, model.predict(z, level, conditions[block], layers)))
            if step + 1 < len(sigmas) and not from_target:
                z = hand_over(z, steps[-1].prediction, step, sigmas, owners, to_z)
        return steps

    def bound(self, batch: dict, u: Tensor, eps: Tensor) -> Tensor:
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
            model, layers = self.acting(block)
            mine = owners == block
            part = {name: value[mine] for name, value in batch.items()}
            prediction = model.predict(z[mine], u[mine], model.condition(part), layers)
            bound[mine] = self.noise.weight(u[mine]) * model.loss(prediction, part, z[mine])
        return bound + self.noise.reconstruction(len(prediction.head))

    def sample(
        self,
        batches: list[dict],
        eps: list[Tensor],
        device: torch.device,
        *,
        num_steps: int = 50,
        guidance: float = 1.0,
        solver: str = "euler",
        grid: str = "quantiles",
    ) -> Iterator[tuple[int, Step]]:
        """Generate; yields (index of the batch, Step) of every network evaluation, of each batch in its order.

        batches: what is known of each (a dictionary with `label`), on `device`; eps: (N, *noise.chain_shape) of each. A
        batch's last Step holds its samples. All batches pass through a block before the next block starts, and only the
        network that acts is on the device: with independent blocks, a B-th of the whole.
        guidance: weight of classifier-free guidance; 1 is the conditional model, without a second evaluation. solver: a
        function of diffusion/solvers or one's own, and grid one of diffusion/grids; masking noise has its own alone.
        """
        levels, owners = self._levels(num_steps, grid)
        chains = [self.noise.chain(draws, levels, owners, self._to_z, solver) for draws in eps]
        resident = None

        def predictor(block):
            nonlocal resident
            model, layers = self.acting(block)
            if resident is not None and resident is not model:
                resident.to("cpu")
            resident = model.to(device)

            def predict(index, z, level):
                cond, draws = model.condition(batches[index]), eps[index]
                z = self.noise.seen(z, draws)
                dtype = z.dtype if z.is_floating_point() else None  # of tokens, draws have more digits than networks
                level = torch.full((len(z),), level, dtype=dtype, device=z.device)
                network = partial(model.predict, layers=layers)
                if guidance == 1:
                    return network(z, level, cond)
                return guide(network, z, level, cond, model.unconditional(batches[index]), guidance)

            return predict

        return block_by_block(chains, predictor)

    def extend(
        self,
        tokens: Tensor,
        eps: Tensor,
        draws: Tensor,
        *,
        num_steps: int | None = None,
        hand_off: Literal["soft", "hard"] = "soft",
        grid: str = "quantiles",
        end: Literal["greedy", "sampled"] = "greedy",
    ) -> Tensor:
        """Texts (N, length) that go on from `tokens` (N, P), token by token, each a chain of denoisers.

        eps: (N, length, width) standard normal, position by position; draws: (N, length) uniforms, read where an end is
        sampled. num_steps: levels per token, by default one per block. hand_off, grid: as for `predict`. end: the
        likeliest token of the last prediction, or one drawn from it, for chains that end at levels where z leaves a
        choice. Every block keeps a cache of its own: it sees the tokens before through its own layers alone.
        """
        sigmas, owners = self._levels(num_steps, grid)
        length = eps.shape[1]
        sessions = {}
        for block in set(owners):
            model, layers = self.acting(block)
            sessions[block] = model.begin(tokens, layers, length, eps)
        to_z = partial(self._to_z, hand_off=hand_off)
        for position in range(tokens.shape[1], length):
            z = eps[:, position] * sigmas[0]
            for step, (sigma, block) in enumerate(zip(sigmas, owners, strict=True)):
                prediction = sessions[block].predict(z, sigma, step)
                if step + 1 < len(sigmas):
                    z = hand_over(z, prediction, step, sigmas, owners, to_z)
            sampled = end == "sampled"
            chosen = nucleus(prediction.full().softmax(-1), draws[:, position], 1) if sampled else prediction.argmax()
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            for session in sessions.values():
                session.append(chosen)
        return tokens

    def check_block(self, batch: dict, block: int) -> None:
        """Meet the members of the network that holds a block one by one, then the block's loss."""
        (model, layers), count = self.acting(block), base.size(batch)
        if model.z_shape is None:
            raise base.broken(model, "z_shape", "is not set, and a denoiser needs it: the shape of one clean target")
        weight = next(model.parameters())
        clean = weight.new_empty((count, *model.z_shape), dtype=torch.long if self.noise.of_tokens else weight.dtype)
        z0 = base.meet(model, "target", batch)
        base.check_target(model, "target", z0, clean)
        level = weight.new_full((count,), sum(self.intervals[block]) / 2)
        z = self.noise.corrupt(z0, level, self.noise.randomness(z0))
        prediction = base.meet(model, "predict", z, level, base.meet(model, "condition", batch), layers)
        base.check_losses(model, "loss", base.meet(model, "loss", prediction, batch, z), count)
        base.check_target(model, "to_z", base.meet(model, "to_z", prediction), clean)
        super().check_block(batch, block)
        training = model.training
        model.eval()
        self._check_heeded(batch, block, z0, level)
        model.train(training)

    @torch.no_grad()
    def _check_heeded(self, batch, block, z0, level):
        """Meet `predict` with one argument changed at a time: a network that ignores it trains without a word."""
        (model, layers), other = self.acting(block), base.rolled(batch)
        noisy = torch.full_like(level, 0.5) if self.noise.of_tokens else level  # at a low rate no token may be masked
        seen, another = (self.noise.corrupt(z, noisy, self.noise.randomness(z)) for z in (z0, z0.roll(1, 0)))
        given = {"z": seen, "level": level, "cond": model.condition(batch), "layers": layers}
        others = {"z": (another, "gives the same for another z")}
        if model.timed and not self.noise.of_tokens:  # of tokens, what is masked tells the level
            high = torch.full_like(level, self.intervals[block][1])
            others["level"] = (
                high,
                "gives the same at every level. If that is meant, say `timed = False` in the class",
            )
        if self.sharing == "joint" and len(self.blocks) > 1:
            others["layers"] = (self.acting((block + 1) % len(self.blocks))[1], "gives the same with other `layers`")
        if base.differ(batch):
            if torch.equal(z0, z0.roll(1, 0)):
                raise base.broken(model, "target", "gives the same for samples that differ")
            others["cond"] = (
                model.condition(other),
                "gives the same under another condition. If nothing is known at inference, give None from `condition`",
            )

        def ask(z, level, cond, layers):
            prediction = model.predict(z, level, cond, layers)
            return model.to_z(prediction), model.loss(prediction, batch, seen)

        base.check_heeded(model, "predict", ask, given, others)
        if base.differ(batch):
            prediction, wrong = model.predict(*given.values()), {"batch": (other, "gives the same whatever is true")}
            base.check_heeded(model, "loss", lambda batch: model.loss(prediction, batch, seen), {"batch": batch}, wrong)

    def check_chain(self, batch: dict) -> None:
        """Meet a chain, where all its blocks are here; of tokens, which `predict` does not serve, a sampled one."""
        if len(self.blocks) < len(self.intervals):
            return
        if not self.noise.of_tokens:
            super().check_chain(batch)
            return
        device = next(self.parameters()).device
        shape = base.size(batch), *self.noise.chain_shape(2, self.z_shape)
        draws = torch.rand(shape, dtype=torch.float64, device=device)
        *_, (_, last) = self.sample([batch], [draws], device, num_steps=2)
        self.to(device)
        base.check_target(next(iter(self.models.values())), "predict", last.prediction, batch["tokens"])
