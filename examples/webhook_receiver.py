"""Receive webhooks, verify their signatures, and download completed videos to <video id>.mp4.

Give the server and this program the same secret. The server sends to private addresses, such as this machine, only
where it is allowed to:

    export FRAMEDIT_WEBHOOK_SECRET=whsec_$(openssl rand -base64 32)
    FRAMEDIT_WEBHOOK_ALLOW_PRIVATE=true make serve &
    python examples/webhook_receiver.py 8001 &
    curl http://127.0.0.1:8000/v1/videos -H 'Content-Type: application/json' -d '{"model": "demo-text",
      "prompt": "a blue star spinning", "webhook_url": "http://127.0.0.1:8001/"}'
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai import InvalidWebhookSignatureError, OpenAI

client = OpenAI(
    base_url=os.environ.get("FRAMEDIT_SERVER", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("FRAMEDIT_API_KEY", "unused"),
    webhook_secret=os.environ["FRAMEDIT_WEBHOOK_SECRET"],
)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            # Checks the signature and the time stamp, as https://www.standardwebhooks.com specifies.
            client.webhooks.verify_signature(body, dict(self.headers))
        except (InvalidWebhookSignatureError, ValueError):
            self.answer(401)
            return
        self.answer(204)  # before any work: the server waits 15 s, then repeats the webhook
        handle(json.loads(body))

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


def handle(event: dict[str, Any]) -> None:
    """Download a completed video. The same event can arrive twice; this overwrites the file."""
    video = event["data"]
    if event["type"] == "video.completed":
        client.videos.download_content(video["id"]).write_to_file(f"{video['id']}.mp4")
        print(f"{video['id']}.mp4", flush=True)
    else:
        print(f"{video['id']} failed: {video['error']['message']}", flush=True)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
