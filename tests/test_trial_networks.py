"""`try`: each fault of a user's own model or method gets one message that names file, member and cure."""

import pytest
from users import BLOCKS, METHOD, MODEL, TEXT, edited, refusal


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        # What the contract itself tells
        ([("read(x, layers)", "read(x, layers)[:, None]")], ["`loss` fails on a small batch"]),
        ([('reduction="none"', 'reduction="mean"')], ["`loss` gives float32 (), not one floating-point loss for each"]),
        ([('dim=1)[batch["label"]]', 'dim=1).double()[batch["label"]]')], ["`target` gives float64 (2, 24)"]),
        ([("return self.target_norm *", "return self.labels.weight.long()[batch['label']]  #")],
         ["`target` gives int64 (2, 24)"]),
        ([("target_norm, (width,)", "target_norm, (width, 2)")], ["`target` gives float32 (2, 24)", "z_shape"]),
        ([("return logits.softmax(dim=1)", "return logits.argmax(dim=1)  #")], ["`to_z` gives int64 (2,)"]),
        ([("read(x, layers)", "read(x, self.layers)")], ["`layers` are run beyond those that `predict` is given"]),
        ([("read(x, layers)", "read(x, layers[1:])")], ["`layers` are not all run: layer 0 has no gradient"]),
        ([("num_layers=3, width", "depth=3, width"), ("range(num_layers)", "range(depth)")],
         ["`__init__` does not take (shape, num_layers=", "num_layers"]),
        # What follows it
        ([("self, shape, noise=None, target_norm=1.0, *,", "self, noise=None, target_norm=1.0, *, shape=None,")],
         ["`__init__` takes (noise, target_norm); its first argument must be `shape`"]),
        ([("(base.Model)", "(nn.Module)")], ["class Model must derive from diffusionblocks.models.base.Model"]),
        ([('shape["channels"]', 'shape["depth"]')], ["own asks for shape['depth'], and of images there are"]),
        ([("self.condition(batch), self.layers)", "self.condition(batch), self.layers)[:, :5]")],
         ["`end_to_end_prediction` gives (2, 5), not finite class logits (2, 10) or images (2, 1, 8, 8)"]),
        ([("return F.cross_entropy(", "return float('inf') * F.cross_entropy(")],
         ["with diffusionblocks", "are not all finite at the first update"]),
        ([("def end_to_end_loss", "def _loss"), ("def to_z", "def _to_z")],
         ["no method can train it", "diffusionblocks needs to_z", "end_to_end needs end_to_end_loss"]),
        ([("self.condition(batch), self.layers)", "self.condition(batch['images']), self.layers)")],
         ["`end_to_end_loss` fails on a small batch: KeyError: 'images'"]),
        ([("return self.read(self.condition(batch), self.layers)",
           "return self.read(self.condition(batch), self.layers if self.training else self.layer)")],
         ["`end_to_end_loss` fails on a small batch: AttributeError: 'Model' object has no attribute 'layer'"]),
        ([("        super().__init__()\n", "        super().__init__()\n        raise ValueError('no such size')\n")],
         ["with diffusionblocks, sharing joint: refused", "no such size"]),
        ([("    def __init__(", "    noise_kind = 'gamma'\n\n    def __init__(")],
         ["`noise_kind` is 'gamma', not one of edm, masking"]),
    ],
)  # fmt: skip
def test_a_models_faults(own, edits, words):
    name = own(edited(MODEL, *edits))
    message = refusal(name)
    assert own.file in message, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("member", "arguments", "code", "words"),
    [
        ("scores", "prediction, batch", "return super().scores(prediction, batch)[:2]", "`scores` must give three"),
        ("agreement", "prediction, other", "return 2 + super().agreement(prediction, other)", "must give chances"),
        ("agreement", "prediction, other", "return super().agreement(prediction, other).sum()", "must give chances"),
        ("begin", "tokens, layers, length, eps", "return super().begin(tokens, layers, length, 1 / 0)", "line 10: "),
    ],
)
def test_a_text_models_faults(own, member, arguments, code, words):
    message = refusal(own(TEXT.format(member=member, arguments=arguments, code=code)))
    assert own.file in message and words in message, message


# Methods


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (edited(METHOD, ("losses.mean(), losses", "losses, losses")), ["`loss` has an objective that"]),
        (edited(METHOD, ("losses.detach()", "losses.detach().mean()")), ["`loss` gives", "()"]),
        (edited(METHOD, ("losses.mean(), losses.detach(), None", "losses.mean(), losses.detach(), losses[:1]")),
         ["`loss` gives levels float32 (1,) for 2 samples"]),
        (METHOD + "\n    def predict(self, batch, eps=None):\n        return super().predict(batch)[0].prediction\n",
         ["`predict` must give a list"]),
        (METHOD + "\n    needs = ('end_to_end_los',)\n",
         ["needs end_to_end_los, of which the contract of a model knows nothing"]),
        (METHOD + "\n    needs = ('label_table', 'patch_token')\n",
         ["no model of this package offers all it needs: label_table, patch_token"]),
        (METHOD + "\n    def __init__(self, network):\n        super().__init__(network)\n",
         ["`__init__` takes (network); it must take (network, part, *, ...)"]),
        (METHOD.replace("(end_to_end.Method)", "(torch.nn.Module)"),
         ["class Method must derive from diffusionblocks.methods.base.Method"]),
        (METHOD.replace("losses = ", "1 / 0\n        losses = "), ["ZeroDivisionError"]),
    ],
)  # fmt: skip
def test_a_methods_faults(own, source, words):
    name = own(source)
    message = refusal(name)
    assert own.file in message, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("needs", "member", "arguments", "code", "words"),
    [
        ("'predict', 'unconditional'", "sample", "batches, eps, device, *, num_steps",
         "*_, (_, last) = super().sample(batches, eps, device)\n"
         "        return [(0, last._replace(prediction=last.prediction[:, 0]))]",
         "`sample` ends with (2, 8, 8), and not with (2, 1, 8, 8)"),
        ("'predict', 'begin'", "extend", "tokens, eps, draws", "return super().extend(tokens, eps, draws)[:, 1:]",
         "`extend` gives (2, 5), and not the prompts with what follows them"),
        ("'predict', 'scores'", "bound", "batch, u, eps", "return super().bound(batch, u, eps).mean()",
         "`bound` gives (), not a finite number for each text"),
    ],
)  # fmt: skip
def test_a_generators_faults(own, needs, member, arguments, code, words):
    message = refusal(own(BLOCKS.format(needs=needs, member=member, arguments=arguments, code=code)))
    assert own.file in message and words in message, message
