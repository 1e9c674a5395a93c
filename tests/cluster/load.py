"""Ask an address again and again until standard input ends, with a new connection each time; print what came of it."""

import json
import select
import sys
import time
import urllib.request


def main(url: str, pause_s: float) -> None:
    sent, failed, slowest, faults = 0, 0, 0.0, []
    while not select.select([sys.stdin], [], [], pause_s)[0]:
        began = time.monotonic()
        sent += 1
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                reply.read()
        except OSError as error:
            failed += 1
            faults.append(f"{time.strftime('%H:%M:%S')} {error}")
        slowest = max(slowest, time.monotonic() - began)
    print(json.dumps({"sent": sent, "failed": failed, "slowest_s": round(slowest, 3), "faults": faults[:5]}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
