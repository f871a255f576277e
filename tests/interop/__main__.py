"""Run other projects' clients, unchanged, against `framedit serve`, and print what works.

`python -m tests.interop [client...]` installs the clients into build/interop. The exit status is 1 when a case fails
that should work, or that the server does not refuse with a clear message.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from jobs.cards import read_card, write_card
from tests.e2e.conftest import REPOSITORY, serving

PACKAGES = ("aiperf==0.13.0", "litellm==1.110.2", "openai==3.57.0", "pillow")
CLIENTS = {
    "openai": "openai_client",
    "litellm": "litellm_client",
    "aiperf": "aiperf_client",
    "peer-benchmarks": "peer_benchmarks",
}
MODEL = "demo-text"
ENVIRONMENT = REPOSITORY / "build" / "interop"
TIMEOUT_SECONDS = 900


def install() -> Path:
    """Install the clients unless they are there. Returns their interpreter."""
    python, installed = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed.txt"
    wanted = "\n".join(PACKAGES)
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, *PACKAGES], check=True)
        installed.write_text(wanted)
    return python


def link_model(folder: Path) -> None:
    """Make a checkpoint folder like the demo's, with fewer steps by default."""
    source = REPOSITORY / "checkpoints" / MODEL
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "card.json":
            (folder / path.name).symlink_to(path)
    write_card(folder, read_card(source).model_copy(update={"num_inference_steps": 2}))


def run_client(python: Path, module: str, url: str) -> list[dict[str, str]]:
    """Run the cases of one client in its environment. A client that ends early is a failure of its own."""
    command = [str(python), "-m", f"tests.interop.{module}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FRAMEDIT_", "OPENAI_"))}
    env |= {"INTEROP_URL": url, "INTEROP_MODEL": MODEL}
    ended = subprocess.run(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS)
    results = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"case"')]
    if ended.returncode:
        results.append({"case": "the client itself", "outcome": "FAILS", "detail": f"status {ended.returncode}"})
    return results


def print_results(client: str, results: list[dict[str, str]]) -> None:
    print(f"\n{client}: {sum(result['outcome'] == 'works' for result in results)} of {len(results)} work")
    for result in results:
        print(f"  {result['outcome']:8} {result['case']:50} {result['detail'][:160]}", flush=True)


def main(clients: list[str]) -> int:
    if unknown := set(clients) - set(CLIENTS):
        print(f"there is no client {', '.join(sorted(unknown))}: choose from {', '.join(CLIENTS)}", file=sys.stderr)
        return 2
    python = install()
    results = []
    with tempfile.TemporaryDirectory(prefix="framedit-interop-") as folder:
        link_model(Path(folder, "checkpoints", MODEL))
        with serving(Path(folder, "data"), Path(folder, "checkpoints"), forked=False) as server:
            for client in clients or CLIENTS:
                found = run_client(python, CLIENTS[client], server.url)
                print_results(client, found)
                results += found
    return int(any(result["outcome"] == "FAILS" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
