"""Labelled sentences to a model folder: the only package that imports torch, transformers and optimum."""
