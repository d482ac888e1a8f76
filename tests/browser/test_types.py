"""The module is what its types say, and can be published as a package."""

from __future__ import annotations

import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.locked_tools import ToolUnavailableError, node, npm_packages

WEB = Path(str(files("ackbridge.web")))

USE = """
import { followCall, forgetCalls, readEvent, type CallEvent, type Follow } from "ackbridge-events";

const follow: Follow = followCall({
  url: "https://api.example/calls/shop.pay.1/events",
  token: async () => "token",
  onState: (event: CallEvent) => console.log(event.title, event.expectedAt?.getTime()),
  onEvent: ({ kind, alternative }) => {
    if (kind === "failed" && alternative !== null) console.log(alternative.length);
    // @ts-expect-error -- there is no such kind
    if (kind === "lost") console.log();
  },
  onConnection: (connection) => console.log(connection === "ended"),
});
follow.close();
void forgetCalls().then(() => readEvent({})?.isFinal);
// @ts-expect-error -- a token is needed
followCall({ url: "https://api.example/calls/shop.pay.1/events" });
"""


def run_node(script: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of Node.js."""
    command = (str(node()), str(script), *arguments)
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_types(tmp_path: Path) -> None:
    """Strictly: the module against its declarations, and a page that uses them.

    The compiler comes from npm's registry; without one the test is skipped, and the summary says
    why.
    """
    try:
        compiler = npm_packages("typescript") / "node_modules" / "typescript" / "bin" / "tsc"
    except ToolUnavailableError as error:
        pytest.skip(f"no TypeScript: {error}")
    package = tmp_path / "node_modules" / "ackbridge-events"
    package.mkdir(parents=True)
    for name in json.loads((WEB / "package.json").read_text())["files"]:
        (package / name).write_bytes((WEB / name).read_bytes())
    (package / "package.json").write_bytes((WEB / "package.json").read_bytes())
    (tmp_path / "page.ts").write_text(USE)
    options = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "allowJs": True,
            "checkJs": True,
            "noUncheckedIndexedAccess": True,
            "target": "es2022",
            "lib": ["es2022", "dom", "dom.iterable"],
            "module": "esnext",
            "moduleResolution": "bundler",
            "types": [],
        },
        "files": ["page.ts", "node_modules/ackbridge-events/ackbridge-events.js"],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(options))
    done = run_node(compiler, "--project", str(tmp_path), folder=tmp_path)
    assert done.returncode == 0, done.stdout


def test_package() -> None:
    """Everything that it names is there, and nothing else is to be installed."""
    package = json.loads((WEB / "package.json").read_text())
    named = {package["main"], package["types"], *package["exports"]["."].values()}
    assert {name.removeprefix("./") for name in named} <= set(package["files"])
    assert all((WEB / name).is_file() for name in package["files"])
    assert not {"dependencies", "scripts", "peerDependencies"} & package.keys()
