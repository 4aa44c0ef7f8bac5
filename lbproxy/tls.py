"""TLS: the contexts that connections are secured with. The only importer of ssl."""

import ssl


def client_context(ca: str | None = None) -> ssl.SSLContext:
    """It verifies the server's certificate and name. `ca`: a file of authorities instead of the system's."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
