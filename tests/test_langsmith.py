"""The recipe for LangSmith on docs/tracking.md, against a server that takes what its client sends."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
INFO = json.dumps(
    {
        "version": "0.10",
        "batch_ingest_config": {
            "use_multipart_endpoint": True,
            "size_limit": 100,
            "size_limit_bytes": 20_000_000,
            "scale_up_nthreads_limit": 1,
            "scale_up_qsize_trigger": 1000,
        },
    }
).encode()


def test_the_recipe_gives_each_reward_to_the_span_of_its_evaluation(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(INFO)

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            bodies.append(body)
            self._reply(b"{}")

        def _reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    page = (ROOT / "docs" / "tracking.md").read_text()
    recipe = page.partition('```python title="needs LangSmith"\n')[2].partition("```")[0]
    script = tmp_path / "recipe.py"
    script.write_text(recipe.replace('"openai:gpt-4.1-mini"', 'lambda: "abc"'))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "LANGSMITH_API_KEY": "fake",
            "LANGSMITH_COMPRESSION_DISABLED": "true",
            "LANGSMITH_DISABLE_RUN_COMPRESSION": "true",
        }
        subprocess.run(
            [sys.executable, script], check=True, env={**os.environ, **environment}, cwd=tmp_path, timeout=60
        )
        server.shutdown()
    sent = b"".join(bodies)
    assert sent.count(b'name="feedback.') == 2
    assert b"0.1111" in sent
    assert b"evaluate" in sent
