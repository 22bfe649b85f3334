"""References to contexts that clients keep: they say which context is meant, and only the server could have written them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

from laconic.serve.front.records import ID
from laconic.serve.refusal import Refusal

VERSION = 1
MAC_BYTES = 32


def sealed(secret: bytes, context: str, expires: float | None) -> str:
    """A reference to a context.

    Args:
        secret: of the tenant. `expires`: seconds since 1970, to be told apart from a forged one when it is over.
    """
    body = json.dumps([VERSION, context, None if expires is None else int(expires)]).encode()
    return base64.urlsafe_b64encode(_mac(secret, body) + body).decode()


def opened(secret: bytes, text: str) -> str:
    """The context that a reference means.

    Raises:
        Refusal: the server has not written it for this tenant.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if hmac.compare_digest(mac, _mac(secret, body)):
            version, context, _ = json.loads(body)
            if version == VERSION and ID.fullmatch(context):
                return str(context)
    except (UnicodeEncodeError, binascii.Error, ValueError, TypeError):
        pass
    raise Refusal(400, "invalid_value", "this compaction was not made by this server for this key.", "input")


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.new(secret, b"laconic compaction" + body, hashlib.sha256).digest()
