"""Selection rules, one module each; see :class:`collabteam.rounds.selection.SelectionRule`."""
