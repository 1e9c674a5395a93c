#!/usr/bin/python3
"""Stands in for Grafana: reads the same files, fails where Grafana would, and answers four questions.

/api/health is open; /api/search (dashboards), /api/datasources and /api/admin/settings ask for the password.
"""

import base64
import configparser
import json
import pathlib
import re
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def value(text):
    """What Grafana makes of $__file{PATH}."""
    found = re.fullmatch(r"\$__file\{(.+)\}", text)
    return pathlib.Path(found[1]).read_text().strip() if found else text


def provisioned(folder, kind):
    """Text of the files of one kind."""
    return [path.read_text() for path in sorted((folder / kind).glob("*.yml"))]


options = dict(word.lstrip("-").split("=", 1) for word in sys.argv if "=" in word)
config = configparser.RawConfigParser()
assert config.read(options["config"]) == [options["config"]]
settings = {name: dict(config[name]) for name in config.sections()}
server, security = settings["server"], {name: value(text) for name, text in settings["security"].items()}
folder = pathlib.Path(settings["paths"]["provisioning"])
sources, providers = provisioned(folder, "datasources"), provisioned(folder, "dashboards")
place = pathlib.Path(re.search(r"path: (\S+)", providers[0])[1])
pathlib.Path(settings["paths"]["data"], "grafana.db").touch()
password = value(re.search(r"basicAuthPassword: (\S+)", sources[0])[1])
basic = base64.b64encode(f"{security['admin_user']}:{security['admin_password']}".encode()).decode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {
            "/api/health": {"database": "ok"},
            "/api/search": [json.loads(path.read_text()) for path in sorted(place.glob("*.json"))],
            "/api/datasources": {"files": sources, "password": password},
            "/api/admin/settings": settings,
        }
        known = self.path == "/api/health" or self.headers["Authorization"] == f"Basic {basic}"
        data = json.dumps(answers.get(self.path) if known else {"message": "Unauthorized"}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


httpd = ThreadingHTTPServer((server["http_addr"], int(server["http_port"])), Handler)
if server["protocol"] == "https":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server["cert_file"], server["cert_key"])
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
httpd.serve_forever()
