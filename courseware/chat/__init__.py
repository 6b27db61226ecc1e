"""A page in the browser on which you talk with your assistant: `make chat` calls what is in here."""
