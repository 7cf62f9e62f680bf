"""An edge beside a running suite, as its operator, its viewer and the edge's own log see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from services.runtime.settings import Settings
from tests.acceptance.browsing import SLOW_MS, Visitor, chromium
from tests.engines.process import wait_until
from tests.support.edges import EdgeNode
from tests.support.stack import OPERATOR, Stack

pytestmark = pytest.mark.browser


@pytest.fixture
def edge(stack: Stack, tmp_path: Path) -> Iterator[EdgeNode]:
    settings = Settings(data_dir=stack.suite.data_dir)
    node = EdgeNode.launched(tmp_path / "edge", stack.services, settings)
    node.wait()
    yield node
    node.process.stop()


@pytest.fixture
def page(stack: Stack, edge: EdgeNode) -> Iterator[Page]:
    with chromium() as browser:
        visitor = Visitor.arrive(stack, browser.new_context())
        visitor.sign_in(OPERATOR)
        visitor.go("/operator/edges")
        yield visitor.page
        assert visitor.wrongs == []


def shown(page: Page, edge: EdgeNode, *texts: str) -> None:
    """Refresh until the edge's line says all that."""
    line = page.get_by_role("listitem").filter(has_text=edge.address)

    def says() -> bool:
        page.get_by_role("button", name="Refresh").click()
        page.wait_for_load_state("networkidle")
        return line.count() == 1 and all(re.search(text, line.inner_text()) for text in texts)

    wait_until(says, SLOW_MS / 1000, f"the page says {texts}")
    expect(line).to_be_visible()


def test_a_viewer_streams_from_an_edge_and_its_operator_sees_it(
    stack: Stack, edge: EdgeNode, page: Page, tmp_path: Path
) -> None:
    shown(page, edge, "Live", "0 of 1000 streams", r"disk 0 B of 67 MB", "0 % not from the origin")
    files = [tmp_path / "edge.mp4", tmp_path / "gateway.mp4"]
    play = ("play", stack.title, "--offset", "0", "--out")
    stack.json("viewer", *play, str(files[0]))

    def sent() -> int:
        (found,) = [
            each for each in stack.json("operator", "edge", "list") if each["address"] == edge.address
        ]
        assert found["state"] == "STATE_LIVE"
        return int(found.get("sent_bytes", 0))

    wait_until(lambda: sent() > 0, SLOW_MS / 1000, "the edge's report of what it sent")
    assert sent() >= files[0].stat().st_size * 0.9
    shown(page, edge, "Live", r"disk [1-9][0-9.]* .B of 67 MB")
    assert edge.address in stack.kino("operator", "edge", "list").stdout
    assert "OPERATOR" in stack.kino("viewer", "--json", "edge", "list").stdout.upper()

    edge.process.stop()
    shown(page, edge, "Left")
    stack.json("viewer", *play, str(files[1]))
    assert files[0].read_bytes() == files[1].read_bytes()
