"""Teachers made here, of documents that are in neither split."""

from diffusionblocks.base.files import UserError
from diffusionblocks.scorers import ngram as counting
from diffusionblocks.scorers import small_lm as training
from diffusionblocks.scorers.teachers.base import Teacher


def small_lm(*, width: int = 96, num_layers: int = 1, steps: int = 300) -> Teacher:
    """A small recurrent network trained here, on documents in neither split; `width` features, and likelihoods."""

    def obtain(text, data_dir):
        weights = training.train(_set_aside(text), text.shape["vocab_size"], width, num_layers, steps)
        return weights, {"vocab_size": text.shape["vocab_size"], "blind": "hardly see the order of tokens"}

    def build(weights, about):
        network = training.SmallLM(about["vocab_size"], width, num_layers)
        network.load_state_dict(weights)
        return network.to(weights["bias"].device).eval().requires_grad_(False)

    return Teacher("small language model trained on the data", obtain, build)


def ngram(*, order: int = 7) -> Teacher:
    """An n-gram of characters a to z and space, counted on documents in neither split; likelihoods by character."""

    def obtain(text, data_dir):
        return counting.count(text.decode(_set_aside(text)), order), {}

    def build(weights, about):
        return counting.NGram(weights)

    return Teacher(f"{order}-gram of characters", obtain, build, gives=("nll",))


def _set_aside(text):
    if len(text.teacher_tokens) == 0:
        raise UserError(f"{text.title} sets no documents aside for a teacher: take a pretrained one")
    return text.teacher_tokens
