"""The account at an authority: its key in a file, made when there is none, and its registration."""

import hashlib
import os

from acme import client, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwk import JWKEC

from lbproxy.acme.certificate_file import write_whole
from lbproxy.acme.messages import Order
from lbproxy.acme.placeholder import key_pem

FOLDER = "accounts"


def account_key(order: Order) -> JWKEC:
    """One key for each server, beside the certificates. Raises OSError, and ValueError for a file that is no key."""
    short = hashlib.sha256(order.server.encode()).hexdigest()[:16]
    file = os.path.join(os.path.dirname(order.file), FOLDER, f"{short}.pem")
    if not os.path.exists(file):
        write_whole(file, key_pem(ec.generate_private_key(ec.SECP256R1())))
    with open(file, "rb") as opened:
        key = serialization.load_pem_private_key(opened.read(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} holds no key of an account")
    return JWKEC(key=key)


def register(acme: client.ClientV2, email: str | None) -> None:
    """Make the account, or find it; its address becomes the given one. Raises acme.errors.Error and messages.Error."""
    wanted = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        acme.new_account(wanted)
    except errors.ConflictError as exc:  # it is there already
        found = messages.RegistrationResource(body=wanted, uri=exc.location)
        found = acme.query_registration(found)
        if tuple(found.body.contact) != tuple(wanted.contact):
            acme.update_registration(found, messages.Registration(contact=wanted.contact))
