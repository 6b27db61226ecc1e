"""The machine room of MiniGPT from scratch: verified export, exercise checks, loss bands, progress, figures.

It serves the learner and holds none of what they build; `minigpt_lib` never imports it.
"""

from courseware import session
from courseware.exporting import export

session.watch()

__all__ = ["export"]
