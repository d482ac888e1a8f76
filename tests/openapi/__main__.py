"""`make test-api`: a real stack, a client generated from the document, and schemathesis.

Exit 0 if the client works and no request, valid or not, gets an answer that is not in the document
or is a 5xx; exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from ackbridge.clock import utc_now
from ackbridge.contracts.identity import Role
from ackbridge.local.stack import Stack
from ackbridge.security.http_auth import new_api_key, write_api_keys

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENT = CHECKOUT / "docs" / "reference" / "openapi.json"

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "missing_required_header"),
    *("unsupported_method", "ignored_auth"),
)
"""Not `negative_data_rejection`: a number is also accepted as a text that is one, as in files."""


def main() -> int:
    options = _options()
    tools = options.tools.absolute() / "bin"
    with tempfile.TemporaryDirectory(prefix="ackbridge-openapi-") as name:
        folder = Path(name)
        key, entry = new_api_key("test", "test-api", frozenset(Role), utc_now() + timedelta(days=1))
        write_api_keys(folder / "api-keys.json", (entry,))
        settings = {
            "ACKBRIDGE_API": "true",
            "ACKBRIDGE_AUTH_API_KEYS": str(folder / "api-keys.json"),
            "ACKBRIDGE_STREAMS_SECRETS": "env:STREAMS",
            "STREAMS": secrets.token_urlsafe(32),
            # One client sends everything.
            "ACKBRIDGE_GATEWAY_CONNECTIONS_PER_SOURCE": "1024",
        }
        parts = ("engine", "sandbox", "worker", "gateway")
        stack = Stack(folder / "state", environ=os.environ, parts=parts, settings=settings)
        with stack:
            done = _use_generated_client(tools, folder, stack.addresses.gateway, key)
            if not done:
                done = _run_schemathesis(tools, folder, stack.addresses.gateway, key, options)
            stack.check()
            if done:
                print(stack.log("gateway").read_text()[-4000:], file=sys.stderr)
    return done


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="the environment of both tools")
    parser.add_argument("--examples", type=int, default=30, help="of each operation")
    parser.add_argument("--seconds", type=int, default=240, help="of schemathesis, at most")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _use_generated_client(tools: Path, folder: Path, url: str, key: str) -> int:
    generated = folder / "calls_client"
    command: list[str | Path] = [
        tools / "openapi-python-client",
        "generate",
        "--path",
        DOCUMENT,
        "--meta",
        "none",
    ]
    environ = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([*command, "--output-path", generated], env=environ, check=True)
    script = Path(__file__).with_name("generated_client.py")
    environ = {**os.environ, "PYTHONPATH": str(folder), "API_URL": url, "API_KEY": key}
    return subprocess.run([tools / "python", script], env=environ, check=False).returncode


def _run_schemathesis(
    tools: Path, folder: Path, url: str, key: str, options: argparse.Namespace
) -> int:
    command: list[str | Path] = [
        *(tools / "schemathesis", "run", DOCUMENT, "--url", url),
        *("--header", f"Authorization: Bearer {key}"),
        *("--checks", ",".join(CHECKS), "--max-examples", str(options.examples)),
        *("--max-time", str(options.seconds), "--seed", str(options.seed), "--workers", "2"),
        *("--request-timeout", "90", "--continue-on-failure", "--suppress-health-check", "all"),
        # A stream does not end.
        *("--exclude-operation-id", "follow_call", "--no-color"),
    ]
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
