"""A stand-in for SWE-agent 1.1, which is in no registry: the same command line, the same steps."""

__version__ = "1.1.0"
