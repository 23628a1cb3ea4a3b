"""What can go wrong between labelled sentences and a model folder."""

from inference.errors import BertrandError, InputError


class DataError(InputError):
    """A data file is not what training needs; the message names file, line and expectation."""


class BaseModelError(InputError):
    """The pretrained weights cannot be had, or are of a family that is not supported."""


class GateError(BertrandError):
    """A check that a model must pass before it is offered did not pass."""
