"""Some clients send the frame that ends a request late; an answer that is there before is not cut off."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request

import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.node

#: A streamed answer by HTTP/2 alone: the whole request at once, its end a moment later.
SCRIPT = """
const http2 = require("node:http2");
const [, gateway, path] = process.argv;
const client = http2.connect(gateway);
const said = { bytes: 0, status: null, error: null, reset: null };
const call = client.request({
  ":method": "POST", ":path": "/kino.page.v1.PageService/GetAsset",
  "content-type": "application/grpc", te: "trailers",
});
call.on("data", (data) => { said.bytes += data.length; });
call.on("trailers", (trailers) => { said.status = trailers["grpc-status"]; });
call.on("error", (error) => { said.error = error.message; });
call.on("close", () => { said.reset = call.rstCode; console.log(JSON.stringify(said)); client.close(); });
const size = Buffer.from([0, 0, 0, 0, path.length + 2, 10, path.length]);
call.write(Buffer.concat([size, Buffer.from(path)]));
setTimeout(() => call.end(), 300);
"""


def largest_script(gateway: str) -> tuple[str, int]:
    """A script of the page and its size: more than a client takes in at once."""
    with urllib.request.urlopen(f"{gateway}/", timeout=30) as answer:
        path = re.search(r'assets/([A-Za-z0-9._-]+\.js)"', answer.read().decode())
    assert path
    with urllib.request.urlopen(f"{gateway}/assets/{path.group(1)}", timeout=30) as answer:
        return path.group(1), len(answer.read())


def test_a_request_that_is_ended_late_is_answered_whole(stack: Stack) -> None:
    path, size_bytes = largest_script(stack.gateway)
    argv = ["node", "-e", SCRIPT, stack.gateway, path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(done.stdout)

    assert said.pop("bytes") > size_bytes
    assert said == {"status": "0", "error": None, "reset": 0}
