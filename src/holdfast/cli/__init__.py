"""The command line: one module per verb. It prints and never decides; `main.VERBS` is the whole list."""
