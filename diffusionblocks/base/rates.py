"""What an estimate takes for granted, in one place: rates of devices, the share of them that is reached, time limits.

`python -m diffusionblocks estimate` and the key `estimate` of config.yaml can say otherwise. Standard library only.
"""

import re
from typing import NamedTuple

from diffusionblocks.base.files import UserError, suggest


class Rates(NamedTuple):
    """The most TFLOP/s of dense matrix products: of bfloat16, and of float32 (on a GPU as TF32, as base/device.py)."""

    bf16: float
    fp32: float


# NVIDIA's data sheets of the SXM modules, without sparsity (a half of what is printed with it); the L40S and the
# workstation's cards by theirs. cpu: one core with two units for eight fused multiply-adds at 3 GHz, 2 x 8 x 2 x 3.
DEVICES = {
    "h100": Rates(989, 495),
    "h200": Rates(989, 495),
    "b200": Rates(2250, 1125),
    "a100": Rates(312, 156),
    "l40s": Rates(362, 183),
    "cpu": Rates(0.096, 0.096),
}
# Which one is meant where nobody says: scale `demo` is made for CPUs.
DEVICE, DEVICE_ON_A_CPU = "h100", "cpu"
# Of the rate, in a large update; small ones reach far less (docs/measurements.md: 9 to 34% of what an H200 reaches).
SHARE = 0.4
RUNTIME = 1440  # minutes until a training's time limit, where no profile says it
# Of what is there in float32 beyond weights, gradients, moments and averages, so much in bf16: 0.55 to 0.63 in the six
# networks of docs/measurements.md.
BF16_MEMORY = 0.6
# Of the real images' 2,048 features: mean, covariance in double precision and 10,000 of them, for training and test.
FEATURES_BYTES = 2 * (8 * 2048 * 2049 + 4 * 10_000 * 2048)
# Bytes of the weights that the hub has of the paper's teachers.
TEACHERS = {"gpt2_large": 3.2e9, "gpt2_xl": 6.4e9, "llama2_7b": 13.5e9}


def rates(device: str) -> Rates:
    """Raises UserError for a device whose rates are not known."""
    if device not in DEVICES:
        raise UserError(f"estimate: device {device!r} is not one of {', '.join(DEVICES)}{suggest(device, DEVICES)}")
    return DEVICES[device]


def seconds(flop: float, device: str, precision: str, share: float) -> float:
    """Time for so many operations at a share of a device's rate. precision: bf16 or fp32."""
    return flop / (share * 1e12 * getattr(rates(device), precision))


def device_of(hardware: str) -> str | None:
    """The device that a name of hardware (base/provenance.py) stands for; None for one whose rates are not known."""
    words = hardware.lower().replace("-", " ").split()
    found = next((device for device in DEVICES if device in words), None)
    return found or ("cpu" if words and words[-1] in ("thread", "threads") else None)


def number_in(hardware: str) -> int:
    """How many devices a name of hardware stands for: a processor's threads, one GPU."""
    found = re.search(r"(\d+) threads$", hardware)
    return int(found[1]) if found else 1
