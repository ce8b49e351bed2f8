"""Vote policies, one module each; see :class:`collabteam.team.voting.VotePolicy`."""
