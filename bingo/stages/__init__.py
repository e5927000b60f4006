"""One module a stage, of the same name as its rule: from settings and files to files."""
