"""What a BMC, or the way to it, refused: one sentence from what a module said."""

from __future__ import annotations

import re

DOING = {
    "read": "read",
    "power": "take the command for the power",
    "bios": "take the BIOS attributes",
    "firmware": "take the firmware",
    "media": "take the image",
    "boot": "set what the host starts from",
}
_WAY = {
    r"timed? ?out|TimeoutError": "it does not answer in time",
    r"Connection refused|\[Errno 111\]": "nothing listens there",
    r"No route to host|Network is unreachable|\[Errno 1(01|13)\]": "there is no way to it",
    r"Name or service not known|getaddrinfo|\[Errno -[235]\]": "its name cannot be resolved",
    r"Remote end closed|Connection reset": "it ends the connection",
}


def sentence(said: str, doing: str, address: str, user: str, image: str = "") -> str:
    """One sentence for a failure while ``doing``, a key of DOING."""
    if re.search(r"HTTP Error 40[13]\b|Unauthorized|AccessDenied|401:", said):
        settings = "bare_metal_bmc_user, bare_metal_bmc_password"
        return f"the BMC at {address} refuses {user}: wrong user or password ({settings})"
    if re.search(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", said):
        return f"the certificate of the BMC at {address} is not of the authority in bare_metal_bmc_ca"
    for pattern, why in _WAY.items():
        if re.search(pattern, said, re.IGNORECASE):
            return f"the BMC at {address} cannot be reached: {why}; look at bare_metal_bmc_address and the way to it"
    if re.search(r"Unable to communicate with iDRAC|URL Error|urlopen error", said):
        return f"the BMC at {address} cannot be reached; look at bare_metal_bmc_address and the way to it"
    words = _words(said)
    if doing == "media":
        return (
            f"virtual media refused: the BMC at {address} does not take {image} ({words}); it must reach that address"
            " itself (bare_metal_media_url)"
        )
    return f"the BMC at {address} does not {DOING[doing]}: {words}"


def _words(said: str) -> str:
    """Redfish's own words, without the request around them."""
    found = re.search(r"extended message: '(.*)'\s*$", said, re.DOTALL)
    words = found[1] if found else said
    return " ".join(words.split())[:300] or "it does not say why"
