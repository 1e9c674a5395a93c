"""What modules print when a BMC refuses something, as one sentence."""

from __future__ import annotations

import pytest
from heteroserve.metal.faults import sentence

GET = "HTTP Error {} on GET request to 'https://10.20.0.11:443/redfish/v1/Systems', extended message: '{}'"


@pytest.mark.parametrize(
    ("said", "doing", "words"),
    [
        (GET.format(401, "Unauthorized"), "read", "refuses root: wrong user or password"),
        ("HTTP Error 401: Unauthorized", "bios", "refuses root: wrong user or password"),
        (
            "URL Error on GET request to 'https://10.20.0.11:443/redfish/v1/': '[Errno 111] Connection refused'",
            "read",
            "nothing",
        ),
        (
            "URL Error on GET request to 'https://10.20.0.11:443/redfish/v1/': 'timed out'",
            "read",
            "does not answer in time",
        ),
        ("URL Error ...: '[Errno 113] No route to host'", "read", "cannot be reached: there is no way to it"),
        ("URL Error ...: '[Errno -2] Name or service not known'", "read", "its name cannot be resolved"),
        ("Unable to communicate with iDRAC 10.20.0.11. This may be due to", "bios", "cannot be reached"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate",
            "read",
            "is not of the authority in bare_metal_bmc_ca",
        ),
        (
            GET.format(500, "Unable to mount\n the image."),
            "media",
            "does not take http://m/x.iso (Unable to mount the image.)",
        ),
        ("Unable to find an available VirtualMedia resource supporting ['CD']", "media", "virtual media refused"),
        ("Service does not support SimpleUpdate", "firmware", "does not take the firmware: Service does not support"),
        ("", "power", "it does not say why"),
    ],
)
def test_one_sentence_for_what_was_refused(said: str, doing: str, words: str) -> None:
    found = sentence(said, doing, "10.20.0.11", "root", "http://m/x.iso")
    assert words in found
    assert "10.20.0.11" in found
    assert "\n" not in found
