"""Whether a web request comes from a person at this machine, and from our own page."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

# A proxy on this machine makes every request look as if it came from here; these are what proxies add.
_PROXIED = ("forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


def is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    """True only where the other end of the connection, and the name it was opened by, are this machine.

    peer: the address at the other end. headers: with lower-case names. A name other than localhost or a loopback
    address may belong to anybody (DNS rebinding); an Origin other than the Host is another site's page.
    """
    if peer is None or not _is_loopback(peer.partition("%")[0]) or any(name in headers for name in _PROXIED):
        return False
    return _is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or "") and is_same_origin(headers)


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """False where another site's page asked. A program that is no browser sends no Origin."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
