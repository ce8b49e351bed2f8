"""The exchange formats, one class of ``collabteam.reviewing.exchange.base`` in each module."""
