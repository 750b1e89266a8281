"""Certificates for the tests of TLS, made by the `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

VALID_DAYS = "2"


def openssl_is_installed() -> bool:
    return shutil.which("openssl") is not None


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests' own, in `folder`."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    @classmethod
    def create(cls, folder: Path, name: str) -> Authority:
        authority = cls(folder, name)
        _openssl(
            *("req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", str(authority.key), "-out", str(authority.certificate)),
            *("-days", VALID_DAYS, "-subj", f"/CN={name}"),
        )
        return authority

    def issue(self, name: str, *, subject_alternative_name: str = "") -> tuple[Path, Path]:
        """A certificate for `name`, and its key."""
        key, request, certificate = (self.folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        _openssl(
            *("req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}"),
        )
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subject_alternative_name}\n" if subject_alternative_name else "")
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(certificate), "-days", VALID_DAYS),
            *("-CA", str(self.certificate), "-CAkey", str(self.key), "-CAcreateserial"),
            *("-extfile", str(extensions)),
        )
        key.chmod(0o600)
        return certificate, key
