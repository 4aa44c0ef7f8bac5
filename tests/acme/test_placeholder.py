"""The certificate that stands in until the first one comes."""

from pathlib import Path

from support.certificates import openssl

from lbproxy.acme.certificate_file import read_lifetime
from lbproxy.acme.placeholder import write_placeholder
from lbproxy.certificates.loaded_pair import read_pair
from lbproxy.settings import CertificateFiles


def test_it_is_good_for_the_names_and_says_that_it_stands_in(tmp_path: Path) -> None:
    file = str(tmp_path / "acme" / "a.pem")
    write_placeholder(file, ["a.example", "b.example"])
    pair = read_pair(CertificateFiles(file, file))
    assert pair.names == ("a.example", "b.example")
    assert pair.remarks == ()
    lifetime = read_lifetime(file)
    assert lifetime is not None
    assert lifetime.stands_in
    openssl("x509", "-in", file, "-noout", "-checkhost", "b.example")
