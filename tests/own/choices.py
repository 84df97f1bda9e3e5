"""A user's own solver, partitions and grids."""


def straight(z, sigmas, owners, to_z):
    """One step from the first level to the last, by way of no other."""
    prediction = yield z, sigmas[0], owners[0]
    ratio = sigmas[-1] / sigmas[0]
    denoised = to_z(prediction, owners[0])
    yield denoised + ratio * (z - denoised), sigmas[-1], owners[-1]


def quiet(noise, q):
    """More blocks at low noise."""
    return noise.quantile(q**2)


def upside_down(noise, q):
    return noise.quantile(1 - q)


def flat(noise, q):
    return noise.quantile(min(1, 2 * q))


def beyond(noise, q):
    return 2 * noise.quantile(q)


def halves(noise, num_steps):
    return [noise.highest * 0.5**i for i in range(num_steps - 1)] + [noise.lowest]


def rising(noise, num_steps):
    return noise.levels(num_steps)[::-1]


def short(noise, num_steps):
    return noise.levels(num_steps - 1)


def elsewhere(noise, num_steps):
    return [2 * sigma for sigma in noise.levels(num_steps)]
