"""At which levels of EDM's noise a chain evaluates its networks, found by name; one file each.

A grid is a function (noise, num_steps), num_steps at least 2: as many sigmas, which fall from noise.highest to
noise.lowest. Which block acts at each follows from the partition. Standard library only, so that planning can use it.
"""
