"""Names of the image augmentations that `train.augment` may hold: planning checks them without torch.

What each does stands in data/images/augment.py.
"""

AUGMENTATIONS = ("crop", "resized_crop", "flip", "randaugment")
