"""What the sandbox's rules refuse, as exceptions that know nothing of HTTP.

    SandboxError
    ├── NotAuthenticatedError       no signature, a wrong one, or one that is too old
    │   └── UnknownKeyError         a good signature by a key that nobody registered
    ├── ForbiddenError              the caller may not see or touch this
    ├── NotFoundError               no such project, stage, label row, …
    ├── InvalidArgumentsError       understood, and against the rules
    │   └── MalformedError          not understood: a field is missing or of the wrong type
    ├── AlreadyExistsError          the name or thing is taken
    ├── TooLargeError               more than one request may carry
    ├── LabelLimitError             more label rows than one request may carry
    ├── CorruptedLabelError         a saved label row contradicts its data unit
    ├── FeatureUnknownError         a saved label names a feature that the ontology does not have
    ├── AnswerMissingError          a saved object has no entry in the answer dictionaries
    └── NotEmulatedError            the sandbox does not know this call

How each travels over the wire is a table in `wire.py`.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of everything that the sandbox refuses. `detail` is the sentence for the caller."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotAuthenticatedError(SandboxError):
    """Raised when a request is not signed, or signed wrongly."""


class UnknownKeyError(NotAuthenticatedError):
    """Raised when a request is signed properly by a key that the sandbox does not know."""


class ForbiddenError(SandboxError):
    """Raised when the caller has no access, or for an item that may not even exist."""


class NotFoundError(SandboxError):
    """Raised when a named thing does not exist."""


class InvalidArgumentsError(SandboxError):
    """Raised when a request is understood and breaks a rule."""


class MalformedError(InvalidArgumentsError):
    """Raised when a request's body or query has not the shape that the call takes."""


class AlreadyExistsError(SandboxError):
    """Raised when something would be made a second time."""


class TooLargeError(SandboxError):
    """Raised when a request line or body passes the sandbox's limit."""


class LabelLimitError(SandboxError):
    """Raised when one request asks for more than `maximum` label rows."""

    def __init__(self, maximum: int) -> None:
        super().__init__(f"too many label rows in one request, the limit is {maximum}")
        self.maximum = maximum


class CorruptedLabelError(SandboxError):
    """Raised when a saved label row contradicts its data unit or itself."""


class FeatureUnknownError(SandboxError):
    """Raised when a saved label row names a feature hash that its ontology does not have."""


class AnswerMissingError(SandboxError):
    """Raised when an object in a saved label row has no entry in `object_answers`."""


class NotEmulatedError(SandboxError):
    """Raised for a route, query type or action that the sandbox does not emulate."""
