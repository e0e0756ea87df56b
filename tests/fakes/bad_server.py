"""Acts as a llama-server that misbehaves in one way; a wrapper made by `fake_server` runs it.

Standard library only, and started with `-S`, so that a test pays about 20 ms for a start.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HELP = """\
----- common params -----
-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
--host HOST                             ip address to listen
--port PORT                             port to listen (default: 8080)
-c,    --ctx-size N                     size of the prompt context
-np,   --parallel N                     number of slots
-t,    --threads N                      number of CPU threads
--api-key-file FNAME                    path to file containing API keys
--draft, --draft-max N                  the argument has been removed. use another
"""
LIVES = {"good", "ignores_term", "forks", "late", "no_key_file"}


def main() -> None:
    behaviour, state, *arguments = sys.argv[1:]
    if "--help" in arguments or "--version" in arguments:
        answer_question(behaviour, Path(state), arguments)
        return
    given = dict(itertools.pairwise(arguments))
    log("srv    load_model: loading model")
    if behaviour == "exits":
        log(Path(state, "says").read_text(encoding="utf-8"))
        sys.exit(1)
    if behaviour == "sigill":
        os.kill(os.getpid(), signal.SIGILL)
    if behaviour in {"ignores_term", "forks"}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "forks" and not os.fork():
        Path(state, "child").write_text(str(os.getpid()), encoding="ascii")
        time.sleep(60)
    serve(behaviour, int(given["--port"]), key_of(given))


def answer_question(behaviour: str, state: Path, arguments: list[str]) -> None:
    with (state / "asked").open("a", encoding="ascii") as asked:
        asked.write(arguments[0] + "\n")
    if behaviour == "hangs_when_asked":
        time.sleep(60)
    elif behaviour == "sigill_when_asked":
        os.kill(os.getpid(), signal.SIGILL)
    elif behaviour == "floods_when_asked":
        while True:
            say("-y" * 5000)
    elif behaviour == "lacks_library":
        log("llama-server: error while loading shared libraries: libgomp.so.1: cannot open")
        sys.exit(127)
    elif behaviour == "foreign":
        say("usage: something else entirely")
    elif "--version" in arguments:
        say("version: 7654 (abcdef0)")
    else:
        usage = HELP.replace("--api-key-file", "--other") if behaviour == "no_key_file" else HELP
        say(usage)


def key_of(given: dict[str, str]) -> str:
    if "--api-key-file" in given:
        return Path(given["--api-key-file"]).read_text(encoding="ascii").strip()
    return os.environ["LLAMA_API_KEY"]


def serve(behaviour: str, port: int, key: str) -> None:
    born = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            loading = behaviour == "never_ready" or (
                behaviour in {"late", "dies_loading"} and time.monotonic() < born + 0.2
            )
            if behaviour == "dies_loading" and not loading:
                log("srv    load_model: failed to load model, 'x.gguf'")
                os._exit(1)
            status = 503 if loading else 200
            keyed = self.headers.get("Authorization") == f"Bearer {key}"
            if self.path != "/health" and not keyed and behaviour != "open_to_all":
                status = 401
            body = json.dumps({"status": status}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def log(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
