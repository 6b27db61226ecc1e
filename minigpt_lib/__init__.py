"""The library that a reader of MiniGPT from scratch builds, one verified module a chapter.

Every other file in this folder is written by a chapter's last cell, after its checks have passed.
"""
