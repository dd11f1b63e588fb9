"""Adapters to the trainers that host GCPO; the only modules that import them."""
