"""The published model that the page offers beside the reader's own: SmolLM2, once `make real` has installed it."""

from __future__ import annotations

import functools
from pathlib import Path

from courseware.chat.writing import Source


def published_models() -> dict[str, Source]:
    """Return {"smollm2": how to open it}; empty before `make real`, and without chapter 19's modules."""
    try:
        # Imported here because a reader may be writing these modules at this moment.
        from minigpt_lib.interop import find_smollm2, open_assistant
    except ImportError:
        return {}

    try:
        file = find_smollm2()
    except FileNotFoundError:
        return {}
    return {"smollm2": Source(file, _default_system(file), open_assistant, published=True)}


@functools.cache  # reading its vocabulary takes a moment, and the page asks each time it is loaded
def _default_system(file: Path) -> str:
    """Return the system message of the chat template in a GGUF file, empty if there is none."""
    from minigpt_lib.interop import default_system
    from minigpt_lib.weight_files import read_gguf

    try:
        template = read_gguf(file).metadata.get("tokenizer.chat_template", "")
    except ValueError:  # damaged: whoever chooses the model is told how
        return ""
    return default_system(template) or ""
