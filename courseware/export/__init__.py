"""Verified export: a chapter's code enters the library only after its checks have proved it."""

from courseware.export.exporting import export, verify

__all__ = ["export", "verify"]
