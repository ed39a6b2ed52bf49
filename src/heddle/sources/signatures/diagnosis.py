"""Why a captured delivery does not verify: what was signed, and which usual mistakes would explain it.

Names and lengths only; neither secrets nor content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heddle.sources.signatures.scheme import Reason, SignatureError, SignedRequest, Verified, Verifier


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`reason` is None for a valid delivery; `notes` are sentences for a person, most telling first."""

    reason: Reason | None
    message: str
    verified: Verified | None
    notes: tuple[str, ...]


def diagnose(verifier: Verifier, request: SignedRequest, now: float) -> Diagnosis:
    """Never raises for bad data."""
    try:
        verified = verifier.verify(request, now)
    except SignatureError as error:
        notes = (*_explanations(verifier, request, error), *_facts(verifier, request))
        return Diagnosis(error.reason, str(error), None, notes)
    return Diagnosis(None, "valid", verified, ())


def _explanations(verifier: Verifier, request: SignedRequest, error: SignatureError) -> Iterator[str]:
    match error.reason:
        case Reason.BAD_SIGNATURE:
            yield from (text for text, changed in _usual_mistakes(request) if _matches(verifier, changed))
        case Reason.TOO_OLD | Reason.TOO_NEW:
            yield "the signature itself is right; give the time of capture with --at, or look at this machine's clock"
        case Reason.MISSING_HEADER | Reason.MALFORMED_HEADER:
            yield "headers given: " + (", ".join(sorted(request.headers)) or "none")
    if error.hint:
        yield error.hint


def _usual_mistakes(request: SignedRequest) -> Iterator[tuple[str, SignedRequest]]:
    body, url = request.body, request.url
    yield "it matches without the last line end: the capture added one", request._replace(body=body.rstrip(b"\r\n"))
    yield "it matches with a line end added: the capture cut it off", request._replace(body=body + b"\n")
    yield (
        "it matches with LF for CRLF: the capture changed line ends",
        request._replace(body=body.replace(b"\r\n", b"\n")),
    )
    yield (
        "it matches with CRLF for LF: the capture changed line ends",
        request._replace(body=body.replace(b"\n", b"\r\n")),
    )
    yield "it matches without the byte order mark", request._replace(body=body.removeprefix(b"\xef\xbb\xbf"))
    yield "it matches with https in the URL", request._replace(url=url.replace("http://", "https://", 1))
    yield "it matches with http in the URL", request._replace(url=url.replace("https://", "http://", 1))
    yield "it matches without the URL's last slash", request._replace(url=url.removesuffix("/"))
    yield "it matches with a slash after the URL", request._replace(url=url + "/")


def _matches(verifier: Verifier, request: SignedRequest) -> bool:
    """Whether the signature is right, whatever its age."""
    try:
        claim = verifier.scheme.claim(request)
        verifier.verify(request, claim.timestamp_s or 0.0)
    except SignatureError:
        return False
    return True


def _facts(verifier: Verifier, request: SignedRequest) -> Iterator[str]:
    try:
        claim = verifier.scheme.claim(request)
    except SignatureError:
        return
    header = next(name for name in verifier.scheme.signature_headers if name in request.headers)
    parts = ", ".join(f"{name} ({len(value)} bytes)" for name, value in claim.message)
    yield f"signed, in this order: {parts}; {sum(len(value) for _, value in claim.message)} bytes in all"
    yield f"signatures in {header}: {len(claim.signatures)}; live secrets tried: {len(verifier.keys)}"
