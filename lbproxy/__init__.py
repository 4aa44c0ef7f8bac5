"""lbproxy: a load balancer that supervises its backends and replaces them without a client noticing."""

__version__ = "0.1.0"
