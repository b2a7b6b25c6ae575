"""Who may have this machine download something: a person at it, through our own page, and nobody else."""

import pytest

from faceclip.install.local import is_local, is_same_origin

HERE = {"host": "127.0.0.1:8188", "origin": "http://127.0.0.1:8188"}


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", HERE),
        ("127.0.0.1", {"host": "localhost:8188", "origin": "http://localhost:8188"}),
        ("::1", {"host": "[::1]:8188", "origin": "http://[::1]:8188"}),
        ("::ffff:127.0.0.1", HERE),
        ("127.0.0.1", {"host": "localhost"}),  # a program that is no browser
    ],
)
def test_a_person_at_this_machine(peer, headers):
    assert is_local(peer, headers)


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.168.1.5", HERE),
        (None, HERE),
        ("", HERE),
        ("2001:db8::1", HERE),
        ("127.0.0.1", {**HERE, "origin": "http://evil.example"}),
        ("127.0.0.1", {**HERE, "origin": "null"}),
        ("127.0.0.1", {**HERE, "origin": "http://127.0.0.1:8000"}),
        # A name that was made to point here.
        ("127.0.0.1", {"host": "evil.example:8188", "origin": "http://evil.example:8188"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example", "origin": "http://127.0.0.1.evil.example"}),
        ("127.0.0.1", {}),
        # Through a proxy on this machine.
        ("127.0.0.1", {**HERE, "x-forwarded-for": "203.0.113.9"}),
        ("127.0.0.1", {**HERE, "forwarded": "for=203.0.113.9"}),
        ("127.0.0.1", {**HERE, "via": "1.1 proxy"}),
        ("127.0.0.1", {"host": "comfy.example.org", "origin": "https://comfy.example.org"}),
    ],
)
def test_anybody_else(peer, headers):
    assert not is_local(peer, headers)


def test_another_sites_page():
    assert is_same_origin({"host": "comfy.example.org", "origin": "https://comfy.example.org"})
    assert not is_same_origin({"host": "comfy.example.org", "origin": "https://other.example.org"})
