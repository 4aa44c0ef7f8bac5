"""Certificates for tests, made by the openssl command: authorities, and certificates that they have signed.

ca = authority(tmp_path)
pair = certificate(tmp_path, "example.com", "www.example.com", by=ca)
context.load_cert_chain(pair.cert, pair.key)
"""

import datetime
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """Paths of PEM files. `cert` holds the whole chain without its root."""

    cert: Path
    key: Path

    @property
    def tls(self) -> str:
        """As a listener's tls has it."""
        return f'cert = "{self.cert}", key = "{self.key}"'


def authority(directory: Path, name: str = "Test CA", by: Pair | None = None) -> Pair:
    """A certificate authority; with `by` an intermediate one."""
    return certificate(directory, by=by, subject=f"/CN={name}", extensions=["basicConstraints=critical,CA:TRUE"])


def certificate(
    directory: Path,
    *names: str,
    by: Pair | None = None,
    subject: str = "",
    extensions: Sequence[str] = (),
    days: tuple[float, float] = (-1, 30),
    key: str = "ec",
    file: str = "",
) -> Pair:
    """A certificate for `names` (DNS names and IP addresses), self-signed without `by`. `days`: valid from and to,
    counted from now. `key`: ec, ed25519 or rsa. `file`: the name of the files without their suffix."""
    directory.mkdir(parents=True, exist_ok=True)
    file = file or (names[0] if names else subject.rpartition("=")[2]).replace("*", "_").replace(" ", "-")
    pair = Pair(directory / f"{file}.pem", directory / f"{file}.key")
    make_key(pair.key, key)
    alternative = ",".join(
        f"{'IP' if name.replace('.', '').isdigit() or ':' in name else 'DNS'}:{name}" for name in names
    )
    lines = [*([f"subjectAltName={alternative}"] if names else []), *extensions]
    _sign(pair, subject or f"/CN={names[0]}", lines, by, days)
    return pair


def pem_file(directory: Path, *names: str) -> Path:
    """One file with a self-signed certificate for `names`, which clients can take as an authority too, and its key."""
    pair = certificate(directory, *names, extensions=["basicConstraints=CA:TRUE"])
    file = directory / "certificate.pem"
    file.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    file.chmod(0o600)
    return file


def make_key(path: Path, kind: str = "ec") -> None:
    options = {
        "ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "ed25519": ["-algorithm", "ED25519"],
        "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    }[kind]
    openssl("genpkey", *options, "-out", str(path))
    path.chmod(0o600)


def _sign(pair: Pair, subject: str, extensions: Sequence[str], by: Pair | None, days: tuple[float, float]) -> None:
    """By `openssl ca`, which takes dates as they are; `openssl x509` of OpenSSL 3.0 knows only whole days from now."""
    request = pair.cert.with_suffix(".csr")
    openssl("req", "-new", "-utf8", "-key", str(pair.key), "-subj", subject, "-out", str(request))
    database = pair.cert.parent / f".ca-{pair.cert.stem}"
    database.mkdir(exist_ok=True)
    for name, text in {
        "index": "",
        "serial": f"{secrets.randbits(63):016X}\n",
        "ext": "\n".join(extensions) + "\n",
    }.items():
        (database / name).write_text(text)
    (database / "config").write_text(
        f"[ca]\ndefault_ca=it\n[it]\ndatabase={database}/index\nserial={database}/serial\nnew_certs_dir={database}\n"
        "default_md=sha256\npolicy=any\nunique_subject=no\nstring_mask=utf8only\nutf8=yes\nemail_in_dn=yes\n"
        "[any]\n" + "".join(f"{name}=optional\n" for name in _ATTRIBUTES)
    )
    signer = by or pair
    openssl(
        *("ca", "-batch", "-notext", "-preserveDN", "-utf8", "-config", str(database / "config")),
        *("-extfile", str(database / "ext"), "-in", str(request), "-out", str(pair.cert)),
        *("-keyfile", str(signer.key), *(["-cert", str(by.cert)] if by else ["-selfsign"])),
        *("-startdate", openssl_time(days[0]), "-enddate", openssl_time(days[1])),
    )
    if by is not None and not _is_self_signed(by.cert):
        pair.cert.write_text(pair.cert.read_text() + by.cert.read_text())


_ATTRIBUTES = (
    *("countryName", "stateOrProvinceName", "localityName", "organizationName", "organizationalUnitName"),
    *("commonName", "emailAddress", "domainComponent", "userId", "serialNumber", "surname", "givenName", "title"),
    *("streetAddress", "description"),
)


def openssl_time(days_from_now: float) -> str:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days_from_now)
    return at.strftime("%Y%m%d%H%M%SZ")


def _is_self_signed(cert: Path) -> bool:
    names = openssl("x509", "-in", str(cert), "-noout", "-subject", "-issuer").split("\n")
    return names[0].partition("=")[2] == names[1].partition("=")[2]


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"
    return done.stdout
