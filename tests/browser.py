"""A headless Chromium that clicks: as much of its DevTools protocol as a test of pages takes.

In: addresses, and the texts of links and buttons. Out: what the browser shows, from every frame.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.needs import program

PATIENCE_S = 60.0
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--window-size=1500,1100",
    "--lang=en-US",
    # Frames stay in the page's process, where one session sees them all.
    "--disable-features=IsolateSandboxedIframes",
]
PLACE = """
(() => {
  const documents = [[document, 0, 0]];
  for (const frame of document.querySelectorAll("iframe")) {
    const box = frame.getBoundingClientRect();
    if (frame.contentDocument) documents.push([frame.contentDocument, box.x, box.y]);
  }
  const places = [];
  for (const [its, x, y] of documents)
    for (const element of its.querySelectorAll("a, button, [role=tab], [role=menuitem]")) {
      const says = [element.textContent, element.getAttribute("aria-label")];
      if (!says.some(text => text && text.trim() === TEXT)) continue;
      element.scrollIntoView({block: "center"});
      const box = element.getBoundingClientRect();
      if (box.width && !element.disabled)
        places.push([x + box.x + box.width / 2, y + box.y + box.height / 2]);
    }
  return places.at(-1);
})()
"""


class Browser:
    """One tab, and the addresses of all tabs."""

    def __init__(self, port: int, connection: ClientConnection) -> None:
        self._port, self._connection, self._calls = port, connection, 0

    def call(self, method: str, **parameters: Any) -> Any:
        """A method of the protocol; its result."""
        self._calls += 1
        self._connection.send(
            json.dumps({"id": self._calls, "method": method, "params": parameters})
        )
        while (answer := json.loads(self._connection.recv(PATIENCE_S))).get("id") != self._calls:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def click(self, text: str) -> None:
        """Click, with the mouse, the last link, button or tab of exactly that text."""
        code = PLACE.replace("TEXT", json.dumps(text))

        def place() -> Any:
            return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get(
                "value"
            )

        wait(place, lambda: f"no {text!r} to click in:\n{self.text()}")
        time.sleep(0.5)  # what moves as it appears
        x, y = place()
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def text(self) -> str:
        """Every text of the tab, its frames included."""
        shot = self.call("DOMSnapshot.captureSnapshot", computedStyles=[])
        strings = shot["strings"]
        return "\n".join(
            strings[i] for its in shot["documents"] for i in its["layout"]["text"] if i >= 0
        )

    def shows(self, text: str) -> None:
        """Wait until the tab shows a text."""
        wait(lambda: text in self.text(), lambda: f"{text!r} is not in:\n{self.text()}")

    def reaches(self, ending: str) -> None:
        """Wait until a tab or frame is at an address that ends so."""
        wait(
            lambda: any(url.endswith(ending) for url in self.addresses()),
            lambda: f"{self.addresses()}\n{self.text()}",
        )

    def addresses(self) -> list[str]:
        """Of all tabs, and of this one's frames."""
        tree = self.call("Page.getFrameTree")["frameTree"]
        frames = [frame["frame"]["url"] for frame in tree.get("childFrames", [])]
        tabs = httpx.get(f"http://127.0.0.1:{self._port}/json", trust_env=False).json()
        return [*(tab["url"] for tab in tabs), *frames]


def wait(until: Callable[[], Any], why: Callable[[], str], seconds: float = PATIENCE_S) -> None:
    """Wait until something holds, or fail with why it does not."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, why()
        time.sleep(0.3)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in a folder, until the block ends."""
    command = [program("chromium"), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    log = folder.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        said = "DevTools listening on ws://127.0.0.1:"
        wait(lambda: said in log.read_text(), log.read_text)
        port = int(re.search(rf"{said}(\d+)", log.read_text())[1])  # type: ignore[index]
        tabs = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
        (tab,) = [tab for tab in tabs if tab["type"] == "page"]
        with connect(tab["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Browser(port, connection)
    finally:
        process.terminate()
        process.wait()
