"""Ways through the space of weights: the line between two points, the plane of a path, and random directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.study.parts import EMBEDDINGS, part_of

if TYPE_CHECKING:
    from training.study.course import Course, Weights


def between(start: Weights, end: Weights, share: float) -> Weights:
    """Return the weights on the straight line; 0 gives exactly the start, 1 exactly the end, others lie beyond."""
    return {name: (1 - share) * weight + share * end[name] for name, weight in start.items()}


def beside(point: Weights, first: Weights, second: Weights, x: float, y: float) -> Weights:
    """Return the weights x along the first and y along the second direction from a point; 0 and 0 give exactly it."""
    moved = dict(point)
    for share, direction in ((x, first), (y, second)):
        if share:
            moved |= {name: moved[name] + share * way for name, way in direction.items()}
    return moved


def filter_normalised(point: Weights, *, seed: int) -> Weights:
    """
    Draw a random direction in which each neuron's weights are as long as those of the point (Li et al. 2018).

    Every row of a matrix is a neuron. Biases and layer norms, which are no matrices, stay as they are, as there; so do
    the embedding tables, which not every run trains.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in point.items():
        if weight.dim() < 2 or part_of(name).block == EMBEDDINGS:
            continue
        drawn = torch.randn(weight.shape, generator=generator)
        direction[name] = drawn * (weight.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True))
    return direction


@dataclass(frozen=True)
class Plane:
    """The plane through the end of a path that holds as much of the path as any."""

    first: Weights  # of length 1, at right angles to the second
    second: Weights
    path: list[tuple[float, float]]  # where the points of the path lie, seen straight from above; the end is at (0, 0)
    shares: tuple[float, float]  # of the squared distances of the path's points to its end, along each direction


def plane_of(course: Course) -> Plane:
    """
    Return the plane of the first two principal directions of a path, seen from its end (Li et al. 2018, section 7).

    The distances are between weights as they are. They are not centered, so that the end is in the plane.
    """
    count = len(course.steps) - 1
    gram = np.zeros((count, count))
    for _, (*points, last) in course.each():
        ways = torch.stack([(point - last).flatten() for point in points])
        gram += (ways @ ways.T).double().numpy()
    values, vectors = np.linalg.eigh(gram)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    mixes = np.zeros((2, count))
    for k in range(min(2, count)):
        if values[k] > 1e-12 * values[0]:
            mixes[k] = vectors[:, k] / np.sqrt(values[k])
    if gram[0] @ mixes[0] > 0:
        mixes[0] *= -1  # the path comes from the left
    first: Weights = {}
    second: Weights = {}
    for name, (*points, last) in course.each():
        for mix, direction in zip(mixes, (first, second), strict=True):
            direction[name] = sum(
                (float(share) * (point - last) for share, point in zip(mix, points, strict=True)),
                torch.zeros_like(last),
            )
    places = [[*(gram @ mix).tolist(), 0.0] for mix in mixes]
    total = float(values.sum()) or 1.0
    shares = [float(value) / total for value in (*values, 0.0)][:2]
    return Plane(first, second, list(zip(*places, strict=True)), (shares[0], shares[1]))


def around(low: float, high: float, count: int) -> list[float]:
    """Return about so many evenly spaced places from at most `low` to at least `high`, 0 exactly among them."""
    step = (high - low) / max(1, count - 1) or 1.0
    first, last = -int(np.ceil(max(0.0, -low) / step - 1e-9)), int(np.ceil(max(0.0, high) / step - 1e-9))
    return [number * step for number in range(first, last + 1)]
