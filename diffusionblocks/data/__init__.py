"""Data sets: loaders that prepare them once, and the form in which training and evaluation read them."""
