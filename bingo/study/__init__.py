"""What a study file means: the typed schema, the job of each stage, the plan of files. Imports no torch."""
