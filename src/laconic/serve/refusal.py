"""What a client is told when a request cannot be answered: one error object, the same from the front and from the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laconic.errors import LaconicError

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
"""The `type` of an error by its HTTP status."""
NO_RETRY = {"x-should-retry": "false"}
"""The header that tells OpenAI's clients not to ask again by themselves."""


class Refusal(LaconicError, ValueError):
    """A request that is not answered.

    Args:
        status: of HTTP. `code`: for programs; `message`: for people, without a word of the request's text.
        param: the field of the request that is to blame.
        headers: for the response, such as ``Retry-After``.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ):
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.headers = status, code, message, param, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        error = {"message": self.message, "type": KINDS[self.status], "param": self.param, "code": self.code}
        return {"error": error}

    def facts(self) -> dict[str, Any]:
        """For the wire; `Refusal(**facts)` is the same again."""
        return {
            "status": self.status,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "headers": self.headers,
        }


def invalid(param: str, message: str) -> Refusal:
    """A field with a value that is not allowed."""
    return Refusal(400, "invalid_value", message, param)
