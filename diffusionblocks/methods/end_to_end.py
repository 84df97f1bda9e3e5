"""Ordinary training: one network, one loss, gradients through every layer."""

from torch import nn

from diffusionblocks.sampling import Step


class Method(nn.Module):
    """Train the plain network as a whole; it has one block, and its prediction is one network evaluation."""

    needs = ("end_to_end_loss", "end_to_end_prediction")  # of a network
    blocks = (0,)
    boundaries = None
    z_shape = None  # no noise goes in

    def __init__(self, build_model, part=None):
        super().__init__()
        self.models = nn.ModuleDict({"all": build_model()})

    def loss(self, batch, block):
        """(objective, logged values) of a batch; logged are per-sample losses (N,) and their levels, here none."""
        losses = self.models["all"].end_to_end_loss(batch)
        return losses.mean(), losses.detach(), None

    def predict(self, batch, eps=None):
        """The single Step of a network without noise."""
        return [Step(None, None, self.models["all"].end_to_end_prediction(batch))]
