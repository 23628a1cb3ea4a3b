"""Errors that the person who meets them can act on: what was found, what was expected, what to do."""

from dataclasses import dataclass


class BertrandError(Exception):
    """Base of every error whose one-line message is all that a user needs."""


class InputError(BertrandError):
    """Something handed to a command or function is not what it takes."""


class ArtifactError(BertrandError):
    """A model folder is missing, incomplete, altered or made for another version."""


@dataclass(frozen=True, slots=True)
class TextError:
    """Why one text has no answer; a value, because the texts beside it have theirs."""

    code: str  # text_empty | text_invalid
    message: str
