"""The client's side of TLS: what is verified, and against which files."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.runtime.dialing import reason_of
from rapidbyte_dagster.runtime.status import Refusal, Status


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """`verify` is `none`, `ca` (the certificate's chain) or `full` (its name too); the rest are paths of PEM files."""

    server_name: str
    verify: str
    root_cert: str | None = None
    cert: str | None = None
    key: str | None = None


def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """The client's side of `options`: TLS 1.2 at least, the system's trust store unless `root_cert` is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options.verify == "full"
    context.verify_mode = ssl.CERT_NONE if options.verify == "none" else ssl.CERT_REQUIRED
    if options.verify != "none":
        if options.root_cert is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            _load(options.root_cert, lambda: context.load_verify_locations(cafile=options.root_cert))
    if options.cert is not None:
        cert = options.cert
        # Without a callback, OpenSSL would ask for an encrypted key's password on the terminal.
        _load(options.key or cert, lambda: context.load_cert_chain(cert, options.key, password=_no_password))
    return context


def _load(path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as error:  # SSLError is one
        raise Refusal(
            Status.FAILED,
            f"TLS file {path!r} cannot be used: {reason_of(error)}",
            kind=Kind.CONFIG,
            hint="it must be a readable PEM file; a private key must belong to its certificate and have no password",
        ) from error


def _no_password() -> str:
    raise OSError(errno.EACCES, "the private key is encrypted")


def verification_hint(options: TlsOptions) -> str:
    if options.root_cert is None:
        return (
            "the server's certificate is not signed by an authority that this system trusts: name its root certificate"
        )
    return (
        f"check that {options.root_cert!r} signed the server's certificate, and that it names {options.server_name!r}"
    )
