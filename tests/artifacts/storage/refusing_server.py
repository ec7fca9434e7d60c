"""A server that refuses every request as S3 refuses an expired token, say: a script.

Arguments: port, HTTP status, S3's error code. Neither moto nor rclone lets a token expire.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, STATUS, CODE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
BODY = f"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{CODE}</Code><Message>it says test-secret</Message><RequestId>1</RequestId></Error>"""


class Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(STATUS)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY.encode())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
