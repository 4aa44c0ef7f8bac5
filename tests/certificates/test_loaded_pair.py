"""What is wrong with a certificate or its key is said with the file."""

import time
from pathlib import Path

import pytest
from support.certificates import Pair, authority, certificate, openssl

from lbproxy.certificates.loaded_pair import LoadedPair, Unusable, read_authorities, read_pair
from lbproxy.settings import CertificateFiles

DAY_S = 86400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    directory = tmp_path_factory.mktemp("certificates")
    root = authority(directory, "Root")
    middle = authority(directory, "Middle", by=root)
    return {
        "root": root,
        "good": certificate(directory, "example.com", "10.0.0.1", by=middle),
        "rsa": certificate(directory, "rsa.example", key="rsa"),
        "other": certificate(directory, "other.example"),
        "noname": certificate(directory, subject="/CN=noname"),
    }


def read(cert: Path, key: Path, now: float | None = None) -> LoadedPair:
    return read_pair(CertificateFiles(str(cert), str(key)), now)


def why(cert: Path, key: Path) -> list[str]:
    with pytest.raises(Unusable) as caught:
        read(cert, key)
    return [f"{Path(defect.file).name} {defect.why}" for defect in caught.value.defects]


def test_a_good_pair_tells_its_names_and_holds_both_files(made: dict[str, Pair]) -> None:
    pair = read(made["good"].cert, made["good"].key)
    assert pair.names == ("example.com", "10.0.0.1")
    assert pair.chain.read() == made["good"].cert.read_bytes()
    assert pair.key.read() == made["good"].key.read_bytes()
    assert pair.remarks == ()
    assert read(made["rsa"].cert, made["rsa"].key).names == ("rsa.example",)
    assert read(made["noname"].cert, made["noname"].key).names == ("CN=noname",)


def test_one_file_may_hold_both(made: dict[str, Pair], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    for order in ("key cert", "cert key"):
        both.write_bytes(b"".join(getattr(made["good"], part).read_bytes() for part in order.split()))
        both.chmod(0o600)
        pair = read(both, both)
        assert pair.chain is pair.key
        assert pair.remarks == ()


def test_a_key_of_another_certificate(made: dict[str, Pair]) -> None:
    (text,) = why(made["good"].cert, made["other"].key)
    assert text.startswith("other.example.key cannot be used with ")
    assert text.endswith("the private key is not that of the certificate")


def test_a_key_with_a_pass_phrase_is_an_error_and_never_a_prompt(made: dict[str, Pair], tmp_path: Path) -> None:
    for kind in ("pkey", "ec"):  # PKCS#8, and the older form of OpenSSL
        key = tmp_path / f"{kind}.key"
        openssl(kind, "-in", str(made["good"].key), "-aes256", "-passout", "pass:sesame", "-out", str(key))
        (text,) = why(made["good"].cert, key)
        assert "has a pass phrase" in text


def test_a_chain_out_of_its_order(made: dict[str, Pair], tmp_path: Path) -> None:
    end = "-----END CERTIFICATE-----\n"
    leaf, middle, _ = (part + end for part in made["good"].cert.read_text().split(end))
    root = made["root"].cert.read_text()
    wrong = tmp_path / "wrong.pem"
    for chain, text in {
        middle + leaf: "certificate 2 (CN=example.com) has issued none before it: the server's own comes first",
        leaf + root + middle: "certificate 2 (CN=Root) has issued none before it",
        leaf + middle + made["other"].cert.read_text(): "certificate 3 (CN=other.example) has issued none before it",
    }.items():
        wrong.write_text(chain)
        assert why(wrong, made["good"].key) == [f"wrong.pem is not a chain in its order: {text}"]
    wrong.write_text(leaf + middle + root)
    assert read(wrong, made["good"].key).names == ("example.com", "10.0.0.1")


def test_files_that_hold_something_else(made: dict[str, Pair], tmp_path: Path) -> None:
    good, file = made["good"], tmp_path / "file"
    assert why(tmp_path / "a", tmp_path / "b") == ["a does not exist", "b does not exist"]
    assert why(good.key, good.cert) == ["example.com.key holds no certificate that can be read: it is a private key"]
    (text,) = why(good.cert, good.cert)
    assert "holds no private key: there is no BEGIN PRIVATE KEY in it" in text
    file.write_text(openssl("ecparam", "-name", "prime256v1"))
    assert why(good.cert, file)[0].endswith("(only parameters)")
    openssl("x509", "-in", str(good.cert), "-outform", "der", "-out", str(file))
    assert "it is DER, not PEM" in why(file, good.key)[0]
    file.write_bytes(b"\xff\xfe\0 nonsense")
    assert "there is no BEGIN CERTIFICATE in it" in why(file, good.key)[0]


def test_files_that_are_cut_short_or_damaged(made: dict[str, Pair], tmp_path: Path) -> None:
    good, file = made["good"], tmp_path / "file"
    for whole, other, swap in ((good.cert.read_bytes(), good.key, 1), (good.key.read_bytes(), good.cert, -1)):
        for size in range(1, len(whole) - 2, 97):
            file.write_bytes(whole[:size])
            if whole[:size].count(b"-----END CERT") == 0 or swap < 0:
                assert why(*(file, other)[::swap])
    text = good.key.read_text().splitlines()
    text[1] = "A" * len(text[1])
    file.write_text("\n".join(text))
    assert "cannot be read" in why(good.cert, file)[0]


def test_what_is_no_reason_to_refuse_it_is_remarked(made: dict[str, Pair], tmp_path: Path) -> None:
    good = made["good"]
    key = tmp_path / "open.key"
    key.write_bytes(good.key.read_bytes())
    key.chmod(0o644)

    def remarked(cert: Path, key: Path, days: float = 0) -> list[str]:
        return [one.why for one in read(cert, key, time.time() + days * DAY_S).remarks]

    assert remarked(good.cert, key) == ["holds a private key that everybody can read (mode 0644)"]
    assert "names no host" in remarked(made["noname"].cert, made["noname"].key)[0]
    assert "is not valid before" in remarked(good.cert, good.key, -3)[0]
    assert "expired on" in remarked(good.cert, good.key, 40)[0]
    assert read(good.cert, good.key).why_expired(time.time()) is None


def test_authorities_are_read_and_judged(made: dict[str, Pair], tmp_path: Path) -> None:
    several = tmp_path / "ca.pem"
    several.write_text(made["root"].cert.read_text() + made["other"].cert.read_text())
    assert [one.subject for one in read_authorities(str(several)).certificates] == ["CN=Root", "CN=other.example"]
    several.write_text("nothing")
    for path in (several, tmp_path / "gone"):
        with pytest.raises(Unusable):
            read_authorities(str(path))
