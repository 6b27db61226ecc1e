"""Building the website: Jupyter Book, the reference page, the listings."""
