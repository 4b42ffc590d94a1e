"""Packets that wait in a socket and cannot be put into another one: whether a restored job may do without them."""

from __future__ import annotations

MAY_DROP = "packets"
"""How --external allows it."""
DROPPED_HINT = f"try again, or let a restored job do without them by --external {MAY_DROP}"
