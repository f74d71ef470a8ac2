"""The S3 server of the tests is a strict one, so that what passes on it may be believed."""

from __future__ import annotations

import pytest

from ceph import Bucket


def test_it_keeps_what_it_is_given(bucket: Bucket) -> None:
    """Guards the ground that all else stands on: put, list, get."""
    bucket.call("PUT", "a name/größe+&", b"x" * 10)
    assert bucket.sizes() == {"a name/größe+&": 10}
    assert bucket.call("GET", "a name/größe+&") == b"x" * 10
    assert bucket.uploads() == []


def test_it_refuses_a_wrong_secret(bucket: Bucket) -> None:
    """Guards that no test passes because the server believes everybody, as stand-ins of S3 do."""
    stranger = Bucket(bucket.port, bucket.name, secret="wrong")
    with pytest.raises(RuntimeError, match=r"403 .*SignatureDoesNotMatch"):
        stranger.names()
