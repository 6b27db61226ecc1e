"""The machine room of MiniGPT from scratch: it serves the learner and holds none of what they build.

A line lives in the folder of its caller: `export` is called by a chapter's last cell, `exercises` by
`check`, `hint` and `solution`, `checks` by check cells, `runs` by training runs, `widgets` by sliders,
`material` by whatever needs data, `site` by the website's build, `setup` by make and CI.
`minigpt_lib` never imports any of it.
"""

import sys

if "IPython" in sys.modules:  # in a notebook: note every cell that runs, for the export
    from courseware.export import session

    session.watch()
