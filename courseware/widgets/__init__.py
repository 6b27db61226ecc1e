"""Interactive figures for JupyterLab; each file has the name of its twin in book/_static/twins."""
