"""`rerank_server.py` in a process that can be killed and started again on its port."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


class Server:
    """The server's process."""

    def __init__(self, folder: Path):
        self.port_file = folder / "port"
        self.start()

    def start(self) -> None:
        port = [self.port_file.read_text()] if self.port_file.exists() else []
        self.port_file.unlink(missing_ok=True)
        script = Path(__file__).with_name("rerank_server.py")
        command = [sys.executable, str(script), str(self.port_file), *port]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 20
        while not (self.port_file.exists() and self.port_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def url(self, way: str, dialect: str = "cohere") -> str:
        return f"http://127.0.0.1:{self.port_file.read_text()}/{way}/{dialect}"

    def asked(self, way: str) -> list[dict[str, Any]]:
        return [a for a in httpx.get(self.url("asked")).json() if a["way"] == way]
