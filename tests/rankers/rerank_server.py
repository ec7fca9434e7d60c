"""A server that reranks, in a process of its own, and misbehaves as it is told.

    python rerank_server.py PORT_FILE [PORT]

It scores a text by the words it shares with the query. The first part of the address says how to
answer, the second in which dialect: /well/cohere, /html/tei. What it was asked is in /asked. The
fourth request ends a /dying server's first life, and every life of a /mortal one.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

asked: list[dict[str, Any]] = []
lock = threading.Lock()
is_second_life = len(sys.argv) > 2


def score(query: str, text: str) -> float:
    words = set(query.lower().split())
    return len(words & set(text.lower().split())) + 1 / (1 + len(text))


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(200, json.dumps(asked).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, way, dialect = self.path.split("/")
        with lock:
            asked.append({"way": way, "body": body, "key": self.headers["Authorization"]})
            turn = sum(a["way"] == way for a in asked)
        if turn > 3 and (way == "mortal" or (way == "dying" and not is_second_life)):
            os._exit(1)
        if way in ("well", "dying", "mortal") or (way in ("broken", "busy") and turn > 2):
            return self.answer(200, json.dumps(results(dialect, body)).encode())
        return self.misbehave(way, dialect, body)

    def misbehave(self, way: str, dialect: str, body: dict[str, Any]) -> None:
        good = results(dialect, body)
        listed = good["results"] if dialect == "cohere" else good
        name = "relevance_score" if dialect == "cohere" else "score"
        if way == "broken":
            return self.answer(500, b"out of memory")
        if way == "busy":
            return self.answer(429, b"slow down")
        if way == "refusing":
            key = self.headers["Authorization"] or ""
            return self.answer(401, f"no such key: {key}".encode())
        if way in ("echoing", "chatty"):
            key = " " * (50 if way == "chatty" else 0) + (self.headers["Authorization"] or "")
            return self.answer(200, json.dumps({"results": key}).encode())
        if way == "nested":
            return self.answer(200, b"[" * 100_000)
        if way == "html":
            return self.answer(200, b"<html><body>Please log in</body></html>")
        if way == "slow":
            time.sleep(5)
        if way == "dripping":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            return None
        if way == "half":
            del listed[len(listed) // 2 :]
        if way == "twice":
            listed[1]["index"] = listed[0]["index"]
        if way == "beyond":
            listed[0]["index"] = len(listed)
        if way == "nan":
            listed[0][name] = float("nan")
        if way == "words":
            listed[0][name] = "high"
        content = json.dumps(good).encode()
        if way == "cut":
            content = content[: len(content) // 2]
        return self.answer(200, content)

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(BrokenPipeError):  # it was not waited for
            self.wfile.write(content)


def results(dialect: str, body: dict[str, Any]) -> Any:
    """Best first, as services answer."""
    texts = body["documents" if dialect == "cohere" else "texts"]
    scores = [(score(body["query"], text), i) for i, text in enumerate(texts)]
    scores.sort(reverse=True)
    if dialect == "tei":
        return [{"index": i, "score": s} for s, i in scores]
    return {"results": [{"index": i, "relevance_score": s} for s, i in scores[: body["top_n"]]]}


if __name__ == "__main__":
    port = int(sys.argv[2]) if is_second_life else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Path(sys.argv[1]).write_text(str(server.server_port), encoding="utf-8")
    server.serve_forever()
