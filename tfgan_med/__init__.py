"""Train GANs on small image sets and measure whether the images they make help."""

__version__ = "0.1.0"
