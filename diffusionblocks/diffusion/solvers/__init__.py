"""Solvers of the reverse process, found by name; one file each.

A solver is a coroutine (z, sigmas, owners, to_z): it starts with z (N, *z_shape), in double precision, at sigmas[0] and
goes down to the last; owners: the block of each. It yields what it wants predicted, (z, sigma, block), and is sent the
prediction; to_z(prediction, block) is the clean target behind it. The last prediction is the answer: the step from
sigma_min to 0 is D.
"""
