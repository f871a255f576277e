"""The artifact store: a folder or a bucket of finished files, and the janitor."""
